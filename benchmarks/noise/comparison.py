"""This run beside an earlier one, as times over a copy's: no two runs find the machine in the same state."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from benchmarks.noise.record import FORMAT
from benchmarks.noise.table import short
from benchmarks.noise.variant import COPY


class ComparisonError(ValueError):
    """A file cannot be compared with; says why."""


class Key(NamedTuple):
    """What must agree for two rows to be compared."""

    op: str
    shape: tuple[int, ...]
    dtype: str
    direction: str
    variant: str


def read_earlier(path: Path) -> dict[str, Any]:
    """Read what an earlier run wrote with --json."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ComparisonError(f"--compare {path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ComparisonError(f"--compare {path} is not JSON: {error}") from error
    if not isinstance(record, dict) or record.get("format") != FORMAT or "problems" not in record:
        raise ComparisonError(
            f"--compare takes a file that `python -m benchmarks --json FILE` wrote (format {FORMAT}); "
            f"{path} is none"
        )
    return record


def print_comparison(on: Console, earlier: dict[str, Any], now: dict[str, Any]) -> None:
    """Print the times over a copy's, then and now, of the rows that both runs have."""
    then, here = dict(_times_copy(earlier)), dict(_times_copy(now))
    common = [key for key in here if key in then]
    if not common:
        on.print("Nothing in common with the earlier run: no op, shape, dtype and variant is in both.")
        return
    on.print(_table(common, then, here))
    on.print("  Below 1, this run is the faster beside its own copy.")
    for what in ("machine", "versions", "threads"):
        if earlier.get(what) != now.get(what):
            on.print(Text(f"  Another {what} then: {earlier.get(what)}"))
    on.print()


def _table(common: list[Key], then: dict[Key, float], here: dict[Key, float]) -> Table:
    title = "Times over a copy of the same bytes"
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE, pad_edge=False)
    for head in ("op", "shape", "dtype", "direction", "variant"):
        table.add_column(head, no_wrap=True)
    for head in ("then", "now", "now ÷ then"):
        table.add_column(head, justify="right", no_wrap=True)
    for key in common:
        ratios = (then[key], here[key], here[key] / then[key])
        shape = "×".join(map(str, key.shape))
        table.add_row(key.op, shape, key.dtype, key.direction, key.variant, *map(short, ratios))
    return table


def _times_copy(record: dict[str, Any]) -> Iterator[tuple[Key, float]]:
    for problem in record["problems"]:
        for row in problem["rows"]:
            if row["variant"] != COPY:
                where = (problem["op"], tuple(problem["shape"]), problem["dtype"])
                yield Key(*where, row["direction"], row["variant"]), float(row["kept"]["times_copy"])
