"""Makes the tables again from their inputs: ``python -m tests.truth.make`` compares every row.

Values and flags are compared to the last bit, condition numbers to one unit of their eight digits. The
test-suite does so with a sample of rows; all of them take an hour. The inputs were drawn at random once,
regime by regime, and are the tables' own data. ``--write`` puts what was remade into the tables, after a
change of their inputs or of what they hold.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from tests.truth.condition_numbers import coarse, row_conditions
from tests.truth.exact import Values, mp, row_values

__all__ = ["FOLDER", "differences", "made_again", "read"]

FOLDER = Path(__file__).parent
NORMAL, SMALL, OVERFLOW, NOTHING = range(4)
KAPPA_OF = {"x": "x_u", "theta": "theta_u"}
KAPPA_UNIT = 2.0**-7
PRECISIONS: dict[str, np.finfo[Any]] = {"64": np.finfo(np.float64), "32": np.finfo(np.float32)}


def flag(value: Any, precision: np.finfo[Any]) -> int:
    """What becomes of a value in a precision; see the README."""
    if value == 0:
        return NOTHING
    if abs(value) > mp.mpf(float(precision.max)):
        return OVERFLOW
    return SMALL if abs(value) < mp.mpf(float(precision.smallest_normal)) else NORMAL


def made_again(row: Values) -> Values:
    """All columns of a row but its tag and inputs, rounded once."""
    values = row_values(row)
    found: Values = {f"out_{name}": float(value) for name, value in values.items()}
    for bits, precision in PRECISIONS.items():
        found |= {f"flag{bits}_{name}": flag(value, precision) for name, value in values.items()}
    for name, value in row_conditions(row).items():
        found[f"kappa_{name}"] = coarse(np.array([float(value)]))[0]
    return {name: value for name, value in found.items() if name in row}


def read(path: Path) -> Values:
    """The columns of a table."""
    with np.load(path) as archive:
        return {name: archive[name] for name in archive.files}


def row_of(columns: Values, index: int) -> Values:
    """One row of a table."""
    return {name: column[index] for name, column in columns.items()}


def differences(columns: Values, rows: range) -> list[str]:
    """Say where some rows of a table aren't what they are when made again."""
    found = []
    for i in rows:
        row = row_of(columns, i)
        made = made_again(row)
        missing = {name for name in row if not name.startswith(("in_", "tag"))} - set(made)
        found += [f"row {i}: {name} is made by nothing" for name in sorted(missing)]
        found += [
            f"row {i}: {name} is {row[name]!r}, made again {value!r}"
            for name, value in made.items()
            if not agree(name, value, row)
        ]
    return found


def agree(column: str, value: Any, row: Values) -> bool:
    """Whether a value is that of the table."""
    if not column.startswith("kappa_"):
        return bool(value == row[column])
    name = column.removeprefix("kappa_")
    # Values that float64 can't hold aren't scored; in the table their condition is 0 or not by the digits
    # that were computed with.
    scored = row[f"flag64_{KAPPA_OF.get(name, name)}"] == NORMAL
    # Rounding a number first to float32 and then to eight digits may move it by one of these.
    return not scored or abs(value - row[column]) <= KAPPA_UNIT * abs(value)


def write(path: Path) -> None:
    """Put into a table what its rows are when made again."""
    columns = read(path)
    for i in range(len(columns["tag"])):
        for name, value in made_again(row_of(columns, i)).items():
            columns[name][i] = value
    np.savez_compressed(path, **columns)


def main() -> None:
    """Compare or write the tables, as the command line says."""
    parser = argparse.ArgumentParser(description="Make the tables again from their inputs.")
    parser.add_argument("tables", nargs="*", default=sorted(path.stem for path in FOLDER.glob("*.npz")))
    parser.add_argument("--every", type=int, default=1, help="compare every n-th row")
    parser.add_argument("--write", action="store_true", help="write the tables instead of comparing them")
    options = parser.parse_args()
    wrong = 0
    for name in options.tables:
        path = FOLDER / f"{name}.npz"
        if options.write:
            write(path)
            continue
        columns = read(path)
        rows = range(0, len(columns["tag"]), options.every)
        found = differences(columns, rows)
        wrong += len(found)
        print(f"{name}: {len(rows)} rows, {len(found)} differences", *found, sep="\n  ", flush=True)  # noqa: T201
    raise SystemExit(wrong > 0)


if __name__ == "__main__":
    main()
