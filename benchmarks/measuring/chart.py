"""The frame of the benchmarks' bar charts."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

GREY = "#666666"


@contextlib.contextmanager
def bar_chart(panels: int, title: str, path: Path, *, height: float = 2.5) -> Iterator[list[Any]]:
    """Give the axes of panels below each other; what was drawn on them is a PNG file when the block ends.

    Parameters
    ----------
    panels : int
        How many.
    title : str
        Of the whole figure.
    path : Path
        Where to write it.
    height : float
        Of each panel, in inches.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    style: Any = {
        "font.size": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.titlelocation": "left",
    }
    with plt.rc_context(style):
        figure, grid = plt.subplots(
            panels, squeeze=False, figsize=(9, 0.6 + height * panels), layout="constrained"
        )
        yield list(grid[:, 0])
        figure.suptitle(title, x=0.01, ha="left", fontweight="bold", fontsize=10)
        figure.savefig(path, dpi=130)
        plt.close(figure)
