"""Saved networks: loaded again they are the same, and what does not fit is said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from bmrs_torch import (
    LayoutError,
    ShippingError,
    compact,
    fold,
    insert_noise,
    load_pruned,
    noise_layers,
    save_pruned,
)
from bmrs_torch.shipping.layout import Layout, resize
from tests.bindings.networks import NETWORKS, LeNet5, images, mlp, noisy


class Attention(nn.Module):
    """Heads, an embedding tied to the output, a depthwise convolution, a buffer that is not saved."""

    positions: Tensor

    def __init__(self, heads: int = 4, groups: int = 8) -> None:
        super().__init__()
        self.num_heads, self.head_dim = heads, 2
        self.words = nn.Embedding(10, 8)
        self.qkv, self.out = nn.Linear(8, 6 * heads), nn.Linear(2 * heads, 8)
        self.mixing = nn.Conv1d(groups, groups, 3, padding=1, groups=groups)
        self.narrow, self.wide = nn.Conv1d(8, groups, 1), nn.Conv1d(groups, 8, 1)
        self.norm = nn.LayerNorm(8)
        self.answer = nn.Linear(8, 10, bias=False)
        self.answer.weight = self.words.weight
        self.register_buffer("positions", torch.arange(heads, dtype=torch.float32), persistent=False)

    def forward(self, words: Tensor) -> Tensor:
        x = self.words(words)
        q, k, v = (
            part.unflatten(-1, (self.num_heads, self.head_dim)).transpose(1, 2)
            for part in self.qkv(x).chunk(3, -1)
        )
        heads = torch.softmax(q @ k.mT + self.positions[:, None, None], -1) @ v
        x = self.norm(x + self.out(heads.transpose(1, 2).flatten(2)))
        answer: Tensor = self.answer(x + self.wide(self.mixing(self.narrow(x.mT))).mT)
        return answer


def shipped(name: str) -> nn.Module:
    return fold(compact(noisy(name), images(4)), images(4)).eval()


@pytest.mark.parametrize("name", NETWORKS)
def test_a_pruned_network_comes_back_from_its_constructor(name: str, tmp_path: Path) -> None:
    model = shipped(name)
    file = save_pruned(model, tmp_path / "small.safetensors")
    loaded = load_pruned(NETWORKS[name], file)
    assert torch.equal(loaded.eval()(images(3)), model(images(3)))
    assert [str(m) for m in loaded.modules()] == [str(m) for m in model.modules()]
    loaded(images(3)).sum().backward()
    assert all(p.grad is not None for p in loaded.parameters())


def test_a_network_that_still_has_its_noise_comes_back(tmp_path: Path) -> None:
    model = compact(noisy("lenet5"), images(4)).eval()
    noise_layers(model)["fc1.noise"].mask[0] = 0
    loaded = load_pruned(
        insert_noise(LeNet5(), images(2)), save_pruned(model, tmp_path / "noisy.safetensors")
    )
    assert torch.equal(loaded.eval()(images(3)), model(images(3)))


def test_heads_groups_ties_and_buffers_beyond_the_state_come_back(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Attention(heads=3, groups=5)
    model.positions.copy_(torch.tensor([0.0, 2.0, 3.0]))  # as if head 1 had gone
    loaded = load_pruned(Attention, save_pruned(model, tmp_path / "attention.safetensors"))
    words = torch.randint(10, (2, 7), generator=torch.Generator().manual_seed(0))
    assert torch.equal(loaded(words), model(words))
    assert loaded.num_heads == 3
    assert loaded.mixing.groups == 5
    assert loaded.answer.weight is loaded.words.weight


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_the_files_dtype_is_kept(dtype: torch.dtype, tmp_path: Path) -> None:
    model = shipped("mlp").to(dtype)
    loaded = load_pruned(mlp, save_pruned(model, tmp_path / "m.safetensors"))
    assert torch.equal(loaded.eval()(images(3).to(dtype)), model(images(3).to(dtype)))


def test_frozen_layers_and_the_training_mode_are_the_fresh_networks(tmp_path: Path) -> None:
    fresh = mlp().eval()
    fresh[1].requires_grad_(False)
    loaded = load_pruned(fresh, save_pruned(shipped("mlp").train(), tmp_path / "m.safetensors"))
    assert loaded is fresh
    assert not loaded.training
    assert [p.requires_grad for p in loaded.parameters()] == [False, False, True, True, True, True]


def test_the_json_beside_it_says_how_wide_each_layer_is(tmp_path: Path) -> None:
    model = shipped("lenet5")
    save_pruned(model, tmp_path / "small.safetensors")
    description = json.loads((tmp_path / "small.json").read_text())
    assert description["network"] == "LeNet5"
    assert description["sizes"]["fc1"]["out_features"] == model.get_submodule("fc1").out_features
    assert sorted(path.name for path in tmp_path.iterdir()) == ["small.json", "small.safetensors"]


def test_a_failed_save_leaves_the_file_that_was_there(tmp_path: Path, monkeypatch: Any) -> None:
    file = save_pruned(shipped("mlp"), tmp_path / "m.safetensors")
    before = file.read_bytes()

    def disk_is_full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", disk_is_full)
    with pytest.raises(OSError, match="No space left"):
        save_pruned(mlp(), file)
    assert file.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.json", "m.safetensors"]


def narrow_mlp() -> nn.Sequential:
    return nn.Sequential(
        nn.Flatten(), nn.Linear(784, 2), nn.ReLU(), nn.Linear(2, 15), nn.Tanh(), nn.Linear(15, 10)
    )


@pytest.mark.parametrize(
    ("constructor", "message"),
    [
        (LeNet5, "tensor 1.weight is missing here.*make it by the same constructor|and \\d+ more"),
        (narrow_mlp, r"1.weight is of shape \[2, 784\] here and \[\d+, 784\] there: surgery only takes away"),
        (lambda: insert_noise(mlp(), images(2)), r"and insert_noise.*tensor 1\.noise\.mu is here only"),
    ],
)
def test_a_network_that_does_not_fit_is_named_and_untouched(
    constructor: Any, message: str, tmp_path: Path
) -> None:
    file = save_pruned(shipped("mlp"), tmp_path / "m.safetensors")
    fresh = constructor()
    before = {name: value.clone() for name, value in fresh.state_dict().items()}
    with pytest.raises(LayoutError, match=message):
        load_pruned(fresh, file)
    assert all(torch.equal(value, before[name]) for name, value in fresh.state_dict().items())


def test_ties_that_the_fresh_network_lacks_are_an_error(tmp_path: Path) -> None:
    file = save_pruned(Attention(), tmp_path / "a.safetensors")
    untied = Attention()
    untied.answer.weight = nn.Parameter(torch.zeros(10, 8))
    with pytest.raises(LayoutError, match="one tensor in the file but two"):
        load_pruned(untied, file)


def test_files_of_another_kind_are_refused(tmp_path: Path) -> None:
    foreign, broken = tmp_path / "foreign.safetensors", tmp_path / "broken.safetensors"
    save_file({"1.weight": torch.zeros(2)}, foreign)
    broken.write_bytes(save_pruned(mlp(), tmp_path / "m.safetensors").read_bytes()[:1000])
    with pytest.raises(ShippingError, match="not written by save_pruned"):
        load_pruned(mlp, foreign)
    with pytest.raises(ShippingError, match="not a whole safetensors file"):
        load_pruned(mlp, broken)
    with pytest.raises(FileNotFoundError, match=r"no file .*missing"):
        load_pruned(mlp, tmp_path / "missing.safetensors")
    with pytest.raises(ShippingError, match=r"must end in \.safetensors"):
        save_pruned(mlp(), tmp_path / "m.pt")
    with pytest.raises(TypeError, match=r"must be an nn\.Module or make one"):
        load_pruned(lambda: 3, tmp_path / "m.safetensors")  # type: ignore[type-var]


def test_a_state_of_more_than_tensors_is_refused(tmp_path: Path) -> None:
    class Stateful(nn.Linear):
        def get_extra_state(self) -> dict[str, int]:
            return {"calls": 3}

    with pytest.raises(ShippingError, match="'_extra_state', a dict"):
        save_pruned(Stateful(2, 2), tmp_path / "m.safetensors")


def test_a_layout_survives_json_and_resizing_gives_it() -> None:
    layout = Layout.from_json(json.loads(json.dumps(Layout.of(shipped("conv_with_norm")).to_json())))
    assert Layout.of(resize(NETWORKS["conv_with_norm"](), layout)) == layout
    with pytest.raises(LayoutError, match="must hold 'shapes' and 'sizes'"):
        Layout.from_json({"shapes": {}})
