"""The page and the figures of a record, beside it."""

from __future__ import annotations

from benchmarks.measuring.keeping import replace
from benchmarks.rivals.figure import draw
from benchmarks.rivals.record import Record
from benchmarks.rivals.table import page


def publish(record: Record) -> None:
    """Write them anew from what the record holds now, other processes' runs included."""
    with record.held():
        record.read()
        replace(record.path.with_suffix(".md"), page(record))
        draw(record, record.path.parent)
