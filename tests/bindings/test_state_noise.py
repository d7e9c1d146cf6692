"""Noise on the state of a recurrent layer: it reaches the recurrence, and leaves the layer what it is."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_sequence

from bmrs_torch import MultiplicativeNoise
from bmrs_torch.attachment import attach, attachments, detach
from tests.bindings.gates import scatter

INPUTS, HIDDEN = 3, 5

KINDS: dict[str, Callable[[], nn.RNNBase]] = {
    "lstm": lambda: nn.LSTM(INPUTS, HIDDEN),
    "gru": lambda: nn.GRU(INPUTS, HIDDEN),
    "tanh": lambda: nn.RNN(INPUTS, HIDDEN),
    "deep, both ways": lambda: nn.GRU(INPUTS, HIDDEN, 2, bidirectional=True),
}

every_kind = pytest.mark.parametrize("build", KINDS.values(), ids=KINDS)


def noisy(build: Callable[[], nn.RNNBase]) -> Any:
    torch.manual_seed(0)
    layer = build().double().eval()
    attach(layer, MultiplicativeNoise(HIDDEN, axis=-1, share="batch").double(), state=True)
    return scatter(layer).eval()


def steps(length: int = 4, batch: int = 2) -> Tensor:
    return torch.randn(length, batch, INPUTS, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def scaled_by_hand(layer: nn.Module) -> tuple[Any, Tensor]:
    """A plain layer whose own weights for its state have the factors, and these."""
    plain = copy.deepcopy(layer)
    (attached,) = attachments(plain)
    factor = attached.noise.expected_noise().detach()
    detach(attached)
    with torch.no_grad():
        for name, weight in plain.named_parameters():
            if "weight_hh" in name or name.startswith("weight_ih_l1"):
                weight.mul_(factor.repeat(weight.shape[1] // HIDDEN))
    return plain, factor


@every_kind
def test_the_state_has_the_noise_wherever_it_is_taken(build: Callable[[], nn.RNNBase]) -> None:
    layer = noisy(build)
    plain, factor = scaled_by_hand(layer)
    directions = 2 if layer.bidirectional else 1
    output, last = layer(steps())
    expected, plain_last = plain(steps())
    torch.testing.assert_close(output, expected * factor.repeat(directions))
    pairs = zip(last, plain_last, strict=True) if isinstance(last, tuple) else [(last, plain_last)]
    for found, wanted in pairs:
        torch.testing.assert_close(found, wanted * factor)


@every_kind
def test_packed_sequences_have_the_noise(build: Callable[[], nn.RNNBase]) -> None:
    layer = noisy(build)
    alone = layer(steps(batch=1))[0][:, 0]
    packed, _ = layer(pack_sequence([steps(batch=1)[:, 0]]))
    torch.testing.assert_close(packed.data, alone)


@every_kind
def test_the_noise_learns_and_the_parameters_are_the_same_ones(build: Callable[[], nn.RNNBase]) -> None:
    layer = noisy(build).train()
    before, keys = dict(layer.named_parameters()), list(vars(layer))
    first, second = layer(steps())[0], layer(steps())[0]
    assert not torch.equal(first, second)
    second.square().sum().backward()
    assert all(parameter.grad is not None for parameter in layer.parameters())
    assert all(now is before[name] for name, now in layer.named_parameters())
    assert list(vars(layer)) == keys


@every_kind
def test_copies_and_pickles_answer_alike(build: Callable[[], nn.RNNBase]) -> None:
    layer = noisy(build)
    layer(steps())
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        torch.testing.assert_close(other(steps())[0], layer(steps())[0])


def test_a_call_that_fails_leaves_the_layer_as_it_was() -> None:
    layer = noisy(KINDS["gru"])
    before = layer(steps())[0]
    keys = list(vars(layer))
    with pytest.raises(RuntimeError):
        layer(torch.zeros(4, 2, INPUTS + 1, dtype=torch.float64))
    assert list(vars(layer)) == keys
    torch.testing.assert_close(layer(steps())[0], before)


def test_noise_that_is_taken_off_leaves_no_trace() -> None:
    layer = noisy(KINDS["lstm"])
    detach(attachments(layer)[0])
    assert not attachments(layer)
    hooks = (layer._forward_hooks, layer._forward_pre_hooks, layer._forward_hooks_always_called)
    assert not any(hooks)
    assert isinstance(layer(steps())[0], Tensor)
