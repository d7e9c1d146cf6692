"""The elementary functions of float32 kernels, in ulps of the exact result on the ranges they are for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from bmrs_kernels.cpu import float32 as numba_float32
from bmrs_kernels.cpu.cache import cached_njit

Floats = NDArray[np.float32]
Exact = Callable[[NDArray[np.float64]], NDArray[np.float64]]


def _loop(x: Any, out: Any) -> None:
    for i in range(x.size):
        out[i] = elementary(x[i])  # type: ignore[name-defined]  # noqa: F821


def applied(name: str, x: Floats) -> Floats:
    out = np.empty_like(x)
    cached_njit(_loop, name=name, elementary=numba_float32.ELEMENTARY[name])(x, out)
    return out


def both_signs_of_all_sizes(low: float, high: float) -> Floats:
    """A million numbers of [low, high]: evenly spaced, and evenly over the exponents down to 1e-30."""
    generator = np.random.default_rng(0)
    sizes = 10.0 ** generator.uniform(-30, np.log10(max(abs(low), abs(high))), 500_000)
    signed = sizes * generator.choice([-1.0, 1.0], sizes.size)
    values = np.concatenate([generator.uniform(low, high, 500_000), signed]).astype(np.float32)
    inside: Floats = values[(values >= np.float32(low)) & (values <= np.float32(high))]
    return inside


def positive_of_all_sizes(low: float, high: float) -> Floats:
    generator = np.random.default_rng(0)
    spread = np.exp(generator.uniform(np.log(low), np.log(high), 500_000))
    return np.concatenate([spread, generator.uniform(0.5, 2.0, 500_000)]).astype(np.float32)


# Name, the exact function, arguments. The ranges are those the module states; that of log1p is what the
# draws and the divergence have: 1 + x is normal.
RANGES: list[tuple[str, Exact, Floats]] = [
    ("exp", np.exp, both_signs_of_all_sizes(-87.3, 88.7)),
    ("expm1", np.expm1, both_signs_of_all_sizes(-100.0, 87.9)),
    ("log", np.log, positive_of_all_sizes(1.2e-38, 3.4e38)),
    ("log1p", np.log1p, both_signs_of_all_sizes(-0.9999999, 1e30)),
    ("log1p", np.log1p, both_signs_of_all_sizes(-0.9999999, 3.0)),
]


@pytest.mark.parametrize(
    ("name", "exact", "x"), RANGES, ids=lambda value: value if isinstance(value, str) else ""
)
def test_within_one_and_a_half_ulps(name: str, exact: Exact, x: Floats) -> None:
    truth = exact(x.astype(np.float64))
    ulp = np.spacing(np.abs(truth).astype(np.float32)).astype(np.float64)
    worst = np.max(np.abs(applied(name, x) - truth) / ulp)
    assert worst <= 1.5


def test_exp_of_what_would_be_subnormal_is_zero() -> None:
    x = np.array([-87.34, -88.0, -100.0, -1e4, -3e38, -np.inf], np.float32)
    assert not applied("exp", x).any()
    assert applied("expm1", x).tolist() == [-1.0] * 6
