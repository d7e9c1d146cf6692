"""Every architecture: what is masked goes, the answers stay, and a plain model is left that trains."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._pytree import tree_map

from bmrs_torch import compact, fold, insert_noise
from bmrs_torch.channels.calling import answers, tensors_of
from bmrs_torch.surgery.verification import RELATIVE_TOLERANCE
from tests.zoo.architectures import ARCHITECTURES
from tests.zoo.randomness import mask, randomize, randomize_statistics

SEEN, UNSEEN = 0, 1


def noisy(name: str) -> nn.Module:
    torch.manual_seed(0)
    model = ARCHITECTURES[name].build().eval()
    randomize(model)
    randomize_statistics(model, ARCHITECTURES[name].inputs(SEEN))
    model = insert_noise(model, ARCHITECTURES[name].inputs(SEEN))
    randomize(model, seed=1)
    return model


def parameters_of(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def assert_trains(model: nn.Module, inputs: Any) -> None:
    """One step of gradient descent goes through every layer that the example reaches."""
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    answer = model(**inputs) if isinstance(inputs, dict) else model(inputs)
    sum(t.square().mean() for t in tensors_of(answer)).backward()  # type: ignore[union-attr]
    optimizer.step()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def doubles(model: nn.Module, inputs: Any) -> tuple[nn.Module, Any]:
    wide = tree_map(lambda t: t.double() if t.is_floating_point() else t, inputs)
    return copy.deepcopy(model).double(), wide


def difference(answer: list[torch.Tensor], other: list[torch.Tensor]) -> float:
    a, b = (torch.cat([t.flatten().double() for t in tensors]) for tensors in (answer, other))
    return float((a - b).norm() / a.norm())


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_shrunk_and_folded_answer_as_masked(name: str) -> None:
    model, zoo = noisy(name), ARCHITECTURES[name]
    inputs, unseen = zoo.inputs(SEEN), zoo.inputs(UNSEEN)
    total = parameters_of(model)
    exact = doubles if zoo.has_float64 else lambda m, x: (m, x)
    assert difference(answers(model, inputs), answers(model, unseen)) > 1e-3, "the answers tell nothing"
    for dead in (0.3, 0.6, 0.95, 1.0):
        mask(model, dead)
        before = copy.deepcopy(model.state_dict())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of what grouped convolutions retain
            smaller = compact(model, inputs)
        assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
        masked = answers(*exact(model, unseen))
        # In float64 nothing but sums in another order is between them.
        assert difference(masked, answers(*exact(smaller, unseen))) <= (1e-9 if zoo.has_float64 else 1e-5)
        folded = fold(smaller, inputs)
        # Folded weights are rounded to float32 once more; deep networks magnify that.
        assert difference(masked, answers(*exact(folded, unseen))) <= RELATIVE_TOLERANCE
        assert not any(type(m).__module__.startswith("bmrs") for m in folded.modules())
        assert parameters_of(folded) < total
        assert dead != 0.95 or 1 - parameters_of(folded) / total >= zoo.least
    assert_trains(folded, inputs)
