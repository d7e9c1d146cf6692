"""Tensors that share memory: what is written to one is followed into the others, or is kept."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from bmrs_torch import MultiplicativeNoise, compact, noise_layers
from bmrs_torch.channels.memory import meet, same_axes
from bmrs_torch.channels.network import follow
from bmrs_torch.surgery.verification import relative_difference
from tests.bindings.gates import close
from tests.bindings.surgery.patterns import Functional

CHANNELS, STEPS = 6, 3


def preallocated(x: Tensor) -> Tensor:
    y = x.new_zeros(x.shape[0], STEPS, x.shape[1])
    for step in range(STEPS):
        y[:, step] = x * (step + 1)
    return y.sum(1)


def preallocated_in_part(x: Tensor) -> Tensor:
    y = torch.ones(x.shape[0], STEPS, x.shape[1], dtype=x.dtype)
    y[:, 1] = x
    return y[:, 1]


def not_filled(x: Tensor) -> Tensor:
    y = torch.empty(STEPS, x.shape[0], x.shape[1], dtype=x.dtype)
    for step in range(STEPS):
        y[step] = x.relu()
    return y[-1]


def pieces_changed(x: Tensor) -> Tensor:
    first, second = torch.cat([x, x], 1).chunk(2, 1)
    return first.relu_() + second.tanh_()


def table_written_into(x: Tensor) -> Tensor:
    y = torch.arange(2.0 * CHANNELS, dtype=x.dtype).view(2, 1, CHANNELS).repeat(1, x.shape[0], 1)
    y[0] = x
    return y.sum(0)


def channels_moved(x: Tensor) -> Tensor:
    y = torch.zeros(x.shape[0], CHANNELS + 1, dtype=x.dtype)
    y[:, 1:] = x
    return y[:, :CHANNELS]


def whole_read_after_a_piece_was_changed(x: Tensor) -> Tensor:
    y = x * 1
    first, _ = y.chunk(2, 1)
    first.add_(1.0)
    return y


GO: list[Callable[[Tensor], Tensor]] = [preallocated, not_filled, pieces_changed]
STAY: list[Callable[[Tensor], Tensor]] = [
    preallocated_in_part,
    table_written_into,
    channels_moved,
    whole_read_after_a_piece_was_changed,
]


@pytest.mark.parametrize("use", [*GO, *STAY], ids=lambda use: use.__name__)
def test_what_is_written_in_part(use: Callable[[Tensor], Tensor]) -> None:
    torch.manual_seed(0)
    model = Functional(
        lambda m, x: m.last(use(m.gate(m.first(x)))),
        first=nn.Linear(4, CHANNELS),
        gate=MultiplicativeNoise(CHANNELS),
        last=nn.Linear(CHANNELS, 2),
    )
    close(model.double().eval(), 0.5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        smaller = compact(model, torch.randn(3, 4, dtype=torch.float64))
    left = noise_layers(smaller)["gate"].num_structures
    assert left == (3 if use in GO else CHANNELS)
    assert relative_difference(model, smaller, torch.randn(5, 4, dtype=torch.float64)) < 1e-12


def test_tensors_meet_where_they_have_an_entry_in_common() -> None:
    x = torch.zeros(4, 6)
    first, second = x.chunk(2, 1)
    assert not meet(first, second)
    assert meet(first, x)
    assert meet(x[1:3], x[:, 2])
    assert not meet(x[::2], x[1::2])
    assert not meet(x[:0], x)


@pytest.mark.parametrize(
    ("part", "pairs"),
    [
        (lambda x: x[:, 1], {(0, 0), (1, 2)}),
        (lambda x: x[1], {(0, 1), (1, 2)}),
        (lambda x: x.transpose(1, 2), {(0, 0), (1, 2), (2, 1)}),
        (lambda x: x[:, :, 1:], {(0, 0), (1, 1)}),
        (lambda x: x.flatten()[1:13].view(3, 4), set()),
    ],
)
def test_axes_of_a_part(part: Callable[[Tensor], Tensor], pairs: set[tuple[int, int]]) -> None:
    x = torch.zeros(2, 3, 4)
    assert set(same_axes(part(x), x)) == pairs


def test_sparse_tensors_have_no_memory_to_share() -> None:
    model = Functional(
        lambda m, x: m.last(torch.sparse.mm(x.to_sparse(), m.first.weight.T).relu_()),
        first=nn.Linear(4, CHANNELS),
        last=nn.Linear(CHANNELS, 2),
    )
    assert follow(model, torch.eye(3, 4)).calls
