"""Settings for the whole suite: what makes its runs repeatable."""

import os
from pathlib import Path

from hypothesis import settings

# Figures are drawn into files; without this, matplotlib looks for a screen.
os.environ.setdefault("MPLBACKEND", "Agg")

# No deadline: the first call of a compiled function includes its compilation. On CI the examples are drawn
# from a fixed seed, so that a change fails for its own faults; at a desk new ones are tried each time.
settings.register_profile("desk", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "desk")


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Look for doctests in the packages, not in the tests' helpers: some import what may be missing."""
    is_helper = collection_path.suffix == ".py" and not collection_path.name.startswith("test_")
    return True if is_helper else None
