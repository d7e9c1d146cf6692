"""The Python on the pages of the site runs as it stands, from the first block of a page to its last."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bmrs_torch import noise_layers

from .pages import DOCS, PAGES, python_of

WITH_PYTHON = [page for page in PAGES if python_of(page)]


def run(page: Path, **names: Any) -> dict[str, Any]:
    """What a page's names are when all of it has run."""
    found: dict[str, Any] = {"__name__": page.stem, **names}
    for block in python_of(page):
        exec(compile(block, str(page), "exec"), found)
    return found


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


OWN_TESTS = {"what_can_be_pruned", "kl_weight_and_tolerance", "training", "where_noise_goes", "budgets"}


@pytest.mark.parametrize("page", [p for p in WITH_PYTHON if p.stem not in OWN_TESTS], ids=lambda p: p.stem)
def test_the_page_runs(page: Path) -> None:
    run(page)


def test_the_pages_with_tests_of_their_own_have_python() -> None:
    assert {page.stem for page in WITH_PYTHON} > OWN_TESTS


def test_the_sweep_is_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = run(DOCS / "guides/kl_weight_and_tolerance.md")["found"]
    assert [row.label for row in found.rows] == ["unpruned", "0.1", "1", "10"]
    assert "knee of accuracy" in capsys.readouterr().out
    assert (tmp_path / "sweep.png").stat().st_size > 2000


def test_the_logger_is_told_plain_floats_and_the_four_functions_make_a_plain_network() -> None:
    told: dict[str, float] = {}

    class Writer:
        def add_scalar(self, name: str, value: float, step: int) -> None:
            assert step == 1
            told[name] = value

    names = run(DOCS / "guides/training.md", writer=Writer())
    names["pruner"].end_epoch()
    assert {"bmrs/kl", "bmrs/delta_f/q50", "bmrs/kept"} <= told.keys()
    smaller = names["smaller"]
    assert [type(layer).__name__ for layer in smaller] == ["Linear", "ReLU", "Linear"]
    assert smaller[0].out_features == smaller[2].in_features < 40


def test_noise_goes_where_the_page_says() -> None:
    names = run(DOCS / "guides/where_noise_goes.md")
    assert list(noise_layers(names["tiny"])) == ["1.noise"]
    assert names["block"](names["x"]).shape == (2, 64, 6, 6)
    assert names["tokens"](names["torch"].randn(2, 5, 16)).shape == (2, 5, 48)


def test_the_plan_is_the_one_that_the_page_tells(capsys: pytest.CaptureFixture[str]) -> None:
    run(DOCS / "guides/what_can_be_pruned.md")
    told = capsys.readouterr().out
    assert "remove 4 of 8; 1 masked but not removable: a grouped convolution has to keep as many" in told


def test_the_budget_is_met(capsys: pytest.CaptureFixture[str]) -> None:
    names = run(DOCS / "guides/budgets.md")
    assert "for at most 0.5 of the multiply-adds and 2 kB" in capsys.readouterr().out
    assert names["pruner"].budget is not None
