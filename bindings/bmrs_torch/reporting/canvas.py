"""What all figures have in common: colours, axes without a screen, a file in the end."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

__all__ = ["BLUE", "GREY", "ORANGE", "canvas"]

BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#666666"  # Okabe and Ito: told apart in any colour vision


@contextlib.contextmanager
def canvas(
    path: str | os.PathLike[str], title: str, *, height: float, panels: int = 1
) -> Iterator[tuple[Any, ...]]:
    """Give axes, one of each panel; what was drawn on them is in the file when the block ends.

    Parameters
    ----------
    path : path-like
        Where to write it; the suffix says as what.
    title : str
        Of the figure.
    height : float
        In inches; the width is 8.
    panels : int
        How many, side by side, with one vertical axis.

    Raises
    ------
    ImportError
        Without matplotlib.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("figures need matplotlib: pip install 'bmrs-pruning[report]'") from error
    figure = Figure(figsize=(8, height), layout="constrained")
    FigureCanvasAgg(figure)
    all_axes: tuple[Any, ...] = tuple(figure.subplots(1, panels, sharey=True, squeeze=False)[0])
    all_axes[0].set_title(title, loc="left", fontweight="bold")
    for axes in all_axes:
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_axisbelow(True)
    yield all_axes
    figure.savefig(path, dpi=150)
