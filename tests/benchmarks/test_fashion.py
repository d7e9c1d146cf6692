"""The experiment on Fashion-MNIST, on a few digits and shortened: all of it runs and is recorded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.demo.data import ImageData, load_images
from benchmarks.fashion import __main__ as fashion
from benchmarks.fashion import training
from benchmarks.fashion.networks import NETWORKS, with_noise
from bmrs_torch import Pruner, load_pruned, noise_layers

FEW = 200
QUICK = ["--data", "digits", "--epochs", "1", "1", "1", "--post-training-steps", "3", "--kl-weight", "3"]


@pytest.fixture(autouse=True)
def few_images_and_pruning_from_the_first_epoch(monkeypatch: Any) -> None:
    """Prune a fixed share: the evidence needs more epochs than a test should take."""

    def by_amount(*arguments: Any, **options: Any) -> Pruner:
        return Pruner(*arguments, **(options | {"criterion": "random", "amount": 0.5}))

    def few_images(*arguments: Any, **options: Any) -> ImageData:
        data = load_images(*arguments, **options)
        parts = (data.train_images, data.train_labels, data.test_images, data.test_labels)
        return ImageData(data.name, data.source, *(part[:FEW] for part in parts))

    monkeypatch.setattr(training, "Pruner", by_amount)
    monkeypatch.setattr(fashion, "load_images", few_images)
    monkeypatch.setattr(fashion, "LATENCY_SECONDS", 0.01)


@pytest.mark.filterwarnings("ignore:nothing was pruned in 3 minibatches")  # too few for the evidence
@pytest.mark.parametrize("network", sorted(NETWORKS))
def test_a_run_is_recorded_and_its_network_loads_again(network: str, tmp_path: Path, capsys: Any) -> None:
    arguments = ["--network", network, *QUICK, "--out", str(tmp_path)]
    assert fashion.main(arguments) == 0
    record = json.loads((tmp_path / f"fashion_{network}.json").read_text())
    assert record["command"].startswith(f"python -m benchmarks.fashion --network {network} --data digits")
    assert record["masked_to_shrunk_relative_difference"] < 1e-5
    assert [epoch["phase"] for epoch in record["epochs"]] == ["training", "pruning", "fine-tuning"]
    assert record["after_training"]["steps"] == 3
    before, after = (record["comparison"][when]["metrics"]["test accuracy"] for when in ("before", "after"))
    assert record["accuracy_points_lost"] == pytest.approx(100 * (before - after))
    loaded = load_pruned(NETWORKS[network], tmp_path / f"fashion_{network}_pruned.safetensors")
    parameters = sum(p.numel() for p in loaded.parameters())
    assert (
        parameters
        == record["comparison"]["after"]["parameters"]
        < 0.8 * record["comparison"]["before"]["parameters"]
    )
    assert {path.name for path in tmp_path.glob("*.png")} == {
        f"fashion_{network}_evidence.png",
        f"fashion_{network}_layers.png",
    }
    assert "times as fast" in capsys.readouterr().out


def test_a_run_can_begin_from_an_earlier_ones_trained_network(tmp_path: Path, capsys: Any) -> None:
    arguments = ["--network", "vit", *QUICK, "--out", str(tmp_path), "--post-training-steps", "0"]
    assert fashion.main(arguments) == 0
    assert fashion.main([*arguments, "--unpruned", str(tmp_path / "fashion_vit_unpruned.safetensors")]) == 0
    record = json.loads((tmp_path / "fashion_vit.json").read_text())
    assert [epoch["phase"] for epoch in record["epochs"]] == ["pruning", "fine-tuning"]
    assert record["after_training"] is None
    assert "vit_unpruned.safetensors: " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("network", "where", "sizes"),
    [
        ("resnet", "streams", [16] * 3 + [32] * 3 + [64] * 3),
        ("vit", "neurons", [256] * 4),
        ("vit", "auto", [4, 256] * 4),
    ],
)
def test_noise_is_on_filters_and_streams_or_on_neurons_and_heads(
    network: str, where: str, sizes: list[int]
) -> None:
    layers = noise_layers(with_noise(NETWORKS[network](), where))
    assert sorted(layer.num_structures for layer in layers.values()) == sorted(sizes)


@pytest.mark.parametrize("options", [["--epochs", "1", "0", "1"], ["--threads", "0"], ["--network", "vgg"]])
def test_settings_out_of_range_are_refused(options: list[str], capsys: Any) -> None:
    with pytest.raises(SystemExit):
        fashion.main(["--network", "vit", *options])
    assert "error:" in capsys.readouterr().err


def test_a_folder_without_images_is_an_error_that_says_so(tmp_path: Path, capsys: Any) -> None:
    assert fashion.main(["--network", "vit", "--data", str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    assert "must hold train-images" in capsys.readouterr().err
