"""Runs: what they share changes nothing, and a killed one ends as an undisturbed one."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.measuring.source import ROOT
from benchmarks.paper import __main__ as command
from benchmarks.paper import execution, rules, scratch
from benchmarks.paper.counting import compression
from benchmarks.paper.data import images_for, small
from benchmarks.paper.execution import Place, do
from benchmarks.paper.experiments import AFTER_TRAINING, CURVES, Run, experiments, method, runs_of
from benchmarks.paper.grid import Progress, do_all
from benchmarks.paper.results import Results
from benchmarks.paper.sources import load
from benchmarks.paper.training import Training, evaluate
from bmrs_torch import elbo_loss, noise_layers
from tests.benchmarks.paper.small_files import write_idx

# So that structures go within a few steps: rates a hundred times those of the paper, on a small network.
QUICK: dict[str, Any] = {"epochs": 5, "finetune_epochs": 2, "lr": 0.2, "batch": 8, "layers": 1, "width": 12}
PLAIN = Run("fashion_mnist", "mlp", "bmrs_n", 0)


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_idx(folder / "fashion_mnist", zipped=True, sizes=(100, 40))
    return folder


@pytest.fixture(autouse=True)
def loaded_anew() -> Iterator[None]:
    execution._images.cache_clear()
    yield
    execution._images.cache_clear()


def place(folder: Path, data: Path, **overrides: Any) -> Place:
    return Place(folder / "results", folder / "scratch", data, {**QUICK, **overrides})


def unsaid(result: dict[str, Any]) -> dict[str, Any]:
    """A result without what differs from one process to the next."""
    made = {k: v for k, v in result["made"].items() if k not in ("finished", "seconds", "command")}
    return {**result, "made": made}


def test_what_runs_share_changes_nothing_to_the_bit(tmp_path: Path, data: Path) -> None:
    found = do(PLAIN, where := place(tmp_path, data), {})
    images = load("fashion_mnist", data)
    images = replace(images, train_images=small(images.train_images), test_images=small(images.test_images))
    training = Training(where.settings(PLAIN), split := images_for("mlp", images, seed=0))
    kept = []
    for epoch in range(QUICK["epochs"]):
        training.epoch(epoch, QUICK["epochs"])
        rules.close(training.model, rules.superfluous(training.model, method("bmrs_n")))
        kept.append(int(rules.kept(training.model).sum()))
    assert found is not None
    assert kept == [entry["kept"] for entry in found["history"]][: len(kept)]
    assert kept[0] == 24 > kept[-1]  # it began as the network that nobody pruned, and then pruned
    best: tuple[float, dict[str, float]] = (-1.0, {})
    for epoch in range(2):
        training.epoch(epoch, 2)
        accuracy = evaluate(training.model, split.validation)["accuracy"]
        if accuracy > best[0]:
            best = accuracy, evaluate(training.model, split.test)
    assert found["test"] == best[1]


@pytest.mark.parametrize(
    "run",
    [
        PLAIN,
        replace(PLAIN, method="none"),
        replace(PLAIN, method="l2"),
        replace(PLAIN, decisions="anew"),
        replace(PLAIN, method=CURVES, timing=AFTER_TRAINING),
    ],
    ids=lambda run: f"{run.method}-{run.decisions}",
)
def test_a_run_that_dies_at_any_moment_ends_as_an_undisturbed_one(
    tmp_path: Path, data: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed = do(run, place(tmp_path / "one", data), {})
    save, deaths = scratch.save, 0

    def dies(what: Any, path: Path) -> None:
        """Die now before a file is replaced, now after."""
        nonlocal deaths
        deaths += 1
        if deaths % 3 != 1:
            save(what, path)
        if deaths % 3 != 0:
            raise KeyboardInterrupt

    monkeypatch.setattr(scratch, "save", dies)
    found = None
    while found is None and deaths < 100:
        with contextlib.suppress(KeyboardInterrupt):
            found = do(run, place(tmp_path / "two", data), {})
    assert found is not None
    assert deaths > 3
    assert undisturbed is not None
    assert unsaid(found) == unsaid(undisturbed)


def test_pruned_structures_may_come_back_only_where_decisions_are_made_anew(
    tmp_path: Path, data: Path
) -> None:
    where, none = place(tmp_path, data), np.zeros(24, bool)
    images = load("fashion_mnist", data)
    split = images_for("mlp", replace(images, train_images=small(images.train_images)), seed=0)
    for decisions in ("permanent", "anew"):
        training = Training(where.settings(replace(PLAIN, decisions=decisions)), split)
        rules.close(training.model, ~none)
        assert rules.close(training.model, none, anew=decisions == "anew") == (decisions == "anew")
        assert rules.kept(training.model).all() == (decisions == "anew")
        rules.close(training.model, ~none)
        # What may come back is pressed on, what may not is left alone.
        objective = training._objective()(torch.zeros(()))
        assert bool(objective > 0) == (decisions == "anew")
    open_ones = noise_layers(training.model)
    for noise in open_ones.values():
        noise.mask.fill_(1)
    published = elbo_loss(torch.zeros(()), training.model, num_samples=80, kl_scale="published")
    assert objective.item() == pytest.approx(published.item(), rel=1e-6)


def test_a_grid_killed_twice_ends_with_the_same_files(tmp_path: Path, data: Path) -> None:
    methods = ["none", "l2", "bmrs_n", "snr"]
    options = ["run", "table 1", "--networks", "mlp", "--datasets", "fashion_mnist", "--seeds", "0"]
    options += ["--methods", *methods, "--data", str(data), "--epochs", "25", "--finetune-epochs", "10"]

    def arguments(name: str) -> list[str]:
        folder = tmp_path / name
        return [*options, "--results", str(folder / "results"), "--scratch", str(folder / "scratch")]

    killed, results = tmp_path / "killed", tmp_path / "killed" / "results"
    for kill in ("**/epoch-003.pt", "**/bmrs_n-seed0.json"):  # in the middle of a run; between two
        process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.paper", *arguments("killed")],
            cwd=ROOT,
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "kernels", ROOT / "bindings"))),
            },
            stdout=subprocess.DEVNULL,
        )
        while process.poll() is None and not list(killed.glob(kill)):
            time.sleep(0.002)
        assert process.poll() is None, "it ended before it could be killed"
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert len(list(results.glob("**/*.json"))) < len(methods)
    for name in ("killed", "undisturbed"):
        assert command.main(arguments(name)) == 0
    files = {
        name: {
            str(path.relative_to(tmp_path / name / "results")): unsaid(json.loads(path.read_text()))
            for path in (tmp_path / name / "results").glob("**/*.json")
        }
        for name in ("killed", "undisturbed")
    }
    assert len(files["killed"]) == len(methods)
    assert files["killed"] == files["undisturbed"]
    assert not list(tmp_path.glob("*/results/**/*.part"))


@pytest.mark.parametrize("dask", [None, "local"], ids=["joblib", "dask"])
def test_many_processes_give_the_same_results(
    tmp_path: Path, data: Path, dask: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    if dask is not None:
        pytest.importorskip(
            "distributed", reason="the grid on a Dask cluster: pip install bmrs-pruning[paper]"
        )
    runs = [replace(PLAIN, method=name) for name in ("l2", "bmrs_n", "none")]
    alone, together = place(tmp_path / "alone", data), place(tmp_path / "together", data)
    do_all(runs, alone, {})
    do_all(runs, together, {}, jobs=2, dask=dask)
    assert "[3/3] " in capsys.readouterr().out
    # L2 waits for BMRS_N, whichever process does that, and a run that another does is left to it.
    do_all(runs, together, {})
    for run in runs:
        one, other = (Results(p.results).find(run, p.settings(run)) for p in (alone, together))
        assert one is not None
        assert other is not None
        assert unsaid(one) == unsaid(other)


def test_finished_runs_are_skipped_and_others_settings_dont_count(tmp_path: Path, data: Path) -> None:
    where = place(tmp_path, data)
    first = do(PLAIN, where, {"commit": "one"})
    assert do(PLAIN, where, {"commit": "two"}) == first
    changed = replace(where, overrides={**where.overrides, "epochs": 2})
    progress = Progress.of([PLAIN, replace(PLAIN, seed=1)], where)
    assert [run.seed for run in progress.missing] == [1]
    assert progress.seconds() == pytest.approx(first["made"]["seconds"] if first else None)
    assert Progress.of([PLAIN], changed).done == []


def test_l2_removes_as_many_structures_as_bmrs_n(tmp_path: Path, data: Path) -> None:
    where = place(tmp_path, data)
    l2, leader = (do(replace(PLAIN, method=name), where, {}) for name in ("l2", "bmrs_n"))
    assert l2 is not None
    assert leader is not None
    assert sum(l2["kept"].values()) == sum(leader["kept"].values()) < 24


def test_curves_hold_every_criterion_its_mark_and_all_correlations(tmp_path: Path, data: Path) -> None:
    found = do(replace(PLAIN, method=CURVES, timing=AFTER_TRAINING), place(tmp_path, data), {})
    assert found is not None
    criteria = experiments()["curves"]["criteria"]
    assert list(found["curves"]) == criteria
    rho = np.array(found["spearman"]["rho"])
    assert rho.shape == (len(criteria),) * 2
    assert np.allclose(rho, rho.T)
    assert np.allclose(np.diag(rho), 1)
    values = np.array(found["delta_f_n"])
    for point in found["tolerances"]:
        assert point["gone"] == (values >= -point["tolerance"]).sum()
    assert found["marks"]["bmrs_n"]["gone"] in [p["gone"] for p in found["tolerances"]]
    gone = [point["gone"] for point in found["curves"]["bmrs_n"]]
    assert max(gone) <= found["marks"]["bmrs_n"]["gone"]  # it stops at its rule


def test_nobody_is_told_a_place_on_this_machine(tmp_path: Path, data: Path) -> None:
    arguments = [
        "run",
        "table 1",
        "--data",
        str(data),
        "--seeds",
        "0",
        "--networks",
        "mlp",
        "--methods",
        "none",
    ]
    arguments += ["--epochs", "1", "--finetune-epochs", "1", "--results", str(tmp_path / "results")]
    arguments += ["--scratch", str(tmp_path / "scratch")]
    assert command.main(arguments) == 0
    (path,) = (tmp_path / "results").glob("**/*.json")
    assert str(tmp_path.parent) not in path.read_text()


def test_the_experiments_are_those_of_the_paper() -> None:
    table = runs_of("table 1")
    assert {run.seed for run in table} == set(range(10))
    assert [run.seed for run in table] == sorted(run.seed for run in table)
    assert {run.seed for run in runs_of("table 2")} == {0, 1, 2}
    assert {method(run.method).p1 for run in runs_of("figure 4")} == set(range(1, 17))
    assert all(asdict(run)["kl_scale"] == "published" for run in table)


@pytest.mark.parametrize("network", ["resnet50", "vit"])
def test_large_networks_run_end_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, network: str) -> None:
    from benchmarks.paper import networks
    from benchmarks.training_step.large_networks import ResNet50, ViT

    folder = tmp_path / "cifar10"
    folder.mkdir()
    for name in (
        "data_batch_1",
        "data_batch_2",
        "data_batch_3",
        "data_batch_4",
        "data_batch_5",
        "test_batch",
    ):
        (folder / f"{name}.bin").write_bytes(bytes([3]) + bytes(3072))
    monkeypatch.setattr(networks, "ResNet50", lambda classes: ResNet50(classes, width=2))
    monkeypatch.setattr(networks, "ViT", lambda classes: ViT(classes, width=8, depth=2, heads=2))
    overrides = {"epochs": 1, "finetune_epochs": 1, "batch": 2, "weights": "random"}
    where = Place(tmp_path / "results", tmp_path / "scratch", tmp_path, overrides)
    found = do(Run("cifar10", network, "l2", 0), where, {})
    assert found is not None
    assert sum(found["structures"].values()) > 0
    assert found["data"]["images"] == {"train": 4, "validation": 1, "test": 1}
    if network == "vit":  # noise on the outputs of blocks, which nothing can be cut from
        assert list(found["structures"].values()) == [8, 8]


def test_counts_are_those_of_the_released_code_and_of_the_smaller_network() -> None:
    from benchmarks.paper.counting import _compacted_parameters
    from benchmarks.paper.networks import lenet5, mlp

    inputs = torch.rand(2, 1, 32, 32)
    chains = {
        # What the released code said of these networks, measured: 92.8 and 89.8 %.
        (12, 12): (mlp(1024, 10, layers=1, width=150, noise=True), 92.8),
        (2, 4, 14, 8): (lenet5(1, 10, noise=True, share="element"), 89.8),
    }
    for widths, (model, published) in chains.items():
        for noise, width in zip(noise_layers(model).values(), widths, strict=True):
            noise.mask[width:] = 0
        found = compression(model, inputs)
        whole = sum(
            p.numel() for name, p in model.named_parameters() if not name.endswith(("mu", "log_sigma"))
        )
        assert found.published == pytest.approx(published, abs=0.05)
        assert found.removed == pytest.approx(100 * (1 - _compacted_parameters(model, inputs) / whole))


def test_energy_is_measured_where_it_is_asked_for(tmp_path: Path, data: Path) -> None:
    pytest.importorskip("codecarbon", reason="a run's energy: pip install bmrs-pruning[paper]")
    found = do(replace(PLAIN, method="none"), replace(place(tmp_path, data), energy=True), {})
    assert found is not None
    assert found["made"]["energy_kwh"] > 0
