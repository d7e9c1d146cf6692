"""Plans for networks on the meta device, or of fake tensors: by their shapes, as for those with values."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from bmrs_torch import MultiplicativeNoise, insert_noise, noise_layers, plan_compaction, plan_insertion
from bmrs_torch.channels.values import with_values
from tests.bindings.networks import NETWORKS, images


def transformer() -> nn.Module:
    layer = nn.TransformerEncoderLayer(16, 2, dim_feedforward=24, batch_first=True)
    return nn.Sequential(nn.Linear(8, 16), nn.TransformerEncoder(layer, 2), nn.Linear(16, 4))


def sequences() -> Tensor:
    return torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(0))


CASES: dict[str, tuple[Callable[[], nn.Module], Tensor]] = {
    **{name: (make, images(2)) for name, make in NETWORKS.items()},
    "transformer": (transformer, sequences()),
    "lstm": (lambda: nn.LSTM(8, 12), sequences()),
}


def faked(model: nn.Module) -> nn.Module:
    """The same with fake parameters."""
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        memo: dict[int, Any] = {
            id(p): nn.Parameter(mode.from_tensor(p.detach()), requires_grad=p.requires_grad)
            for p in model.parameters()
        }
        memo |= {id(b): mode.from_tensor(b) for b in model.buffers()}
    return copy.deepcopy(model, memo)


@pytest.mark.parametrize("name", CASES)
def test_the_plan_is_that_of_the_network_with_values(name: str) -> None:
    make, x = CASES[name]
    torch.manual_seed(0)
    model = make()
    wanted = str(plan_insertion(model, x))
    assert str(plan_insertion(copy.deepcopy(model).to("meta"), x.to("meta"))) == wanted
    assert str(plan_insertion(faked(model), x)) == wanted


@pytest.mark.parametrize("name", ["lenet5", "conv_with_norm", "transformer"])
def test_so_is_the_plan_of_what_goes(name: str) -> None:
    make, x = CASES[name]
    torch.manual_seed(0)
    model = insert_noise(make(), x)
    for layer in noise_layers(model).values():
        layer.mask[::3] = 0
    masks = {name: layer.mask for name, layer in noise_layers(model).items()}
    wanted = plan_compaction(model, x)
    assert wanted.removed > 0
    empty = copy.deepcopy(model).to("meta")
    with pytest.raises(ValueError, match=r"has no values.*nothing says what is pruned"):
        plan_compaction(empty, x)
    for name, layer in noise_layers(empty).items():
        layer.mask = masks[name]
    assert str(plan_compaction(empty, x)) == str(wanted)


def test_noise_is_inserted_in_a_block_in_which_everything_is_made_without_values() -> None:
    with torch.device("meta"):
        model = insert_noise(nn.Sequential(nn.Linear(6, 13), nn.ReLU(), nn.Linear(13, 4)), torch.ones(2, 6))
    assert {name: layer.mu.is_meta for name, layer in noise_layers(model).items()} == {"0.noise": True}


def test_values_take_as_much_room_as_the_axes_together_also_in_copies() -> None:
    model = nn.Linear(3000, 2000).to("meta")
    filled, x = with_values(model, torch.ones(1, 3000, device="meta"))
    for one in (filled, copy.deepcopy(filled)):
        assert one.get_parameter("weight").untyped_storage().nbytes() <= 4 * 5001
    answer = filled(x)
    assert answer.isfinite().all()
    assert answer.std() > 0.1
    assert model.weight.is_meta


def test_noise_that_was_made_on_the_meta_device_begins_when_it_is_reset() -> None:
    with torch.device("meta"):
        layer = MultiplicativeNoise(3)
    layer.to_empty(device="cpu").reset_parameters()
    fresh = MultiplicativeNoise(3).state_dict()
    assert all(value.equal(fresh[name]) for name, value in layer.state_dict().items())
