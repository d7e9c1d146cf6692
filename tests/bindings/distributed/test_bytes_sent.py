"""What noise adds to what DistributedDataParallel sends in a step: the guide's table, from shapes alone."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from bmrs_torch import insert_noise, noise_layers
from tests.bindings.distributed.launching import ROOT

GUIDE = ROOT / "docs" / "guides" / "several_machines.md"


def resnet50() -> nn.Module:
    transformers = pytest.importorskip("transformers")
    with torch.device("meta"):
        model: nn.Module = transformers.ResNetForImageClassification(
            transformers.ResNetConfig(num_labels=1000)
        )
    return model.eval()


def sent(model: nn.Module) -> tuple[int, int]:
    """Bytes of gradients, which are averaged, and of buffers, which follow rank 0."""
    gradients = [p for p in model.parameters() if p.requires_grad]
    return sum(p.nbytes for p in gradients), sum(buffer.nbytes for buffer in model.buffers())


@pytest.mark.parametrize("where", ["auto", "batchnorm"])
def test_noise_on_resnet50_adds_less_than_a_hundredth(where: str) -> None:
    model = resnet50()
    before = sent(model)
    insert_noise(model, torch.zeros(1, 3, 64, 64, device="meta"), where=where)
    after = sent(model)
    structures = sum(layer.num_structures for layer in noise_layers(model).values())
    ratio = sum(after) / sum(before)
    assert 1 < ratio <= 1.01
    row = f'| `where="{where}"` | {structures:,} | {after[0]:,} | {after[1]:,} | {ratio:.4f} |'
    assert row in GUIDE.read_text(encoding="utf-8")
