"""Reasons why a layer gets no noise are true: what they say would help, does."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from bmrs_torch import plan_insertion

WIDTH = 6


class Network(nn.Module):
    """A layer under trial between two others."""

    def __init__(self, forward: Callable[[Network, Tensor], Tensor]) -> None:
        super().__init__()
        self.tried, self.other, self.last = (nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.norm, self.batch_norm = nn.LayerNorm(WIDTH), nn.BatchNorm1d(WIDTH)
        self.offset = nn.Parameter(torch.arange(float(WIDTH)))
        self._forward = forward

    def forward(self, x: Tensor) -> Tensor:
        return self._forward(self, x)


Forward = Callable[[Network, Tensor], Tensor]


def _stream(model: Network, x: Tensor) -> Tensor:
    h = model.tried(x).relu()
    answer: Tensor = model.last((h + model.other(h)).relu())
    return answer


CASES: dict[str, tuple[Forward, Forward | None, str, str]] = {
    # What is refused, the same with the advice followed, where noise is wanted then, words of the reason.
    "the input": (
        lambda m, x: m.last((x + m.tried(x)).relu()),
        lambda m, x: m.last((m.other(x) + m.tried(x)).relu()),
        "streams",
        "the model's input has an entry for each of them in the model's own forward method; with a layer",
    ),
    "a constant": (
        lambda m, x: m.last((m.tried(x) + torch.arange(float(WIDTH))).relu()),
        lambda m, x: m.last((m.tried(x) + m.offset).relu()),
        "auto",
        "a constant has an entry for each of them in the model's own forward method; as a parameter",
    ),
    "a norm over them": (
        lambda m, x: m.last(m.norm(m.tried(x)).relu()),
        lambda m, x: m.last(m.batch_norm(m.tried(x)).relu()),
        "auto",
        "LayerNorm normalises over the structures in 'norm'",
    ),
    "a stream": (_stream, _stream, "streams", "where='streams'"),
    "an output": (lambda m, x: m.tried(x), None, "auto", "it is the model's output"),
    "not called": (
        lambda m, x: m.last(nn.functional.linear(x, m.tried.weight).relu()),
        lambda m, x: m.last(m.tried(x).relu()),
        "auto",
        "it isn't called as a module in evaluation mode: call the layer",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_the_reason_is_true(case: str) -> None:
    refused, mended, where, words = CASES[case]
    x = torch.randn(4, WIDTH, generator=torch.Generator().manual_seed(0))
    plan = plan_insertion(Network(refused).eval(), x)
    assert words in dict(plan.passed_over)["tried"]
    assert all(place.name != "tried" for place in plan.placements)
    if mended is not None:
        assert "tried" not in dict(plan_insertion(Network(mended).eval(), x, where=where).passed_over)


def test_the_gate_lies_where_0_stays_0() -> None:
    """After the cosine 0 is 1: no gate before it lets anything go."""
    plan = plan_insertion(Cosine(nn.Sequential(nn.Linear(3, 6), nn.Linear(6, 4))), torch.ones(2, 3))
    assert [(place.name, place.before) for place in plan.placements] == [("layers.1", True)]


class Cosine(nn.Module):
    """Two layers with a cosine in between."""

    def __init__(self, layers: nn.Sequential) -> None:
        super().__init__()
        self.layers = layers

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.layers[1](torch.cos(self.layers[0](x)))
        return answer
