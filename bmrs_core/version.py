"""The version of the distribution that this package is a part of."""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

__all__ = ["DISTRIBUTION", "distribution_version"]

DISTRIBUTION = "bmrs-pruning"
"""What is installed; its packages are imported by other names."""
UNKNOWN = "0+unknown"
_NAME_AND_VERSION = re.compile(r'^name = "([^"]+)"\nversion = "([^"]+)"', flags=re.MULTILINE)


def distribution_version(project: Path = Path(__file__).parents[1] / "pyproject.toml") -> str:
    """Version of the installed distribution, or of the source tree that is used without being installed.

    Parameters
    ----------
    project : Path
        The project file of that source tree, where there is one.

    Returns
    -------
    str
        ``"0+unknown"`` (lower than any release) for files that were copied out of both.

    Examples
    --------
    >>> import bmrs_core
    >>> bmrs_core.__version__ == distribution_version()
    True
    """
    try:
        return version(DISTRIBUTION)
    except PackageNotFoundError:
        return _version_in(project)


def _version_in(project: Path) -> str:
    try:
        text = project.read_text(encoding="utf-8")
    except OSError:
        return UNKNOWN
    # By a pattern: Python 3.10 has no tomllib. The name tells our file from any other that lies there.
    found = _NAME_AND_VERSION.search(text)
    return found[2] if found and found[1] == DISTRIBUTION else UNKNOWN
