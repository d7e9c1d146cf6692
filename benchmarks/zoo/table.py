"""The record as a page of Markdown."""

from __future__ import annotations

import textwrap
from typing import Any

from benchmarks.measuring.machine import Machine
from benchmarks.zoo.architectures import ARCHITECTURES
from benchmarks.zoo.child import BMRS, TORCH_PRUNING

EXACT = {"float64": 1e-9, "float64 in part": 1e-5, "float32": 1e-5}
"""Largest relative difference of a network that was cut right: only sums in another order and, where the
network rounds to float32, its rounding."""

_WIDTH = 120
_HEAD = (
    "architecture, of",
    "where",
    "parameters",
    "noise layers, structures",
    "gone, %",
    "goal, %",
    "difference",
    "another batch size",
    "plan, s",
    "compact, s",
    "T-P: gone, %",
    "T-P: exact",
    "T-P: s",
)


def page(record: dict[str, Any]) -> str:
    """All of it."""
    rows = record["rows"]
    return "\n".join(
        [
            "# What can be pruned",
            "",
            *_introduction(record),
            "",
            *_summary(rows),
            "",
            "| " + " | ".join(_HEAD) + " |",
            "|---" * 2 + "|---:" * (len(_HEAD) - 2) + "|",
            *("| " + " | ".join(_cells(row)) + " |" for row in rows),
            "",
            "## What stayed, and why",
            "",
            *_paragraphs(_REASONS),
            "",
            *(line for row in rows for line in _reasons(row)),
            "",
        ]
    )


_INTRODUCTION = """\
Small networks with every part of the real ones and random parameters (seed {seed}): noise is put in
(`where`), {percent:.0f} % of the structures of each noise layer are closed at random, `compact` and
`fold` are run on an example of batch size {first}, and the plain network that is left is compared with
the masked one on that example and on another of {other}, in float64 where the network computes in it
(\\* norms or experts of it round to float32 whatever they are given). *Gone*: share of the parameters.
*Goal*: share that should go; ✓ reached, ✗ not yet. *Plan*, *compact*: seconds of `plan_insertion` and
`compact`. `where="auto"` leaves residual streams whole, `"streams"` prunes them, too."""
_RIVAL = """\
*T-P*: Torch-Pruning on the same networks. {method} So *exact* says that what reads a removed channel
lost just that channel. A normalisation (LayerNorm, GroupNorm) over fewer channels or a factor computed
from their number gives another answer, which fine-tuning may mend; bmrs leaves such structures and says
so. Torch-Pruning prunes residual streams always; an output with fewer entries has another shape."""
_MADE = """\
`{command}`, commit {commit}, {started}; {machine}, {threads} thread; {versions}. Everything, errors
included, is in the JSON beside this page."""
_SUMMARY = """\
{rows} of {entries} entries of the zoo: {ran} ran, {exact} of them exact; {bare} got no noise; {reached}
of {goals} goals reached. Torch-Pruning: {rival_ran} ran, {rival_exact} exact."""
_REASONS = """\
Closed gates whose structures had to stay, and layers that got no noise; ‹…› stands for the name of a
layer, the name in brackets is that of the first."""


def _introduction(record: dict[str, Any]) -> list[str]:
    first, other = record["batches"]
    told = ", ".join(f"{name} {number}" for name, number in record["versions"].items())
    return _paragraphs(
        _INTRODUCTION.format(**record, percent=100 * record["dead"], first=first, other=other),
        _RIVAL.format(method=record["torch_pruning_method"]),
        _MADE.format(**{**record, "machine": Machine(**record["machine"]), "versions": told}),
    )


def _summary(rows: list[dict[str, Any]]) -> list[str]:
    goals = [row for row in rows if row["goal"] is not None]
    numbers = {
        "rows": len(rows),
        "entries": len(ARCHITECTURES),
        "ran": sum("error" not in row[BMRS] for row in rows),
        "exact": sum(is_exact(row[BMRS]) for row in rows),
        "bare": sum(row[BMRS].get("noise_layers") == 0 for row in rows),
        "reached": sum(row["reached"] for row in goals),
        "goals": len(goals),
        "rival_ran": sum("error" not in row[TORCH_PRUNING] for row in rows),
        "rival_exact": sum(map(rival_is_exact, rows)),
    }
    return _paragraphs(_SUMMARY.format(**numbers))


def _paragraphs(*texts: str) -> list[str]:
    lines: list[str] = []
    for text in texts:
        lines += [*textwrap.wrap(text, _WIDTH, break_long_words=False, break_on_hyphens=False), ""]
    return lines[:-1]


def is_exact(ours: dict[str, Any]) -> bool:
    """Whether a network of ours answers as the masked one did, on both inputs; with no noise it is itself."""
    if "error" in ours:
        return False
    limit = EXACT[ours["dtype"]]
    found = (ours["difference"], ours["difference_other_batch"])
    return ours["noise_layers"] == 0 or all(value is not None and value <= limit for value in found)


def rival_is_exact(row: dict[str, Any]) -> bool:
    """The same of Torch-Pruning, by the same limit."""
    rival, limit = row[TORCH_PRUNING], EXACT[row[BMRS].get("dtype", "float32")]
    found = (rival.get("difference"), rival.get("difference_other_batch"))
    return all(value is not None and value <= limit for value in found)


def _cells(row: dict[str, Any]) -> list[str]:
    name = f"{row['architecture']}, {row['of']}"
    return [name, row["where"], *_our_cells(row), *_rival_cells(row)]


def _our_cells(row: dict[str, Any]) -> list[str]:
    ours, goal = row[BMRS], row["goal"]
    wanted = "" if goal is None else f"{100 * goal:.0f} {'✓' if row['reached'] else '✗'}"
    if "error" in ours:
        return ["", "", "fails", wanted, _cell(ours["error"]), "", "", ""]
    rounded = "" if ours["dtype"] == "float64" else " \\*"
    return [
        f"{ours['parameters']:,}",
        f"{ours['noise_layers']}, {ours['structures']:,}",
        f"{100 * ours['share']:.1f}",
        wanted,
        _difference(ours["difference"]) + rounded,
        _difference(ours["difference_other_batch"]),
        _seconds(ours["plan_seconds"]),
        _seconds(ours["compact_seconds"]),
    ]


def _rival_cells(row: dict[str, Any]) -> list[str]:
    rival = row[TORCH_PRUNING]
    if "error" in rival:
        return ["fails", _cell(rival["error"]), ""]
    if rival["difference"] is None:
        exact = "another shape"
    else:
        worst = max(rival["difference"], rival["difference_other_batch"] or 0.0)
        exact = "yes" if rival_is_exact(row) else f"no, {_difference(worst)}"
    return [f"{100 * rival['share']:.1f}", exact, _seconds(rival["seconds"])]


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _difference(value: float | None) -> str:
    return "–" if value is None else "0" if value == 0 else f"{value:.0e}"


def _seconds(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _reasons(row: dict[str, Any]) -> list[str]:
    ours = row[BMRS]
    lines = [
        f"  - {r['structures']} closed, kept: {r['reason']} ({r['first']})" for r in ours.get("stayed", ())
    ]
    lines += [
        f"  - {r['layers']} layer{'s' if r['layers'] > 1 else ''} without noise: {r['reason']} ({r['first']})"
        for r in ours.get("passed_over", ())
    ]
    return [f"- **{row['architecture']}**", *lines] if lines else []
