"""Tables and figures tell what the results hold, beside the paper; and the committed ones agree with it."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.measuring.source import ROOT
from benchmarks.paper import __main__ as command
from benchmarks.paper import figures, tables, times
from benchmarks.paper.experiments import AFTER_TRAINING, CURVES, Run, experiments, method, runs_of
from benchmarks.paper.experiments import settings as settings_of
from benchmarks.paper.publishing import publish
from benchmarks.paper.results import DEFAULT_FOLDER, Results
from benchmarks.paper.summary import Mean, cell, published

ENOUGH = 5
"""Seeds from which a standard deviation is worth comparing."""

REPRODUCED = [("mlp", name) for name in ("none", "mean", "bmrs_n", "bmrs_u_8", "bmrs_u_4")]
REPRODUCED += [("lenet5", name) for name in ("none", "bmrs_n", "bmrs_u_8", "bmrs_u_4")]


@pytest.mark.parametrize(("network", "name"), REPRODUCED, ids=lambda value: value)
def test_fashion_mnist_lies_within_two_deviations_of_table_1(network: str, name: str) -> None:
    found = cell("table 1", Run("fashion_mnist", network, name, 0), Results(DEFAULT_FOLDER).read())
    if found.seeds < ENOUGH:
        pytest.skip(f"{found.seeds} seeds of {network}, {name} are committed, fewer than {ENOUGH}")
    assert tables.within(found), tables.write(
        "table 1", "markdown", ["fashion_mnist"], Results(DEFAULT_FOLDER).read()
    )


def test_every_committed_result_was_made_as_the_paper_has_it() -> None:
    for run, result in Results(DEFAULT_FOLDER).read():
        assert result["settings"] == settings_of(run)
        assert len(result["made"]["commit"]) == 40  # of a commit, without changes
        assert "/" not in result["made"]["command"].replace("benchmarks.paper", "")


def result(accuracy: float, count: float) -> dict[str, Any]:
    return {
        "test": {"accuracy": accuracy},
        "compression": {"published": count, "removed": count + 1, "structures": count},
    }


PLAIN = Run("fashion_mnist", "mlp", "bmrs_n", 0)


def test_a_cell_is_the_mean_of_its_own_seeds_only() -> None:
    found = [(replace(PLAIN, seed=seed), result(84 + seed, 92 + seed)) for seed in range(3)]
    others = [
        replace(PLAIN, share="sample"),
        replace(PLAIN, method="bmrs_u_8"),
        replace(PLAIN, dataset="mnist"),
    ]
    found += [(other, result(1, 1)) for other in others]
    held = cell("table 1", PLAIN, found)
    assert held.seeds == 3
    assert held.accuracy == Mean(85.0, 1.0)
    assert held.removed == Mean(94.0, 1.0)
    assert (held.paper_accuracy, held.paper_count) == (Mean(84.99, 0.35), Mean(93.20, 0.66))
    assert held.released == (85.4, 92.8)


@pytest.mark.parametrize(("far", "near"), [(1.9, True), (2.1, False)])
def test_two_deviations_are_those_of_both_together(far: float, near: bool) -> None:
    assert Mean(0.0, 3.0).near(Mean(5 * far, 4.0)) == near
    assert Mean(0.0).near(Mean(0.0, 1.0)) is None  # of one seed nothing can be said


def test_the_three_forms_of_a_table_say_the_same() -> None:
    found = [(replace(PLAIN, seed=seed), result(84 + seed, 92 + seed)) for seed in range(3)]
    texts = {form: tables.write("table 1", form, ["fashion_mnist"], found) for form in tables.FORMATS}
    (row,) = [line for line in texts["markdown"].splitlines() if "| BMRS_N  " in line and "MLP" in line]
    assert "93.00 ± 1.00 | **85.00 ± 1.00** |" in row
    assert "93.20 ± 0.66" in row
    assert r"BMRS$_\mathcal{N}$ & 3 & $93.00 \pm 1.00$ & $\mathbf{85.00 \pm 1.00}$" in texts["latex"]
    rows = {(r["network"], r["method"]): r for r in csv.DictReader(io.StringIO(texts["csv"]))}
    ours = rows["mlp", "bmrs_n"]
    assert [float(ours[name]) for name in ("compression", "accuracy_sd", "paper_accuracy")] == [93, 1, 84.99]
    assert rows["lenet5", "snr"]["accuracy"] == ""  # missing, and said so
    assert len(rows) == 16


def test_the_papers_tables_are_whole() -> None:
    for table, number in (("table 1", 6), ("table 2", 4), ("table 3", 6), ("table 4", 4)):
        networks = [methods for of_data in published()[table].values() for methods in of_data.values()]
        assert len(networks) == number
        assert {len(methods) for methods in networks} == {7 if table in ("table 1", "table 2") else 5}


def test_a_table_of_committed_results_needs_no_torch() -> None:
    program = (
        "import sys; from benchmarks.paper.__main__ import main; "
        "main(['table', '1', '--dataset', 'fashion_mnist']); assert 'torch' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "**Fashion-MNIST**" in done.stdout


def curves(seed: int) -> dict[str, Any]:
    """Curves that fall, as a run after training has them."""
    points = [
        {"gone": gone, "accuracy": 88.0 - (gone / 100) ** 2 - seed, "compression": {}}
        for gone in range(0, 300, 30)
    ]
    said = experiments()["curves"]
    criteria = said["criteria"]
    return {
        "curves": {name: points[: 8 if name.startswith("bmrs") else 10] for name in criteria},
        "marks": {
            n: points[5 + (seed + k) % 3] for k, n in enumerate(criteria) if method(n).limit is not None
        },
        "tolerances": [{"tolerance": t, **points[min(9, k)]} for k, t in enumerate(said["tolerances"])],
        "spearman": {"criteria": criteria, "rho": [[float(a == b) for b in criteria] for a in criteria]},
        "delta_f_n": [0.0] * 300,
    }


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Made-up results of all that a figure needs."""
    held = Results(tmp_path / "results")
    for seed in range(6):
        run = Run("fashion_mnist", "mlp", CURVES, seed, AFTER_TRAINING)
        held.add(run, {}, curves(seed), {})
    for p1 in (1, 4, 8):
        run = Run("fashion_mnist", "lenet5", f"bmrs_u_{p1}", 0)
        held.add(run, {}, result(80.0 + p1, 90.0 - p1), {})
    return held.folder


def test_everything_that_there_are_results_for_is_published(results: Path) -> None:
    names = {path.name for path in publish(results)}
    figures = {
        f"{name}_fashion_mnist.png" for name in ("figure2", "figure4", "figure5", "figure6", "tolerance")
    }
    assert names == figures | {"table1.md", "table1.tex", "table1.csv"}
    assert all((results / name).read_bytes().startswith(b"\x89PNG") for name in figures)


def test_a_figure_without_results_is_refused_in_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(["figure", "5", "--dataset", "mnist", "--results", str(tmp_path)]) == 2
    assert capsys.readouterr().err == "no runs after training on MNIST are among the results\n"
    with pytest.raises(figures.NoResultsError, match="sweep of p1"):
        figures.draw_sweep("cifar10", [], tmp_path / "none.png")


def test_times_are_told_as_ratios_beside_the_papers_range(tmp_path: Path) -> None:
    ratio = {"without_ms": 1.0, "with_ms": 3.0, "ratio": 3.0}
    row = {"network": "mlp", "dataset": "mnist", "training": ratio, "inference": {**ratio, "ratio": 1.25}}
    (tmp_path / times.FILE).write_text(json.dumps({"rows": [row]}))
    text = times.write("table 3", "markdown", tmp_path)
    assert "| MLP | MNIST | 3.00× | 8.20–8.31× | 1.25× | 1.56–1.60× |" in text
    with pytest.raises(times.NoTimesError, match="no network of table 4"):
        times.write("table 4", "markdown", tmp_path)


def test_what_is_timed_can_be_told(tmp_path: Path) -> None:
    from benchmarks.paper.timing import measure

    measure(["mlp"], 0.01, tmp_path, {"commit": "none"})
    lines = times.write("table 3", "csv", tmp_path).splitlines()
    assert [line.split(",")[1] for line in lines[1:]] == ["MNIST", "Fashion-MNIST", "CIFAR-10"]
    for row in json.loads((tmp_path / times.FILE).read_text())["rows"]:
        assert all(value > 0 for part in ("training", "inference") for value in row[part].values())


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["run", "table 1", "--epochs", "3"], "needs a folder of its own: --results"),
        (["run", "table 1", "--jobs", "0"], "--jobs must be at least 1, got 0"),
        (["run", "table 1", "--methods", "nothing"], "no run of these experiments"),
        (["run", "table 2", "--weights", "nowhere.pt"], "there is no file nowhere.pt"),
        (["table", "2", "--dataset", "mnist"], "table 2 has cifar10, tiny_imagenet, not mnist"),
    ],
)
def test_what_cant_be_done_is_refused_at_once(
    arguments: list[str], what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        command.main(arguments)
    assert what in capsys.readouterr().err


def test_runs_of_other_options_have_other_names() -> None:
    runs = [*runs_of("table 1"), *runs_of("figure 5"), replace(PLAIN, share="sample")]
    runs += [replace(PLAIN, decisions="anew"), replace(PLAIN, kl_scale="elbo", kl_weight=30.0)]
    assert len({run.name for run in runs}) == len(set(runs))
    assert runs[-1].name == "fashion_mnist/mlp/bmrs_n-kl_scale=elbo-kl_weight=30-seed0"
