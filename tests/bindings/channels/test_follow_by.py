"""A user's own rule lets channels go that reach something which can't be followed by itself."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bmrs_torch import MultiplicativeNoise, channelwise, compact, follow_by, noise_layers
from bmrs_torch.channels import BrokenRuleError, Call, Trace, UnknownUseError
from bmrs_torch.surgery.verification import relative_difference
from tests.bindings.surgery.patterns import Functional


def strengths(x: Tensor) -> Tensor:
    """The singular values of each channel as a matrix."""
    values: Tensor = torch.linalg.svdvals(x.unflatten(-1, (4, 2)))
    return values


@torch.library.custom_op("bmrs_tests::strengths", mutates_args=())
def strengths_operation(x: Tensor) -> Tensor:
    return strengths(x)


class Strengths(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return strengths(x)


class Filter(nn.Module):
    """With a filter for each channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.filters = nn.Parameter(torch.randn(2, channels))

    def forward(self, x: Tensor, scale: float = 1.0) -> Tensor:
        return strengths(x) * (scale * self.filters.T)


@pytest.fixture(autouse=True)
def _no_rules_left(monkeypatch: pytest.MonkeyPatch) -> None:
    module = sys.modules["bmrs_torch.channels.follow_by"]  # its function of the same name hides it
    monkeypatch.setattr(module, "_OPERATIONS", {})
    monkeypatch.setattr(module, "_MODULES", {})


def network(step: Callable[[Tensor], Tensor]) -> nn.Module:
    torch.manual_seed(0)
    layers: dict[str, nn.Module] = {"first": nn.Conv1d(2, 6, 1), "gate": MultiplicativeNoise(6)}
    if isinstance(step, nn.Module):
        layers["step"] = step
    model = Functional(
        lambda m, x: m.last((m.step if "step" in layers else step)(m.gate(m.first(x)))),
        **layers,
        last=nn.Conv1d(6, 2, 1),
    )
    model = model.double().eval()
    noise_layers(model)["gate"].mask[[0, 3]] = 0
    return model


def rows(number: int, seed: int = 0) -> Tensor:
    return torch.randn(number, 2, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def left(model: nn.Module) -> int:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        smaller = compact(model, rows(2))
    assert relative_difference(model, smaller, rows(5, seed=9)) < 1e-12  # float64 sums in another order
    return noise_layers(smaller)["gate"].num_structures


def test_without_a_rule_the_channels_stay() -> None:
    for step in (strengths, strengths_operation, Strengths(), Filter(6)):
        assert left(network(step)) == 6


def by_function() -> Callable[[Tensor], Tensor]:
    return follow_by(channelwise(axis=1))(strengths)


def by_operation() -> Callable[[Tensor], Tensor]:
    return follow_by(channelwise(axis=1))(strengths_operation)


def by_name() -> Callable[[Tensor], Tensor]:
    follow_by(channelwise(axis=1))("bmrs_tests::strengths")
    return strengths_operation


def by_overload() -> Callable[[Tensor], Tensor]:
    follow_by(channelwise(axis=1))(torch.ops.bmrs_tests.strengths)
    return strengths_operation


def by_class() -> nn.Module:
    return follow_by(channelwise(axis=1))(Strengths)()


def by_class_of_a_parent() -> nn.Module:
    follow_by(channelwise(axis=-2))(Strengths)
    child: type[nn.Module] = type("Child", (Strengths,), {})
    return child()


def by_class_with_parameters() -> nn.Module:
    return follow_by(channelwise(axis=1, parameters={"filters": 1}))(Filter)(6)


@pytest.mark.parametrize(
    "make",
    [
        by_function,
        by_operation,
        by_name,
        by_overload,
        by_class,
        by_class_of_a_parent,
        by_class_with_parameters,
    ],
)
def test_with_a_rule_they_go(make: Callable[[], Any]) -> None:
    assert left(network(make())) == 4


def test_a_rule_of_ones_own_says_what_goes_together() -> None:
    def pairs(trace: Trace, call: Call) -> None:
        state = trace.state(call["x"])
        _, channels, positions = state.axes
        assert channels is not None
        trace.pin((positions,), "they are positions")
        halves = channels.labels.reshape(2, -1)
        trace.labels.unite(halves[0], halves[1])
        zero = np.logical_and(*channels.zero.reshape(halves.shape))
        trace.set(call.out, (None, trace.carried(call.out, 1, halves[0], zero), None), state.dynamic)

    @follow_by(pairs)
    def folded(x: Tensor) -> Tensor:
        a, b = x.chunk(2, 1)
        return strengths(a) + strengths(b)

    model = network(lambda x: folded(x).repeat(1, 2, 1))
    assert left(model) == 4


def test_a_subclass_with_a_forward_method_of_its_own_has_no_rule() -> None:
    follow_by(channelwise(axis=1))(Strengths)
    flipped = type("Flipped", (Strengths,), {"forward": lambda _self, x: strengths(x).flip(1)})
    assert left(network(flipped())) == 6


def test_a_rule_that_is_not_true_is_found_out() -> None:
    assert left(network(follow_by(channelwise(axis=1))(lambda x: strengths(x).flip(1)))) == 6


def test_a_rule_that_does_not_know_a_use_keeps_the_channels() -> None:
    def ignorant(_trace: Trace, _call: Call) -> None:
        raise UnknownUseError("upside down")

    model = network(follow_by(ignorant)(strengths))
    with pytest.warns(UserWarning, match=r"strengths .*isn't known \(upside down\)"):
        compact(model, rows(2))


def test_what_comes_out_without_the_channels_keeps_them() -> None:
    def wide(x: Tensor) -> Tensor:
        return strengths(x).transpose(1, 2)

    model = network(lambda x: follow_by(channelwise(axis=1))(wide)(x).transpose(1, 2))
    with pytest.warns(UserWarning, match=r"6 channels come in, what comes out is of shape \(2, 2, 6\)"):
        compact(model, rows(2))


def test_a_rule_that_says_nothing_of_what_comes_out_is_a_fault() -> None:
    model = network(follow_by(lambda _trace, _call: None)(strengths))
    with pytest.raises(BrokenRuleError, match=r"doesn't tell what comes out.*trace\.set"):
        compact(model, rows(2))


def test_what_can_not_have_a_rule_is_refused() -> None:
    with pytest.raises(TypeError, match=r"a function, a class of modules or an operation .*got Linear"):
        follow_by(channelwise(axis=1))(nn.Linear(2, 2))
