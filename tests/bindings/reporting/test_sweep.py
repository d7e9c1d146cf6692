"""A sweep: each setting from the same start, measured, told, drawn, and gone on with after a break."""

from __future__ import annotations

import json
import math
import warnings
from collections import OrderedDict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from bmrs_torch import Sweep, insert_noise, report, sweep

X = torch.randn(64, 6, generator=torch.Generator().manual_seed(0))
Y = (X[:, 0] > 0).long()
BATCHES = [(X[:32], Y[:32]), (X[32:], Y[32:])]


def network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 2))


def misfit(model: nn.Module, batch: Any) -> Tensor:
    return F.cross_entropy(model(batch[0]), batch[1])


def hidden(model: nn.Module) -> float:
    """Stands for an accuracy: it grows with the hidden units, ever more slowly."""
    return math.sqrt(model.get_parameter("0.weight").shape[0])


class Recipe:
    """Keeps the first units, as many as the setting says, and notes how it was called."""

    def __init__(self, dial: str = "kl_weight", stops_at: float | None = None) -> None:
        self.dial, self.stops_at = dial, stops_at
        self.calls: list[dict[str, Any]] = []

    def __call__(self, model: nn.Module, *_: Any, **options: Any) -> Any:
        setting = options[self.dial]
        if setting == self.stops_at:
            raise KeyboardInterrupt
        self.calls.append(options)
        number = int(setting["macs"] * 16) if isinstance(setting, dict) else int(16 / max(setting, 1))
        if number < 1:
            raise ValueError("nothing would be left")
        if number == 1:
            warnings.warn("next to nothing is left", stacklevel=2)
        torch.rand(1)
        with torch.no_grad():
            first, last = model[0], model[2]  # type: ignore[index]
            first.weight, first.bias = nn.Parameter(first.weight[:number]), nn.Parameter(first.bias[:number])
            first.out_features = last.in_features = number
            last.weight = nn.Parameter(last.weight[:, :number])
        return SimpleNamespace(model=model)


def swept(**options: Any) -> Sweep:
    settings: dict[str, Any] = {
        "metrics": {"accuracy": hidden},
        "kl_weights": [1.0, 2.0, 4.0, 16.0],
        "recipe": Recipe(),
    }
    return sweep(network(), BATCHES, misfit, **(settings | options))


def test_rows_are_what_a_report_counts() -> None:
    found = swept()
    assert [row.label for row in found.rows] == ["unpruned", "1", "2", "4", "16"]
    assert [row.value for row in found.rows] == [None, 1.0, 2.0, 4.0, 16.0]
    for row in found.rows:
        assert row.model is not None
        cost = report(network(), row.model, BATCHES[0][0], seconds=0.001).after
        assert (row.parameters, row.macs, row.file_bytes) == (cost.parameters, cost.macs, cost.file_bytes)
        assert row.metrics == {"accuracy": hidden(row.model)}


def test_with_prune_trained_more_weight_leaves_less_and_the_start_is_untouched() -> None:
    model = network()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    loader = DataLoader(TensorDataset(X, Y), batch_size=32, shuffle=True)
    found = sweep(
        model,
        loader,
        misfit,
        metrics={"accuracy": lambda net: (net(X).argmax(1) == Y).float().mean().item()},
        kl_weights=[0.0, 20.0],
        epochs=100,
        steps=100,
        noise_lr=0.1,
    )
    sizes = [row.parameters for row in found.rows]
    assert sizes[0] == sizes[1] > sizes[2]  # type: ignore[operator]
    assert "nothing was pruned" in found.rows[1].notes[0]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_no_row_depends_on_another_and_the_generator_is_put_back() -> None:
    model, seen = network(), []

    def drawing(copied: nn.Module, *_: Any, **__: Any) -> nn.Module:
        seen.append(torch.rand(1).item())
        return copied

    loader = DataLoader(TensorDataset(X, Y), batch_size=32, shuffle=True)
    state = torch.get_rng_state()
    for weights, seed in (([1.0, 2.0], 0), ([3.0], 0), ([4.0], 1)):
        sweep(
            model,
            loader,
            misfit,
            metrics={"accuracy": hidden},
            kl_weights=weights,
            recipe=drawing,
            seed=seed,
        )
    assert torch.equal(torch.get_rng_state(), state)
    assert seen[0] == seen[1] == seen[2] != seen[3]


def test_budgets_are_fractions_of_the_multiply_adds_or_what_a_recipe_takes() -> None:
    recipe = Recipe("budget")
    found = swept(kl_weights=None, budgets=[0.5, {"macs": 0.25}], recipe=recipe, epochs=3)
    assert recipe.calls == [{"budget": {"macs": 0.5}, "epochs": 3}, {"budget": {"macs": 0.25}, "epochs": 3}]
    assert [row.label for row in found.rows] == ["unpruned", "macs=0.5", "macs=0.25"]
    assert found.dial == "budget"


def test_a_setting_that_fails_is_a_row_with_the_reason_and_a_warning_is_a_note() -> None:
    found = swept(kl_weights=[100.0, 16.0])
    failed, warned = found.rows[1:]
    assert failed.failed == "ValueError: nothing would be left"
    assert (failed.model, failed.parameters, failed.metrics) == (None, None, {})
    assert warned.notes == ("next to nothing is left",)
    lines = str(found).splitlines()
    assert lines[3].split()[0] == "100"
    assert lines[3].split()[-1] == "failed"
    assert lines[-2:] == ["100: ValueError: nothing would be left", "16: next to nothing is left"]


def test_a_measurement_that_is_not_finite_is_no_result() -> None:
    full = hidden(network())
    metrics = {"accuracy": lambda net: 1.0 if hidden(net) == full else float("nan")}
    found = swept(metrics=metrics, kl_weights=[2.0])
    assert found.rows[1].failed == "accuracy is nan"
    with pytest.raises(ValueError, match="of the unpruned network must be finite: accuracy is inf"):
        swept(metrics={"accuracy": lambda _: float("inf")})


def test_if_all_settings_fail_the_reason_comes_out() -> None:
    with pytest.raises(ValueError, match="nothing would be left"):
        swept(kl_weights=[100.0, 200.0])


def test_errors_of_the_caller_end_the_sweep() -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise TypeError("no such option")

    with pytest.raises(TypeError, match="no such option"):
        swept(recipe=broken)
    with pytest.raises(TypeError, match=r"recipe must answer with a network.*got 3"):
        swept(recipe=lambda *_, **__: 3)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"kl_weights": None}, TypeError, "give kl_weights or budgets, and not both"),
        ({"budgets": [0.5]}, TypeError, "give kl_weights or budgets, and not both"),
        ({"kl_weights": 3.0}, TypeError, "kl_weights must be a list of settings, got 3.0"),
        ({"kl_weights": []}, ValueError, "at least one setting, got none"),
        ({"kl_weights": [1, 1.0]}, ValueError, "must differ from one another, got 1 twice"),
        ({"kl_weights": [-1.0]}, ValueError, "finite and at least 0, got -1.0"),
        ({"kl_weights": ["a"]}, TypeError, "each of kl_weights must be a number"),
        ({"kl_weight": 3.0}, TypeError, "kl_weight is what the sweep turns"),
        ({"metrics": {}}, TypeError, "metrics must be functions of a network by name, at least one"),
        ({"recipe": 3}, TypeError, "recipe must be a function"),
        ({"seed": -1}, ValueError, "seed must be a seed of torch's generators, at least 0"),
        ({"example_inputs": torch.zeros(2, 3)}, ValueError, "example_inputs must be what Sequential takes"),
    ],
)
def test_what_makes_no_sense_is_refused(options: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        swept(**options)


def test_batches_that_can_be_gone_through_once_are_refused() -> None:
    with pytest.raises(TypeError, match="gone through again for each setting"):
        sweep(network(), iter(BATCHES), misfit, metrics={"accuracy": hidden}, kl_weights=[1.0])
    with pytest.raises(ValueError, match="batches holds no minibatch"):
        sweep(network(), [], misfit, metrics={"accuracy": hidden}, kl_weights=[1.0])


class TestFolder:
    def test_what_is_finished_is_not_done_again(self, tmp_path: Path) -> None:
        first, again = Recipe(), Recipe()
        measured: list[nn.Module] = []

        def measure(net: nn.Module) -> float:
            measured.append(net)
            return hidden(net)

        options: dict[str, Any] = {"folder": tmp_path, "metrics": {"accuracy": measure}, "steps": 5}
        before = swept(kl_weights=[2.0, 100.0, 4.0], recipe=first, **options)
        count = len(measured)
        after = swept(kl_weights=[4.0, 2.0, 8.0, 100.0], recipe=again, **options)
        assert [call["kl_weight"] for call in again.calls] == [8.0, 100.0]
        assert len(measured) == count + 1
        assert after.rows[:3] == (before.rows[0], before.rows[3], before.rows[1])
        assert after.rows[1].model is not None
        assert before.rows[3].model is not None
        assert torch.equal(after.rows[1].model(X), before.rows[3].model(X))

    def test_noise_that_was_put_by_hand_is_no_hindrance(self, tmp_path: Path) -> None:
        model = insert_noise(network(), X)
        options: dict[str, Any] = {"metrics": {"accuracy": hidden}, "kl_weights": [20.0], "folder": tmp_path}
        found = [
            sweep(model, BATCHES, misfit, num_samples=64, epochs=40, steps=60, noise_lr=0.2, **options).rows
            for _ in range(2)
        ]
        assert found[0] == found[1]
        assert found[0][0].parameters == sum(p.numel() for p in network().parameters())
        assert found[1][1].model is not None

    def test_a_network_of_other_modules_is_named_by_its_file(self, tmp_path: Path) -> None:
        def other(*_: Any, **__: Any) -> nn.Module:
            return nn.Sequential(OrderedDict({"0": nn.Linear(6, 4), "last": nn.Linear(4, 2)}))

        swept(folder=tmp_path, recipe=other, kl_weights=[2.0])
        row = swept(folder=tmp_path, recipe=other, kl_weights=[2.0]).rows[1]
        assert row.model is None
        assert row.parameters == 6 * 4 + 4 + 4 * 2 + 2
        assert "kl_weight-2.safetensors and isn't loaded here" in row.notes[0]

    def test_a_network_that_is_gone_is_made_again(self, tmp_path: Path) -> None:
        swept(folder=tmp_path)
        (tmp_path / "kl_weight-2.safetensors").unlink()
        recipe = Recipe()
        swept(folder=tmp_path, recipe=recipe)
        assert [call["kl_weight"] for call in recipe.calls] == [2.0]

    def test_a_break_loses_the_row_in_work_alone(self, tmp_path: Path) -> None:
        with pytest.raises(KeyboardInterrupt):
            swept(folder=tmp_path, recipe=Recipe(stops_at=4.0))
        recipe = Recipe()
        swept(folder=tmp_path, recipe=recipe)
        assert [call["kl_weight"] for call in recipe.calls] == [4.0, 16.0]

    @pytest.mark.parametrize(
        ("change", "told"),
        [
            ({"seed": 1}, "seed was 0 and is 1"),
            ({"steps": 5}, "options.steps was None and is 5"),
            ({"metrics": {"top5": hidden}}, r"metrics was \['accuracy'\] and is \['top5'\]"),
            ({"example_inputs": X}, r"example was .*\(32, 6\).* and is .*\(64, 6\)"),
            ({"kl_weights": None, "budgets": [0.5]}, "dial was 'kl_weight' and is 'budget'"),
        ],
    )
    def test_other_settings_are_refused_with_what_differs(
        self, change: Any, told: str, tmp_path: Path
    ) -> None:
        swept(folder=tmp_path)
        with pytest.raises(ValueError, match=f"other settings.*{told}.*Name another folder"):
            swept(folder=tmp_path, **change)

    def test_another_start_is_refused(self, tmp_path: Path) -> None:
        options: dict[str, Any] = {"metrics": {"accuracy": hidden}, "kl_weights": [2.0], "recipe": Recipe()}
        sweep(network(), BATCHES, misfit, folder=tmp_path, **options)
        with pytest.raises(ValueError, match=r"network was 'Sequential .*' and is 'Sequential "):
            sweep(network(seed=1), BATCHES, misfit, folder=tmp_path, **options)

    def test_a_file_that_is_not_a_sweeps_is_left_alone(self, tmp_path: Path) -> None:
        (tmp_path / "sweep.json").write_text("[]")
        with pytest.raises(ValueError, match="is not what a sweep keeps there"):
            swept(folder=tmp_path)
        assert (tmp_path / "sweep.json").read_text() == "[]"


def test_the_table_reads_well_and_the_json_holds_all(tmp_path: Path) -> None:
    found = swept()
    lines = str(found).splitlines()
    assert lines[0].split() == "kl_weight accuracy parameters multiply-adds file, kB seconds".split()
    knee = found.knee()
    assert knee is not None
    assert [line.split()[0] for line in lines if line.endswith("knee")] == [knee.label]
    assert f"{found.rows[2].macs:,}" in lines[4]
    found.save(tmp_path / "found.json")
    read = json.loads((tmp_path / "found.json").read_text())
    assert read["knee"]["macs"] == knee.label
    assert [row["label"] for row in read["rows"]] == [row.label for row in found.rows]
    assert read["rows"][1]["metrics"] == found.rows[1].metrics
    assert read["settings"]["seed"] == 0
