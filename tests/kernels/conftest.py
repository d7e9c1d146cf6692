"""Start the interpreter's runs with the session: they take minutes, and another core than this process."""

from __future__ import annotations

import pytest

from tests.kernels.gpu import interpreter_runs


def pytest_collection_finish(session: pytest.Session) -> None:
    """Start those that were collected."""
    if not session.config.option.collectonly:
        for item in session.items:
            if item.path.name == "test_interpreter.py" and (spec := getattr(item, "callspec", None)):
                interpreter_runs.start(spec.params["file"])


def pytest_sessionfinish() -> None:
    """Stop those that nobody waits for any more."""
    interpreter_runs.stop()
