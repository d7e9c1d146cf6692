"""The two reports of ``python -m benchmarks.arrays`` can be made and read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.arrays import accuracy, speed
from benchmarks.arrays.__main__ import main
from tests.core.truth_tables import QUANTITIES, load


def test_speed_report_fits_120_columns_and_writes_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(speed, "start_up", lambda: {"import": 0.2, "import_numpy": 0.1, "first_call": 0.3})
    target = tmp_path / "speed.json"
    main(["speed", "--size", "2000", "--rounds", "2", "--json", str(target)])
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= 120
    record = json.loads(target.read_text())
    assert record["commit"]
    assert [one["function"] for one in record["timings"]] == list(speed.FUNCTIONS)
    assert all(one["over_scipy"] > 0 for one in record["timings"])


def test_accuracy_report_has_a_row_for_every_quantity_and_rival(capsys: pytest.CaptureFixture[str]) -> None:
    main(["accuracy"])
    printed = capsys.readouterr().out
    for quantity in QUANTITIES:
        assert f"\n| {quantity.name} | " in printed
    for name, *_ in accuracy.RIVALS:
        assert f"\n| {name} | " in printed


def test_the_formulas_as_printed_fail_where_the_package_does_not() -> None:
    table = load("training", "float64")
    quantity = next(quantity for quantity in QUANTITIES if quantity.column == "dF_N")
    cells = {
        name: accuracy.wrong_cell(table, quantity, answer(table, "dF_N"))
        for name, answer in (("ours", accuracy.ours), ("printed", accuracy.printed))
    }
    assert cells["ours"] == "0; 0 (0)"
    assert not cells["printed"].endswith("(0)")
