"""Deterministic Hypothesis runs, and the measured errors printed at the end of a session."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from hypothesis import settings

from .accuracy_table import achieved, lines

if TYPE_CHECKING:
    import pytest

# The same examples every time, so that a failure is the change's and not the draw's.
# BMRS_HYPOTHESIS=explore draws new ones.
settings.register_profile("repeat", derandomize=True, deadline=None, max_examples=60, database=None)
settings.register_profile("explore", deadline=None, max_examples=1000)
settings.load_profile(os.environ.get("BMRS_HYPOTHESIS", "repeat"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not achieved:
        return
    terminalreporter.section("accuracy against the reference tables")
    for line in lines(achieved):
        terminalreporter.write_line(line)
