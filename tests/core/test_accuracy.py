"""Every quantity against correctly rounded values, with the bounds of `truth_tables.QUANTITIES`."""

from __future__ import annotations

import numpy as np
import pytest

from .accuracy_table import achieved
from .table_answers import cached_answer
from .truth_tables import QUANTITIES, VARIANCE_BY_ITS_PARTS, Quantity, Score, Table, score, tables

EVERY_TABLE = pytest.mark.parametrize("table", tables(), ids=lambda table: table.name.replace(" ", "-"))
EVERY_QUANTITY = pytest.mark.parametrize("quantity", QUANTITIES, ids=lambda quantity: quantity.column)


def scored(table: Table, quantity: Quantity) -> Score:
    result = score(table, quantity, cached_answer(table.domain, table.dtype.name, quantity.column))
    achieved[quantity.name, table.name] = result
    return result


@EVERY_TABLE
@EVERY_QUANTITY
def test_error_is_within_its_bound(table: Table, quantity: Quantity) -> None:
    result = scored(table, quantity)
    assert result.not_finite == 0
    if quantity.worst is not None:
        assert result.worst <= quantity.worst
    if quantity.p99 is not None:
        assert result.p99 <= quantity.p99


@EVERY_TABLE
def test_the_variance_errs_only_where_its_parts_are_ill_conditioned(table: Table) -> None:
    computed = cached_answer(table.domain, table.dtype.name, "Var")
    bound = VARIANCE_BY_ITS_PARTS.worst
    assert bound is not None
    assert score(table, VARIANCE_BY_ITS_PARTS, computed).worst <= bound


@EVERY_TABLE
@pytest.mark.parametrize("column", ["dF_N", "dF_U"])
def test_no_pruning_decision_is_wrong(table: Table, column: str) -> None:
    quantity = next(q for q in QUANTITIES if q.column == column)
    assert scored(table, quantity).wrong_signs == 0


@EVERY_TABLE
@EVERY_QUANTITY
def test_no_row_is_nan_even_where_the_value_under_or_overflows(table: Table, quantity: Quantity) -> None:
    assert not np.isnan(cached_answer(table.domain, table.dtype.name, quantity.column)).any()


@EVERY_TABLE
@EVERY_QUANTITY
def test_answers_keep_the_precision_of_the_question(table: Table, quantity: Quantity) -> None:
    assert cached_answer(table.domain, table.dtype.name, quantity.column).dtype == table.dtype


@EVERY_TABLE
@EVERY_QUANTITY
def test_a_value_too_small_for_the_precision_is_small(table: Table, quantity: Quantity) -> None:
    column = table.columns[f"flag{8 * table.dtype.itemsize}_{quantity.column}"]
    answer = np.abs(cached_answer(table.domain, table.dtype.name, quantity.column).astype(np.float64))
    smallest = float(np.finfo(table.dtype).smallest_normal)
    # A value below the smallest normal number may be rounded up to it, by as many roundings as a normal one
    # may be off.
    assert (answer[column == 1] <= smallest * (1 + 1024 * float(np.finfo(table.dtype).eps))).all()
