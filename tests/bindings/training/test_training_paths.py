"""Networks whose training needs more than an example: what surgery is told of it on the way."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bmrs_torch import Pruner, insert_noise, parameter_groups, prune_trained


class WithTarget(nn.Module):
    """In training it takes a target and has a second head."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk, self.head, self.auxiliary = nn.Linear(8, 16), nn.Linear(16, 2), nn.Linear(16, 3)

    def forward(self, x: Tensor, target: Tensor | None = None) -> Tensor:
        h = self.trunk(x).relu()
        answer: Tensor = self.head(h)
        if not self.training:
            return answer
        assert target is not None
        loss: Tensor = nn.functional.cross_entropy(answer, target) + self.auxiliary(h).square().mean()
        return loss


def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(32, 8, generator=generator), torch.randint(2, (32,), generator=generator)


@pytest.mark.parametrize("told", [True, False])
@pytest.mark.parametrize("shrink", [True, False])
def test_a_pruner_passes_on_what_training_computes(told: bool, shrink: bool) -> None:
    torch.manual_seed(0)
    x, y = batch()
    model = insert_noise(WithTarget().eval(), x).train()
    optimizer = torch.optim.Adam(parameter_groups(model, lr=0.01))
    step = {"training_step": lambda network: network(x, y)} if told else {"unreached": "warn"}
    pruner = Pruner(
        model, optimizer, num_samples=32, criterion="l2", amount=0.5, shrink=shrink, example_inputs=x, **step
    )
    pruner.loss(model(x, y)).backward()
    optimizer.step()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        pruner.end_epoch()
        smaller: Any = pruner.finish()
    about_training = [str(w.message) for w in caught if "training" in str(w.message)]
    assert bool(about_training) != told
    assert smaller.trunk.out_features == 8
    if told:
        smaller.train()(x, y).backward()
        assert smaller.auxiliary.in_features == 8


def test_the_loss_of_prune_trained_tells_surgery_how_it_is_trained() -> None:
    x, y = batch()
    trained = WithTarget().eval()
    before = copy.deepcopy(trained)

    def loss(network: nn.Module, minibatch: tuple[Tensor, Tensor]) -> Tensor:
        answer = network(*minibatch)
        return answer if network.training else nn.functional.cross_entropy(answer, minibatch[1])

    result = prune_trained(trained, [(x, y)], loss, num_samples=32, steps=2, criterion="l2", amount=0.5)
    smaller: Any = result.model
    assert (smaller.trunk.out_features, smaller.auxiliary.in_features) == (8, 8)
    smaller.train()(x, y).backward()
    assert torch.equal(trained.trunk.weight, before.trunk.weight)
