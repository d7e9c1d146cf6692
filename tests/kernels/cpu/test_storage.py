"""The 16-bit formats inside kernels: every bit pattern in, ties and every kind of number out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from bmrs_kernels.cpu.cache import cached_njit
from bmrs_kernels.cpu.storage import STORAGE, narrow, widen

SPECIAL = (0.0, -0.0, np.inf, -np.inf, np.nan, 65504.0, 65519.996, 65520.0, -65520.0, 3.4e38, 1e-45)
FORMATS = pytest.mark.parametrize("name", ["bfloat16", "float16"])


def _widened(stored: Any, out: Any) -> None:
    for i in range(stored.size):
        out[i] = widen(stored[i])


def _narrowed(values: Any, out: Any) -> None:
    for i in range(values.size):
        out[i] = narrow(values[i], out[i])


def patterns() -> NDArray[np.uint16]:
    return np.arange(2**16).astype(np.uint16)


def as_torch(bits: NDArray[Any], name: str) -> torch.Tensor:
    return torch.from_numpy(bits.view(np.int16).copy()).view(getattr(torch, name))


def narrowed(values: NDArray[np.float32], name: str) -> NDArray[np.int16]:
    out = np.empty(values.size, STORAGE[name])
    cached_njit(_narrowed)(values, out)
    return out.view(np.int16)


def assert_rounded_as_torch_does(values: NDArray[np.float32], name: str) -> None:
    ours = narrowed(values, name)
    theirs = torch.from_numpy(values).to(getattr(torch, name)).view(torch.int16).numpy()
    number = ~np.isnan(values)
    assert np.array_equal(ours[number], theirs[number])
    assert bool(as_torch(ours[~number], name).isnan().all())


@FORMATS
def test_every_pattern_is_read(name: str) -> None:
    out = np.empty(2**16, np.float32)
    cached_njit(_widened)(patterns().view(STORAGE[name]), out)
    expected = as_torch(patterns(), name).float().numpy()
    assert np.array_equal(out, expected, equal_nan=True)
    assert np.array_equal(np.signbit(out), np.signbit(expected))


@FORMATS
def test_every_stored_number_is_written_as_it_was_read(name: str) -> None:
    exact = as_torch(patterns(), name).float().numpy()
    number = ~np.isnan(exact)
    assert np.array_equal(narrowed(exact[number], name), patterns().view(np.int16)[number])


@FORMATS
def test_ties_go_to_even_and_their_neighbours_to_the_nearest(name: str) -> None:
    exact = np.sort(as_torch(patterns(), name).float().numpy())
    exact = exact[np.isfinite(exact)]
    with np.errstate(over="ignore"):
        # bfloat16's smallest steps halve exactly in float32's subnormal numbers too.
        ties = (exact[:-1].astype(np.float64) + exact[1:]) / 2
    middle = ties.astype(np.float32)
    for values in (
        middle,
        np.nextafter(middle, np.float32(-np.inf)),
        np.nextafter(middle, np.float32(np.inf)),
    ):
        assert_rounded_as_torch_does(values, name)


@FORMATS
def test_any_float_is_rounded_to_the_nearest(name: str) -> None:
    special = np.array(SPECIAL, np.float32)
    anything = np.frombuffer(np.random.default_rng(0).bytes(1 << 20), np.float32)
    assert_rounded_as_torch_does(np.concatenate([special, anything]), name)
