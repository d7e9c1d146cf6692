"""The reference tables are what `make` makes of their inputs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.truth.make import FOLDER, differences, read

TABLES = sorted(FOLDER.glob("*.npz"))
SAMPLE = 6


@pytest.mark.parametrize("path", TABLES, ids=lambda path: path.stem)
def test_a_sample_of_rows_is_remade_to_the_last_bit(path: Path) -> None:
    columns = read(path)
    count = len(columns["tag"])
    assert differences(columns, range(count // SAMPLE // 2, count, count // SAMPLE)) == []


def test_a_value_one_rounding_off_is_found() -> None:
    columns = read(TABLES[0])
    columns["out_KL"] = columns["out_KL"] * (1 + 2.0**-52)
    assert any("out_KL" in line for line in differences(columns, range(1)))
