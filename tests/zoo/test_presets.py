"""Places for noise by name, on real architectures: coupled streams, blocks, heads."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch

from benchmarks.zoo.architectures import ARCHITECTURES
from benchmarks.zoo.of_torchvision import swin, vit
from benchmarks.zoo.randomness import mask, randomize, randomize_noise, randomize_statistics
from bmrs_torch import (
    NotFoldableError,
    compact,
    coupled_gates,
    fold,
    insert_noise,
    noise_layers,
    plan_compaction,
    plan_insertion,
)
from bmrs_torch.surgery.verification import RELATIVE_TOLERANCE, relative_difference


def inputs_of(name: str) -> torch.Tensor:
    inputs = ARCHITECTURES[name].inputs(0, 2)
    assert isinstance(inputs, torch.Tensor)
    return inputs


def test_resnet_with_noise_after_every_norm_loses_what_all_gates_of_a_stream_agree_on() -> None:
    torch.manual_seed(0)
    model, x = ARCHITECTURES["resnet18"].build(), inputs_of("resnet18")
    randomize(model)
    randomize_statistics(model, x)
    insert_noise(model, x, where="resnet")
    randomize_noise(model, seed=1)
    layers = noise_layers(model)
    assert len(layers) == 20
    mask(model, 0.6)
    for layer in layers.values():
        layer.mask[:3] = 0
    plan = plan_compaction(model, x)
    removed = {layer.name: layer.removed for layer in plan.layers}
    assert {0, 1, 2} <= set(removed["bn1.noise"])
    assert removed["bn1.noise"] == removed["layer1.0.bn2.noise"] == removed["layer1.1.bn2.noise"]
    assert len(removed["layer1.0.bn1.noise"]) > len(removed["bn1.noise"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        smaller = compact(model, x)
    assert (
        relative_difference(model, fold(smaller, x), ARCHITECTURES["resnet18"].inputs(1, 2))
        <= RELATIVE_TOLERANCE
    )


def test_resnet_streams_are_the_coupled_gates() -> None:
    model, x = ARCHITECTURES["resnet18"].build(), inputs_of("resnet18")
    insert_noise(model, x, where="batchnorm")
    groups = coupled_gates(model, x)
    assert {"bn1.noise": (0,), "layer1.0.bn2.noise": (0,), "layer1.1.bn2.noise": (0,)} in groups
    assert {"layer1.0.bn1.noise": (0,)} in groups


def test_resnet_streams_with_one_shared_noise_layer_shrink() -> None:
    torch.manual_seed(0)
    model, x = ARCHITECTURES["resnet18"].build(), inputs_of("resnet18")
    randomize(model)
    randomize_statistics(model, x)
    insert_noise(model, x, where="streams")
    assert len(noise_layers(model)) == 8 + 4
    randomize_noise(model, seed=1)
    mask(model, 0.5)
    folded: Any = fold(compact(model, x), x)
    assert relative_difference(model, folded, ARCHITECTURES["resnet18"].inputs(1, 2)) <= RELATIVE_TOLERANCE
    assert folded.get_submodule("fc").in_features < 400


@pytest.mark.parametrize("name", ["vit of timm", "vit of transformers", "bert", "gpt2"])
def test_the_papers_block_output_is_kept_with_the_reason_and_not_folded(name: str) -> None:
    model, x = ARCHITECTURES[name].build().eval(), inputs_of(name)
    assert any(
        "can't be folded" in reason for _, reason in plan_insertion(model, x, where="blocks").passed_over
    )
    insert_noise(model, x, where="blocks", must_fold=False)
    layers = noise_layers(model)
    assert len(layers) == 2
    for layer in layers.values():
        layer.mask[0] = 0
    plan = plan_compaction(model, x)
    assert plan.removed == 0
    assert "LayerNorm normalises over the structures" in str(plan)
    with pytest.raises(NotFoldableError):
        fold(model, x)


@pytest.mark.parametrize(("name", "heads"), [("bert", 2), ("gpt2", 2), ("vit of timm", 2), ("llama", 2)])
def test_heads_alone(name: str, heads: int) -> None:
    plan = plan_insertion(ARCHITECTURES[name].build(), inputs_of(name), where="heads")
    assert len(plan.placements) == heads
    assert all(place.block > 1 and place.axis == -2 for place in plan.placements)


def test_heads_that_can_not_go_get_no_noise() -> None:
    """torch's own attention has as many channels inside as outside."""
    for build, size in ((vit, 32), (swin, 64)):
        plan = plan_insertion(build(), torch.randn(2, 3, size, size))
        assert all(place.block == 1 for place in plan.placements)


def test_heads_of_one_group_of_queries_go_together() -> None:
    torch.manual_seed(0)
    model, x = ARCHITECTURES["llama"].build().eval(), inputs_of("llama")
    insert_noise(model, x, where="heads")
    attention = model.get_submodule("model.layers.0.self_attn")
    noise: Any = attention.get_submodule("o_proj.noise")
    assert noise.num_structures == 2  # two queries' heads for each of two keys' and values'
    noise.mask[0] = 0
    smaller = compact(model, x)
    first = smaller.get_submodule("model.layers.0.self_attn")
    assert [first.get_submodule(n).out_features for n in ("q_proj", "k_proj", "v_proj")] == [16, 8, 8]
    assert relative_difference(model, smaller, ARCHITECTURES["llama"].inputs(1, 2)) <= RELATIVE_TOLERANCE
