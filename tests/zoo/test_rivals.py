"""Torch-Pruning in the comparison: each importance meets a budget on each network, and stops close to it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import benchmarks.rivals.__main__ as command
from benchmarks.demo.data import ImageData
from benchmarks.rivals.errors import PruningError
from benchmarks.rivals.images import Part
from benchmarks.rivals.protocol import SUBJECTS, TEST
from benchmarks.rivals.torch_pruning import KINDS, prune
from bmrs_torch.costs.counting import count_macs

pytest.importorskip("torch_pruning")
CLOSE = {"resnet": 0.98, "vit": 0.98, "lenet": 0.9, "mlp": 0.98}
"""Parts of the budget that are used at least: the filters of LeNet-5 are few and large."""


def images(number: int) -> Part:
    torch.manual_seed(0)
    return Part(torch.randn(number, 1, 28, 28), torch.arange(number) % 10)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("network", SUBJECTS)
def test_a_budget_is_met_closely(network: str, kind: str) -> None:
    part = images(40)
    model = SUBJECTS[network].build().eval()
    whole = count_macs(model, part.images[:1])[""]
    smaller = prune(model, part, 0.5 * whole, kind, whole_heads=False, seed=0)
    left = count_macs(smaller, part.images[:1])[""] / whole
    assert 0.5 * CLOSE[network] <= left <= 0.5
    assert smaller(part.images).shape == (40, 10)
    assert count_macs(model, part.images[:1])[""] == whole
    assert all(parameter.grad is None for parameter in smaller.parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_whole_heads_of_the_transformer_can_go(kind: str) -> None:
    part = images(40)
    model = SUBJECTS["vit"].build().eval()
    whole = count_macs(model, part.images[:1])[""]
    smaller: Any = prune(model, part, 0.4 * whole, kind, whole_heads=True, seed=0)
    heads = [block.num_heads for block in smaller.blocks]
    assert 8 <= sum(heads) < 16
    assert [block.qkv.out_features for block in smaller.blocks] == [3 * 16 * number for number in heads]
    assert count_macs(smaller, part.images[:1])[""] <= 0.4 * whole


def test_a_budget_out_of_reach_is_an_error() -> None:
    model = SUBJECTS["mlp"].build().eval()
    with pytest.raises(PruningError, match="stops at"):
        prune(model, images(10), 1.0, "l2", whole_heads=False, seed=0)


def test_all_methods_run_to_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def few(*_: Any, **__: Any) -> ImageData:
        part = images(300)
        return ImageData("few", "made here", part.images, part.labels, part.images, part.labels)

    monkeypatch.setattr(command, "load_images", few)
    path = tmp_path / "r.jsonl"
    methods = ["taylor", "l2", "scratch", "random", "taylor_teacher"]
    quick = ["--networks", "mlp", "--epochs", "2", "--budgets", "0.5", "--seeds", "1", "--methods", *methods]
    assert command.main([*quick, "--record", str(path), "--scratch", str(tmp_path)]) == 0
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    finals = {line["method"]: line for line in lines if line["split"] == TEST}
    assert list(finals) == methods
    assert finals["scratch"]["widths"] == finals["taylor"]["widths"]
