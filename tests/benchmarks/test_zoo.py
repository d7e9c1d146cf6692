"""The record of the zoo: its page says what it holds, it grows row by row, and no failure stops it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import benchmarks.zoo.__main__ as command
from benchmarks.measuring.source import RESULTS, ROOT
from benchmarks.zoo.architectures import ARCHITECTURES, SOURCES
from benchmarks.zoo.child import BMRS, TORCH_PRUNING, measured, one_line
from benchmarks.zoo.measurement import grouped
from benchmarks.zoo.table import is_exact, page

OURS = {
    "parameters": 100,
    "noise_layers": 1,
    "structures": 10,
    "closed": 6,
    "share": 0.5,
    "difference": 1e-16,
    "difference_other_batch": 1e-16,
    "dtype": "float64",
    "stayed": [{"reason": "it has to", "structures": 2, "first": "a.noise"}],
    "passed_over": [],
    "plan_seconds": 1.0,
    "compact_seconds": 0.1,
    "fold_seconds": 0.1,
    "whole_seconds": 2.0,
}
FAILS = {"error": "build: ImportError: no | here"}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """What is measured, by whom; nothing really is."""
    calls: list[tuple[str, str]] = []

    def fake(who: str, name: str, **_: Any) -> dict[str, Any]:
        calls.append((who, name))
        return dict(OURS) if who == BMRS and name != "alexnet" else dict(FAILS)

    monkeypatch.setattr(command, "measured", fake)
    return calls


def run(path: Path, *arguments: str) -> dict[str, Any]:
    assert command.main(["--json", str(path), *arguments]) == 0
    record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    assert path.with_suffix(".md").read_text(encoding="utf-8") == page(record)
    return record


def test_the_page_in_the_results_says_what_the_record_beside_it_holds() -> None:
    record = json.loads((ROOT / RESULTS / "zoo.json").read_text(encoding="utf-8"))
    assert (ROOT / RESULTS / "zoo.md").read_text(encoding="utf-8") == page(record)
    names = [row["architecture"] for row in record["rows"]]
    assert names == [name for name in ARCHITECTURES if name in names]
    shown = (ROOT / "docs/results/zoo.md").read_text(encoding="utf-8")
    assert f"{{include}} ../../{RESULTS}/zoo.md" in shown


def test_no_answer_in_the_record_changed() -> None:
    record = json.loads((ROOT / RESULTS / "zoo.json").read_text(encoding="utf-8"))
    ran = [row for row in record["rows"] if "error" not in row[BMRS]]
    assert ran
    assert [row["architecture"] for row in ran if not is_exact(row[BMRS])] == []


@pytest.mark.parametrize("page", ["README.md", "docs/index.md", "docs/guides/what_can_be_pruned.md"])
def test_pages_tell_how_many_architectures_there_are(page: str) -> None:
    assert sum(map(len, SOURCES.values())) == len(ARCHITECTURES)
    networks = {name.partition(", ")[0] for name in ARCHITECTURES}  # some have two entries, by `where`
    assert f" {len(networks)} architectures" in (ROOT / page).read_text(encoding="utf-8")


def test_a_failure_is_a_row_and_the_next_architecture_is_measured(
    tmp_path: Path, asked: list[tuple[str, str]]
) -> None:
    record = run(tmp_path / "zoo.json", "--only", "vgg", "--only", "alexnet")
    assert [row["architecture"] for row in record["rows"]] == ["alexnet", "vgg"]
    assert record["rows"][0][BMRS] == FAILS
    text = (tmp_path / "zoo.md").read_text(encoding="utf-8")
    assert "no \\| here" in text
    assert "2 closed, kept: it has to (a.noise)" in text
    assert len(asked) == 4


def test_a_run_goes_on_where_it_was_stopped_and_measures_anew_after_a_change(
    tmp_path: Path, asked: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "ARCHITECTURES", {n: ARCHITECTURES[n] for n in ("alexnet", "vgg")})
    path = tmp_path / "zoo.json"
    run(path, "--only", "vgg")
    asked.clear()
    run(path)
    assert {name for _, name in asked} == {"alexnet"}
    asked.clear()
    run(path, "--seed", "1")
    assert {name for _, name in asked} == {"alexnet", "vgg"}


def test_one_row_of_another_run_never_replaces_a_record(
    tmp_path: Path, asked: list[tuple[str, str]], capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "zoo.json"
    run(path, "--only", "vgg")
    before = path.read_text(encoding="utf-8")
    with pytest.raises(SystemExit):
        command.main(["--json", str(path), "--only", "alexnet", "--seed", "1"])
    assert "another seed" in capsys.readouterr().err
    assert path.read_text(encoding="utf-8") == before
    assert len(asked) == 2


def test_a_wrong_answer_fails_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = {**OURS, "difference_other_batch": 1e-3}
    monkeypatch.setattr(command, "measured", lambda who, *_, **__: wrong if who == BMRS else FAILS)
    assert command.main(["--json", str(tmp_path / "zoo.json"), "--only", "vgg"]) == 1


def test_goals_are_told_reached_or_not(tmp_path: Path, asked: list[tuple[str, str]]) -> None:
    record = run(tmp_path / "zoo.json", "--only", "lora", "--only", "siamese")
    assert {row["architecture"]: row["reached"] for row in record["rows"]} == {"lora": True, "siamese": False}
    assert "0 of 2" not in page(record)
    assert "50 ✓" in page(record)
    assert "80 ✗" in page(record)
    assert asked


def test_a_child_that_is_too_slow_or_dies_is_an_error_and_no_exception(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert measured(TORCH_PRUNING, "vgg", seed=0, seconds=0.01) == {"error": "stopped after 0.01 s"}

    def died(*_: Any, **__: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess([sys.executable], -9, "", "one\nKilled")

    monkeypatch.setattr(subprocess, "run", died)
    assert measured(BMRS, "vgg", seed=0, seconds=1.0) == {"error": "the process ended with status -9: Killed"}


def test_reasons_that_differ_in_names_only_are_one() -> None:
    reasons = [("kept in 'a.b'", "x"), ("kept in 'c'", "y"), ("it's the model's own, in 'c'", "z")]
    assert grouped(reasons) == [("kept in ‹…›", 2, "x"), ("it's the model's own, in ‹…›", 1, "z")]


def test_an_error_is_one_short_line() -> None:
    assert one_line("a\n  b") == "a b"
    assert len(one_line("x" * 1000)) == 240
