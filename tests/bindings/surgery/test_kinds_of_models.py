"""Models as people have them: wrapped, synchronised, lazy, masked otherwise, in another memory format."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.utils import prune as torch_prune

from bmrs_torch import (
    compact,
    coupled_gates,
    fold,
    insert_noise,
    noise_layers,
    plan_compaction,
    plan_insertion,
    prune,
    scores,
)
from bmrs_torch.surgery.verification import relative_difference


def normal(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def network(norm: Callable[[int], nn.Module] = nn.BatchNorm2d) -> nn.Sequential:
    torch.manual_seed(0)
    first, second, last = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 6, 3), nn.Conv2d(6, 2, 1)
    return nn.Sequential(first, norm(8), nn.ReLU(), second, nn.ReLU(), last)


def masked(model: nn.Module) -> nn.Module:
    for layer in noise_layers(model).values():
        layer.mask[: layer.num_structures // 2] = 0
    return model.eval()


IMAGES = normal(2, 3, 8, 8)


@pytest.fixture
def process_group(tmp_path: Path) -> Iterator[None]:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/group", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


WRAPPERS: dict[str, Callable[[nn.Module], Any]] = {
    "DistributedDataParallel": nn.parallel.DistributedDataParallel,
    "DataParallel": nn.DataParallel,
    "torch.compile": lambda model: torch.compile(model, backend="eager"),
    "AveragedModel": torch.optim.swa_utils.AveragedModel,
    "two of them": lambda model: nn.DataParallel(torch.optim.swa_utils.AveragedModel(model)),
}


@pytest.mark.usefixtures("process_group")
@pytest.mark.parametrize("kind", WRAPPERS)
def test_of_a_wrapped_model_what_is_inside_is_meant(kind: str) -> None:
    plain = masked(insert_noise(network(), IMAGES))
    wrapped = WRAPPERS[kind](plain).eval()
    assert list(noise_layers(wrapped)) == list(noise_layers(plain))
    assert str(plan_compaction(wrapped, IMAGES)) == str(plan_compaction(plain, IMAGES))
    assert coupled_gates(wrapped, IMAGES) == coupled_gates(plain, IMAGES)
    assert scores(wrapped, "l2", example_inputs=IMAGES).keys() == scores(plain, "l2").keys()
    smaller: Any = compact(wrapped, IMAGES)
    folded: Any = fold(wrapped, IMAGES)
    assert {type(smaller), type(folded)} == {nn.Sequential}
    assert (smaller[0].out_channels, folded[0].out_channels) == (4, 8)
    for other in (smaller, folded):
        assert relative_difference(plain, other, IMAGES) < 1e-5
    prune(wrapped, "random", amount=0.9)
    assert int(noise_layers(wrapped)["3.noise"].kept().sum()) < 3


@pytest.mark.usefixtures("process_group")
def test_an_optimizer_of_a_wrapped_model_goes_on() -> None:
    wrapped = nn.parallel.DistributedDataParallel(masked(insert_noise(network(), IMAGES)))
    optimizer = torch.optim.Adam(wrapped.parameters())
    smaller = compact(wrapped, IMAGES, optimizer=optimizer)
    assert {id(p) for group in optimizer.param_groups for p in group["params"]} == {
        id(p) for p in smaller.parameters()
    }


@pytest.mark.usefixtures("process_group")
def test_noise_is_inserted_before_a_model_is_distributed() -> None:
    """DistributedDataParallel synchronises only the parameters that it found when it was made."""
    with pytest.raises(ValueError, match="before it is wrapped"):
        insert_noise(nn.parallel.DistributedDataParallel(network()), IMAGES)
    assert plan_insertion(nn.DataParallel(network()), IMAGES).placements


def test_synchronised_batch_norm_is_batch_norm() -> None:
    model = nn.SyncBatchNorm.convert_sync_batchnorm(network())
    masked(insert_noise(model, IMAGES, where="batchnorm"))
    assert list(noise_layers(model)) == ["1.noise"]
    smaller: Any = compact(model, IMAGES)
    folded = fold(smaller, IMAGES)
    assert (smaller[1].num_features, type(smaller[1])) == (4, nn.SyncBatchNorm)
    assert relative_difference(model, folded, IMAGES) < 1e-5


class Distributed(nn.SyncBatchNorm):
    """As it is where there are several processes: in training it asks the others."""

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            raise RuntimeError("the other processes don't answer")
        return nn.modules.batchnorm._BatchNorm.forward(self, x)


def test_synchronised_batch_norm_in_training_waits_for_no_other_process() -> None:
    class Auxiliary(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head, self.extra = network(Distributed), nn.Conv2d(2, 2, 1), Distributed(2)

        def forward(self, x: Tensor) -> Tensor:
            x = self.body(x)
            answer: Tensor = self.head(self.extra(x) if self.training else x)
            return answer

    model: Any = masked(insert_noise(Auxiliary(), IMAGES))
    assert compact(model, IMAGES).body[0].out_channels == 4  # without a warning that training wasn't followed


LAZY = {
    "linear": lambda: nn.Sequential(nn.LazyLinear(8), nn.ReLU(), nn.Linear(8, 2)),
    "convolution": lambda: nn.Sequential(nn.LazyConv2d(8, 3), nn.ReLU(), nn.Conv2d(8, 2, 1)),
    "norm": lambda: nn.Sequential(nn.Conv2d(3, 8, 3), nn.LazyBatchNorm2d(), nn.Conv2d(8, 2, 1)),
}


@pytest.mark.parametrize("kind", LAZY)
def test_layers_without_a_shape_are_refused(kind: str) -> None:
    model = LAZY[kind]()
    with pytest.raises(ValueError, match=r"'[01]' \(Lazy.*call the model once on a batch first"):
        insert_noise(model, IMAGES)


def test_masks_of_torch_are_refused_with_what_to_do() -> None:
    model: Any = masked(insert_noise(network(), IMAGES))
    torch_prune.l1_unstructured(model[0], "weight", 0.5)
    for function in (compact, fold, plan_compaction, insert_noise):
        with pytest.raises(ValueError, match=r"weight of '0' \(Conv2d\).*prune\.remove\(module, 'weight'\)"):
            function(model, IMAGES)
    torch_prune.remove(model[0], "weight")
    assert relative_difference(model, compact(model, IMAGES), IMAGES) < 1e-5


def orders(model: nn.Module) -> dict[str, list[int]]:
    """In which order the axes of the weights lie in memory, where their sizes tell."""
    return {
        name: sorted(range(p.ndim), key=lambda d: -strides[d])
        for name, p in model.named_parameters()
        for strides in [p.stride()]
        if p.ndim > 1 and len(set(strides)) == p.ndim
    }


@pytest.mark.parametrize("volumes", [False, True])
def test_memory_formats_stay(volumes: bool) -> None:
    conv: Any = nn.Conv3d if volumes else nn.Conv2d
    layers = (conv(3, 8, 3), nn.ReLU(), conv(8, 8, 3, groups=2), nn.ReLU(), conv(8, 2, 3))
    form = torch.channels_last_3d if volumes else torch.channels_last
    x = normal(2, 3, *[8] * (3 if volumes else 2)).to(memory_format=form)
    model: Any = nn.Sequential(*layers).to(memory_format=form)  # type: ignore[call-overload]
    before = orders(model)
    model = insert_noise(model, x).eval()
    for layer in noise_layers(model).values():
        layer.mask[[0, 5]] = 0
    optimizer = torch.optim.Adam(model.parameters())
    model(x).sum().backward()
    optimizer.step()
    smaller: Any = compact(model, x, optimizer=optimizer)
    assert smaller[2].in_channels == 6
    assert orders(smaller) == orders(fold(smaller, x)) == before
    for name, parameter in smaller.named_parameters():
        if name in before:
            assert optimizer.state[parameter]["exp_avg"].stride() == parameter.stride()


def test_a_weight_that_lies_transposed_stays_so() -> None:
    model: Any = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4))
    model[2].weight = nn.Parameter(model[2].weight.detach().t().contiguous().t())
    masked(insert_noise(model, normal(3, 6)))
    assert orders(compact(model, normal(3, 6)))["2.weight"] == [1, 0]
