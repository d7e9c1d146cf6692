"""ResNet-50 and ViT-B/16 as the training-step benchmark writes them, and where their noise goes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from benchmarks.training_step.insertion import insert_ours, placements
from benchmarks.training_step.large_networks import ResNet50, ViT
from benchmarks.training_step.measurement import wrong
from benchmarks.training_step.naive_layer import insert_naive_noise
from benchmarks.training_step.networks import BATCH, LARGE_NETWORKS, Network
from benchmarks.training_step.steps import NAIVE, OURS, WITHOUT, Adam, make_step
from bmrs_torch import noise_layers

CPU = torch.device("cpu")


def test_they_have_as_many_parameters_as_published() -> None:
    with torch.device("meta"):
        counts = [sum(p.numel() for p in model.parameters()) for model in (ResNet50(1000), ViT(1000))]
    assert counts == [25_557_032, 86_567_656]


def test_noise_follows_every_batch_norm_and_every_block() -> None:
    resnet, vit = ResNet50(10, 4), ViT(10, width=24, depth=3, heads=3, image=32)
    x = torch.zeros(2, 3, 32, 32)
    normalizations = [m.num_features for m in resnet.modules() if isinstance(m, nn.BatchNorm2d)]
    assert sorted(p.num_structures for p in placements(resnet, x)) == sorted(normalizations)
    assert [(p.num_structures, p.axis) for p in placements(vit, x)] == 3 * [(24, 2)]


SMALL = {
    "resnet": Network("small ResNet", lambda: ResNet50(10, 4), (3, 32, 32), 1.0, 1.0),
    "vit": Network("small ViT", lambda: ViT(10, width=24, depth=3, heads=3, image=32), (3, 32, 32), 1.0, 1.0),
}


@pytest.mark.parametrize("key", SMALL)
@pytest.mark.parametrize("insert", [insert_ours, insert_naive_noise])
def test_both_kinds_of_noise_go_where_they_belong(key: str, insert: type) -> None:
    model, x = SMALL[key].build(), SMALL[key].blank_images()
    wanted = [p.num_structures for p in placements(model, x)]
    noisy = insert(model, x)
    found = [p.numel() for name, p in noisy.named_parameters() if name.endswith(".mu")]
    assert sorted(found) == sorted(wanted)


@pytest.mark.parametrize("name", [OURS, NAIVE])
@pytest.mark.parametrize("key", SMALL)
def test_a_step_passes_its_check(key: str, name: str) -> None:
    about = (SMALL[key], Adam(), 0, CPU)
    assert wrong(make_step(name, *about), make_step(WITHOUT, *about)) is None


def test_the_paper_ratios_are_those_it_prints() -> None:
    assert [round(network.paper_ratio, 2) for network in LARGE_NETWORKS.values()] == [6.9, 1.35]
    assert BATCH == 32
    assert noise_layers(insert_ours(SMALL["vit"].build(), SMALL["vit"].blank_images()))
