"""What a rule doesn't know it says by one error of its own; any other error in a rule comes out."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bmrs_torch import MultiplicativeNoise, compact, noise_layers
from bmrs_torch.channels.arithmetic import ARITHMETIC
from bmrs_torch.channels.trace import BrokenRuleError, Call, Trace, UnknownUseError
from tests.bindings.surgery.patterns import Functional

ROWS = 1000


def network(operation: Callable[[Tensor], Tensor], channels: int = 6, width: int = 6) -> nn.Module:
    torch.manual_seed(0)
    layers = {"first": nn.Linear(4, channels), "gate": MultiplicativeNoise(channels, axis=-1)}
    model = Functional(
        lambda m, x: m.last(operation(m.gate(m.first(x)))), **layers, last=nn.Linear(width, 2)
    ).eval()
    noise_layers(model)["gate"].mask[: channels // 2] = 0
    return model


EXAMPLE = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))


def fault(_trace: Trace, _call: Call) -> None:
    raise ValueError("a fault of the rule")


def ignorance(_trace: Trace, _call: Call) -> None:
    raise UnknownUseError("upside down")


def test_an_error_in_a_rule_is_a_fault_and_comes_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ARITHMETIC, "relu", fault)
    with pytest.raises(BrokenRuleError, match=r"the rule for relu failed.*a fault of the rule"):
        compact(network(torch.relu), EXAMPLE)


def test_what_a_rule_does_not_know_is_kept_for_that_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ARITHMETIC, "relu", ignorance)
    with pytest.warns(UserWarning, match=r"relu .*is used in a way that isn't known \(upside down\)"):
        smaller = compact(network(torch.relu), EXAMPLE)
    assert noise_layers(smaller)["gate"].num_structures == 6


@pytest.mark.parametrize(
    ("operation", "width", "reason"),
    [
        (lambda x: x.view(torch.int16).to(x.dtype), 12, "numbers of another size"),
        (lambda x: x[:, torch.tensor([5, 1])], 2, "picked by their positions"),
        (lambda x: F.pad(x, (1, -1)), 6, "they are padded"),
        (F.logsigmoid, 6, "something else"),
        (
            lambda x: x[..., None].expand(-1, -1, 2)[torch.tensor([0, 1, 2]), :, torch.ones(3).long()],
            6,
            "several",
        ),
    ],
    ids=["view of bits", "positions", "padding that shifts", "two outputs", "positions on axes apart"],
)
def test_uses_that_keep_channels_say_so(
    operation: Callable[[Tensor], Tensor], width: int, reason: str
) -> None:
    model = network(operation, width=width)
    with pytest.warns(UserWarning, match=reason):
        smaller = compact(model, EXAMPLE)
    rows = 3 * torch.randn(ROWS, 4)
    torch.testing.assert_close(smaller(rows), model(rows))


def test_a_single_channel_whose_axis_a_view_removes_is_kept() -> None:
    model = Functional(
        lambda m, x: m.last(m.gate(m.first(x)) * m.score(x).view(-1)[:, None]),
        first=nn.Linear(4, 6),
        score=nn.Sequential(nn.Linear(4, 1), MultiplicativeNoise(1)),
        gate=MultiplicativeNoise(6),
        last=nn.Linear(6, 2),
    ).eval()
    noise_layers(model)["gate"].mask[:3] = 0
    smaller = compact(model, EXAMPLE)
    assert [layer.num_structures for layer in noise_layers(smaller).values()] == [1, 3]
    rows = 3 * torch.randn(ROWS, 4)
    # Sums of three terms where there were six, three of them 0.
    torch.testing.assert_close(smaller(rows), model(rows))


def test_the_two_parts_of_numbers_keep_their_channels() -> None:
    model = network(lambda x: torch.frexp(x)[0])
    smaller = compact(model, EXAMPLE)
    assert noise_layers(smaller)["gate"].num_structures == 3
    rows = 3 * torch.randn(ROWS, 4)
    torch.testing.assert_close(smaller(rows), model(rows))
