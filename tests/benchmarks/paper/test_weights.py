"""Large networks start from the weights that are named, or it is said why not."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from benchmarks.paper import networks


class Zoo(nn.Module):
    """A network as of a zoo, with a last layer of its own."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(4, 4), nn.Linear(4, classes)


@pytest.fixture(autouse=True)
def zoo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(networks, "find_spec", lambda name: name)
    monkeypatch.setattr(networks, "_of_zoo", lambda _, classes, *, pretrained: Zoo(classes))  # noqa: ARG005


@pytest.mark.parametrize("ending", ["pt", "safetensors"])
def test_weights_of_a_file_are_taken_but_for_a_last_layer_of_other_classes(
    tmp_path: Path, ending: str
) -> None:
    state, file = Zoo(1000).state_dict(), tmp_path / f"weights.{ending}"
    torch.save(state, file) if ending == "pt" else save_file(state, file)
    found = networks.large("vit", 10, file.name, file)
    assert torch.equal(found.get_parameter("body.weight"), state["body.weight"])
    assert found.get_parameter("head.weight").shape == (10, 4)


def test_weights_that_dont_fit_are_refused_in_a_line(tmp_path: Path) -> None:
    file = tmp_path / "weights.pt"
    torch.save({"other.weight": torch.zeros(2)}, file)
    with pytest.raises(
        networks.WeightsError, match=r"the weights 'weights.pt' of vit can't be had"
    ) as caught:
        networks.large("vit", 10, file.name, file)
    assert "\n" not in str(caught.value)


def test_a_missing_zoo_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(networks, "find_spec", lambda _: None)
    with pytest.raises(networks.WeightsError, match=r"resnet50 of torchvision, which isn't installed"):
        networks.large("resnet50", 10, "pretrained", None)
