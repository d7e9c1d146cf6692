"""``python -m benchmarks training-step``: Table 3's networks, its report, and what it must not report."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from benchmarks import __main__ as benchmarks
from benchmarks.training_step import steps
from benchmarks.training_step.measurement import wrong
from benchmarks.training_step.naive_layer import NaiveNoise
from benchmarks.training_step.networks import BATCH, NETWORKS, draw_batch
from benchmarks.training_step.steps import FREE, NAIVE, OURS, VARIANTS, WITHOUT, Adam, Step, make_step
from bmrs_torch import noise_layers

CPU = torch.device("cpu")


def step_of(name: str, key: str = "mlp-1x150", adam: Adam | None = None) -> Step:
    return make_step(name, NETWORKS[key], adam or Adam(), 0, CPU)


@pytest.mark.parametrize(
    ("key", "structures"),
    [
        ("mlp-7x100", 8 * [100]),
        ("mlp-1x150", 2 * [150]),
        ("mlp-5x150", 6 * [150]),
        ("lenet5-1", [6, 16, 120, 84]),
        ("lenet5-3", [6, 16, 120, 84]),
    ],
)
def test_every_hidden_structure_has_noise_in_both_kinds(key: str, structures: list[int]) -> None:
    ours, naive = step_of(OURS, key).model, step_of(NAIVE, key).model
    assert [layer.num_structures for layer in noise_layers(ours).values()] == structures
    assert [m.mu.numel() for m in naive.modules() if isinstance(m, NaiveNoise)] == structures


@pytest.mark.parametrize("key", NETWORKS)
def test_networks_take_the_images_of_their_data(key: str) -> None:
    images, labels = draw_batch(NETWORKS[key], 0, CPU)
    assert NETWORKS[key].build()(images).shape == (BATCH, 10)
    assert labels.shape == (BATCH,)


def test_the_paper_ratios_are_those_of_table_3() -> None:
    ratios = [round(network.paper_ratio, 1) for network in NETWORKS.values()]
    assert ratios == [8.3, 8.3, 4.7, 4.9, 2.8]


@pytest.mark.parametrize("adam", [Adam(), Adam(fused=True), Adam(groups=False)])
@pytest.mark.parametrize("name", VARIANTS)
def test_a_step_moves_every_parameter(name: str, adam: Adam) -> None:
    step = step_of(name, adam=adam)
    before = [parameter.detach().clone() for parameter in step.model.parameters()]
    step.backward(step.forward())
    after = list(step.model.parameters())
    assert all(not torch.equal(one, other) for one, other in zip(before, after, strict=True))


@pytest.mark.parametrize("name", [OURS, NAIVE])
def test_both_kinds_of_noise_pass_their_check(name: str) -> None:
    assert wrong(step_of(name), step_of(WITHOUT)) is None


def _without_kl(nll_mean: Tensor, _: nn.Module) -> Tensor:
    return nll_mean


@pytest.mark.parametrize("name", [OURS, NAIVE])
def test_a_wrong_step_is_not_reported(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(steps.VARIANTS, name, (steps.VARIANTS[name][0], _without_kl))
    assert "noise has no gradient" in str(wrong(_pruned(step_of(name)), step_of(WITHOUT)))
    monkeypatch.setitem(steps.VARIANTS, name, (steps.VARIANTS[name][0], lambda nll, _: 3 * nll))
    benchmarks.main(["training-step", "--network", "mlp-1x150", "--rounds", "1"])
    assert f"{name}: not reported, its loss is" in capsys.readouterr().out


def _pruned(step: Step) -> Step:
    """Noise that has no part in the output any more."""
    for module in step.model.modules():
        if hasattr(module, "log_sigma"):
            module.forward = lambda x: x
    return step


def test_the_report_fits_120_columns_and_is_written_as_json_and_png(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = ["--json", str(tmp_path / "run.json"), "--plot", str(tmp_path / "run.png")]
    assert benchmarks.main(["training-step", "--network", "lenet5-1", "--rounds", "1", *files]) == 0
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= 120
    assert "4.93" in printed
    record = json.loads((tmp_path / "run.json").read_text())
    (network,) = record["networks"]
    assert network["paper"]["ratio"] == pytest.approx(11.39 / 2.31)
    assert [one["variant"] for one in network["variants"]] == [WITHOUT, OURS, FREE, NAIVE]
    assert network["variants"][0]["ratio"] == 1
    assert (tmp_path / "run.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("option", [["--rounds", "0"], ["--network", "vgg"], ["--plot", "steps.pdf"]])
def test_bad_input_is_refused(option: list[str]) -> None:
    with pytest.raises(SystemExit):
        benchmarks.main(["training-step", *option])
