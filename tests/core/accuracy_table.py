"""The table of achieved errors, collected while the accuracy tests run."""

from __future__ import annotations

from collections.abc import Mapping

from .truth_tables import Score

Scores = dict[tuple[str, str], Score]

achieved: Scores = {}
"""Scores by (quantity, table name), filled by the accuracy tests."""


def cell(score: Score) -> str:
    """One score in a few characters: 99th percentile and worst, and what went wrong if anything did."""
    text = f"{short(score.p99)} / {short(score.worst)}"
    return text + (f" ({score.not_finite} not finite)" if score.not_finite else "")


def short(value: float) -> str:
    """Three significant digits without trailing noise."""
    return f"{value:.2f}" if value < 10 else f"{value:.0f}" if value < 1e4 else f"{value:.0e}"


def lines(scores: Mapping[tuple[str, str], Score]) -> list[str]:
    """The table as markdown, one row per quantity and one column per reference table."""
    quantities = list(dict.fromkeys(quantity for quantity, _ in scores))
    tables = list(dict.fromkeys(table for _, table in scores))
    rows = [
        [name, *(cell(scores[name, table]) if (name, table) in scores else "–" for table in tables)]
        for name in quantities
    ]
    return [
        "Relative error in eps·max(1, κ): 99th percentile / worst row.",
        "",
        "| " + " | ".join(["quantity", *tables]) + " |",
        "|---" * (1 + len(tables)) + "|",
        *("| " + " | ".join(row) + " |" for row in rows),
    ]
