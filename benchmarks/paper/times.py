"""Tables 3 and 4: how much longer a training step and inference take with noise. Imports no torch."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.paper.summary import published
from benchmarks.paper.tables import DATASETS, NETWORKS

FILE = "times.json"
_HEADER = ("Network", "Data", "Training step", "Paper", "Inference", "Paper")
_TRAINING, _INFERENCE = 0, 1


class NoTimesError(ValueError):
    """Nothing was measured."""


def write(table: str, form: str, results: Path) -> str:
    """A table of times with noise over times without, in print.

    The criteria differ in what they do once an epoch, not in a step, so that there is one figure here; the
    paper's four are given as a range.

    Parameters
    ----------
    table : str
        ``"table 3"`` or ``"table 4"``.
    form : {"markdown", "latex", "csv"}
        Of the text.
    results : Path
        The folder of the results.
    """
    path = results / FILE
    if not path.exists():
        raise NoTimesError(f"no times are in {path.name}: `python -m benchmarks.paper time` measures them")
    rows = [
        _row(row, published()[table])
        for row in json.loads(path.read_text(encoding="utf-8"))["rows"]
        if row["network"] in published()[table].get(row["dataset"], {})
    ]
    if not rows:
        raise NoTimesError(
            f"no network of {table} is in {path.name}: `python -m benchmarks.paper time --networks ...`"
        )
    if form == "csv":
        file = io.StringIO()
        csv.writer(file, lineterminator="\n").writerows([_HEADER, *rows])
        return file.getvalue()
    if form == "latex":
        lines = [r"\begin{tabular}{llrrrr}", r"\toprule", _tex(_HEADER), r"\midrule"]
        return "\n".join([*lines, *map(_tex, rows), r"\bottomrule", r"\end{tabular}"]) + "\n"
    lines = [" | ".join(row) for row in (_HEADER, ["---"] * len(_HEADER), *rows)]
    return "".join(f"| {line} |\n" for line in lines)


def _tex(row: Sequence[str]) -> str:
    return " & ".join(row).replace("×", r"$\times$") + r" \\"


def _row(measured: Mapping[str, Any], paper: Mapping[str, Any]) -> list[str]:
    theirs = paper[measured["dataset"]][measured["network"]]
    return [
        NETWORKS[measured["network"]],
        DATASETS[measured["dataset"]],
        _ratio(measured["training"]),
        _range(theirs, _TRAINING),
        _ratio(measured["inference"]),
        _range(theirs, _INFERENCE),
    ]


def _ratio(of: Mapping[str, float]) -> str:
    return f"{of['ratio']:.2f}×"


def _range(theirs: Mapping[str, Sequence[float]], which: int) -> str:
    ratios = [times[which] / theirs["none"][which] for name, times in theirs.items() if name != "none"]
    return f"{min(ratios):.2f}–{max(ratios):.2f}×"
