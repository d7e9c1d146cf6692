"""A table of plain text, the first column to the left, the others to the right."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

__all__ = ["text_table"]

GAP = "  "


def text_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lay rows out in columns, with a line below the headings.

    Parameters
    ----------
    headings : sequence of str
        One for each column, empty where there is nothing to say.
    rows : sequence of sequence of str
        As long as the headings each.

    Returns
    -------
    str
        Lines without blanks at their ends, as long as they have to be.

    Examples
    --------
    >>> from bmrs_torch.reporting.text_table import text_table
    >>> print(text_table(["layer", "MACs"], [["conv1", "1,176"], ["fc", "84"]]))
    layer   MACs
    ────────────
    conv1  1,176
    fc        84
    """
    lines = [list(headings), *map(list, rows)]
    widths = [max(map(_width, column)) for column in zip(*lines, strict=True)]
    text = [GAP.join(map(_padded, line, widths, range(len(widths)))).rstrip() for line in lines]
    text.insert(1, "─" * (sum(widths) + len(GAP) * (len(widths) - 1)))
    return "\n".join(text)


def _padded(cell: str, width: int, column: int) -> str:
    blanks = " " * (width - _width(cell))
    return blanks + cell if column else cell + blanks


def _width(text: str) -> int:
    """Columns of a terminal that a text takes."""
    wide = sum(unicodedata.east_asian_width(letter) in "WF" for letter in text)
    return len(text) + wide - sum(bool(unicodedata.combining(letter)) for letter in text)
