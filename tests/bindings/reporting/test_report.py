"""The report: what is counted is right, what is measured is measured alike, what is shown was found."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bmrs_torch import compact, draw_evidence, draw_layers, fold, insert_noise, noise_layers, prune, report
from bmrs_torch.costs.counting import count_macs
from bmrs_torch.costs.measuring import median_ratio, peak_bytes, take_times
from bmrs_torch.reporting.figures import _edges, _kept_and_pruned
from bmrs_torch.reporting.text_table import text_table
from tests.bindings.networks import NETWORKS, LeNet5, hopeless, images, mlp, noisy

SHORT = 0.01


def test_macs_of_lenet_are_those_counted_by_hand() -> None:
    """28·28 positions × 6 filters of 25, 10·10 × 16 of 150, and the three linear layers; of two images."""
    by_layer = {"conv1": 28 * 28 * 6 * 25, "conv2": 100 * 16 * 150, "fc1": 48000, "fc2": 10080, "fc3": 840}
    found = count_macs(LeNet5(), images(2))
    assert {name: found[name] for name in by_layer} == {name: 2 * macs for name, macs in by_layer.items()}
    assert found[""] == 2 * sum(by_layer.values())


class SelfAttention(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.nn.functional.scaled_dot_product_attention(x, x, x)


def test_fused_attention_is_counted_by_its_two_products() -> None:
    assert count_macs(SelfAttention(), torch.ones(2, 3, 5, 4))[""] == 2 * 2 * 3 * 5 * 5 * 4


def test_recurrence_is_counted_by_its_products() -> None:
    assert count_macs(nn.LSTM(4, 3).eval(), torch.ones(5, 2, 4))[""] == 5 * 2 * 4 * 3 * (4 + 3)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_report_counts_what_the_two_networks_hold(name: str) -> None:
    before, masked = NETWORKS[name](), noisy(name)
    after = fold(compact(masked, images(2)), images(2))
    found = report(before, after, images(2), seconds=SHORT)
    for cost, model in ((found.before, before), (found.after, after)):
        assert cost.parameters == sum(p.numel() for p in model.parameters())
        assert cost.macs == count_macs(model, images(2))[""]
        assert cost.file_bytes > 4 * cost.parameters
    assert sum(layer.parameters_before for layer in found.layers) == found.before.parameters
    assert sum(layer.parameters_after for layer in found.layers) == found.after.parameters
    assert sum(layer.macs_after for layer in found.layers) == found.after.macs
    assert {layer.name for layer in found.layers} == {
        n for n, m in before.named_modules() if list(m.parameters(recurse=False))
    }


class Shifted(nn.Sequential):
    """A network with a parameter of its own beside its layers, and a product of its own."""

    def __init__(self) -> None:
        super().__init__(nn.Linear(4, 4))
        self.mixing = nn.Parameter(torch.eye(4))

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self[0](x) @ self.mixing
        return answer


def test_work_is_counted_where_it_is_done_and_once() -> None:
    found = report(Shifted(), Shifted(), torch.ones(3, 4), seconds=SHORT)
    assert [(layer.name, layer.macs_before) for layer in found.layers] == [("", 48), ("0", 48)]
    assert found.before.macs == 96
    assert "(the model)" in str(found)


def test_layers_with_noise_are_matched_with_those_without() -> None:
    found = report(mlp(), noisy("mlp"), images(2), seconds=SHORT)
    assert [layer.name for layer in found.layers] == ["1", "3", "5", "1.noise", "3.noise"]
    assert all(layer.shape_before == layer.shape_after for layer in found.layers[:3])
    assert [layer.macs_before for layer in found.layers] == [layer.macs_after for layer in found.layers]


def test_models_are_measured_in_evaluation_and_left_as_they_were() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout()).train()
    model[2].eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    report(model, nn.Linear(4, 4), torch.randn(3, 4), seconds=SHORT)
    assert [m.training for m in model.modules()] == [True, True, True, False]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_the_peak_is_that_of_the_two_largest_neighbours() -> None:
    """Each layer's output is made while its input still exists; the model's own input doesn't count."""
    model = nn.Sequential(nn.Linear(4, 100), nn.ReLU(), nn.Linear(100, 60), nn.Linear(60, 2))
    # 100 + 100 at the ReLU and no more than that elsewhere, of 8 samples of 4 bytes.
    assert peak_bytes(model, torch.ones(8, 4)) == 8 * 4 * (100 + 100)


def test_networks_are_timed_in_turns() -> None:
    order: list[int] = []

    class Told(nn.Module):
        def __init__(self, number: int) -> None:
            super().__init__()
            self.number = number

        def forward(self, x: Tensor) -> Tensor:
            order.append(self.number)
            return x

    times = take_times([Told(0), Told(1)], torch.ones(1), seconds=1e-9)
    assert order == [0, 1] * 3 + [0, 1, 1, 0, 0, 1, 1, 0, 0, 1]
    assert [len(own) for own in times] == [5, 5]


def test_the_speedup_compares_times_of_one_round() -> None:
    assert median_ratio([2.0, 20.0, 3.0], [1.0, 10.0, 1.0]) == 2.0


def test_the_report_reads_well_and_is_json(tmp_path: Path) -> None:
    after = fold(compact(noisy("lenet5"), images(2)), images(2))
    found = report(LeNet5(), after, images(2), metrics={"accuracy": lambda _: 0.25}, seconds=SHORT)
    text = str(found)
    assert f"{found.after.parameters:,}" in text
    assert "6×1×5×5 → " in text
    assert "accuracy" in text
    found.save(tmp_path / "report.json")
    read = json.loads((tmp_path / "report.json").read_text())
    assert read["after"]["metrics"] == {"accuracy": 0.25}
    assert read["layers"][0]["shape_after"] == list(after.get_parameter("conv1.weight").shape)


def test_the_tables_are_of_text_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rich", None)
    text = str(report(LeNet5(), LeNet5(), images(2), seconds=SHORT))
    networks, layers = (table.split("\n") for table in text.split("\n\n"))
    assert set(networks[1]) == set(layers[1]) == {"─"}
    assert max(map(len, networks)) == len(networks[1])
    ends = {line.index(" Linear") + len(" Linear") for line in layers if "Linear" in line}
    assert len(ends) == 1
    assert text_table(["", "n"], [["漢", "1"], ["e\u0301é", "22"]]).split("\n")[2:] == [
        "漢   1",
        "e\u0301é  22",
    ]


def test_seconds_must_be_positive() -> None:
    with pytest.raises(ValueError, match="seconds must be positive, got 0"):
        report(mlp(), mlp(), images(1), seconds=0)


def decisions() -> list[Any]:
    model = insert_noise(mlp(), images(2))
    found = []
    for structures in ([1, 2], [5]):
        hopeless(model, "1.noise", structures)
        found.append(prune(model))
    return found


def test_a_structure_counts_with_the_score_it_had_when_it_was_pruned() -> None:
    first, second = decisions()
    kept, pruned = _kept_and_pruned([first, second])
    assert kept.size == 32
    expected = [*first.layers[0].scores[[1, 2]], second.layers[0].scores[5]]
    assert pruned.tolist() == expected


def test_no_bin_lies_across_the_rule() -> None:
    edges = _edges(np.array([-3000.0, -0.5, 0.4]), -0.9189)
    assert np.isclose(edges, -0.9189).any()
    assert edges[0] <= -3000
    assert edges[-1] >= 1
    assert (np.diff(edges) > 0).all()


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_figures_are_drawn(suffix: str, tmp_path: Path) -> None:
    paths = [tmp_path / f"{name}.{suffix}" for name in ("evidence", "decision", "comparison", "amount")]
    draw_evidence(decisions(), paths[0])
    draw_layers(decisions()[-1], paths[1])
    draw_layers(
        report(mlp(), fold(compact(noisy("mlp"), images(2)), images(2)), images(2), seconds=SHORT), paths[2]
    )
    draw_evidence(prune(insert_noise(mlp(), images(2)), "l2", amount=0.5), paths[3])
    assert all(path.stat().st_size > 2000 for path in paths)


def test_there_must_be_something_to_draw(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no layer became smaller"):
        draw_layers(report(mlp(), mlp(), images(1), seconds=SHORT), tmp_path / "x.png")
    with pytest.raises(ValueError, match="at least one PruneReport"):
        draw_evidence([], tmp_path / "x.png")


def test_noise_layers_count_no_macs() -> None:
    model = noisy("lenet5")
    found = count_macs(model.eval(), images(1))
    assert not found.keys() & noise_layers(model).keys()
