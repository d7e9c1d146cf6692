"""Time by size: every stage is measured, and the power by which it grows is the slope in logarithms."""

from __future__ import annotations

import pytest

from benchmarks.growth.command import table
from benchmarks.growth.measurement import STAGES, Growth, Size, exponent, measure


def test_each_stage_is_measured_and_has_its_column() -> None:
    found = [measure(Size(1, 8)), measure(Size(2, 8))]
    assert all(tuple(growth.seconds) == STAGES for growth in found)
    lines = table(found)
    assert lines[0].split()[-len(STAGES) :] == list(STAGES)
    assert len(lines) == 3


@pytest.mark.parametrize("power", [1.0, 2.0])
def test_the_power_is_that_of_the_size(power: float) -> None:
    small, large = (Growth(Size(n, 8), {"prune": 0.01 * n**power}) for n in (10, 1000))
    assert exponent(small, large, "prune") == pytest.approx(power)
