"""Labels beside the points of a figure, where they cover neither points nor lines nor one another."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Label", "place_labels"]

_PLACES = (
    *((7, 0, "left"), (-7, 0, "right"), (0, 11, "center"), (0, -11, "center")),
    *((1, 11, "left"), (1, -11, "left"), (-1, 11, "right"), (-1, -11, "right")),
    *((0, 24, "center"), (0, -24, "center"), (14, 24, "left"), (14, -24, "left")),
    *((-14, 24, "right"), (-14, -24, "right"), (0, 37, "center"), (0, -37, "center")),
)
"""Of a label beside its point, in points; earlier ones are preferred."""

_POINT, _LINE = 8.0, 2.0
"""Half of the width in pixels of what a label should not cover."""


class Label(NamedTuple):
    """A text for a point.

    Parameters
    ----------
    point : tuple of float
        In the units of the axes.
    text, colour : str
        What to write, in which colour.
    bold : bool
        Whether it stands out.
    """

    point: tuple[float, float]
    text: str
    colour: str
    bold: bool


def place_labels(axes: Any, points: Iterable[tuple[float, float]], labels: Iterable[Label]) -> None:
    """Write labels on axes whose figure is laid out, in the order given: each where least is covered.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
        Its lines are kept clear too.
    points : iterable of tuple of float
        What is to be kept clear, in the units of the axes.
    labels : iterable of Label
        What to write.
    """
    from matplotlib.patheffects import withStroke

    to_pixels = axes.transData.transform
    taken = [_around(x, y, _POINT) for x, y in map(to_pixels, points)]
    for line in axes.lines:
        taken += [_around(x, y, _LINE) for x, y in _along(to_pixels(line.get_xydata()))]
    written: list[Any] = []
    for label in labels:
        text = axes.annotate(
            label.text,
            label.point,
            _PLACES[0][:2],
            fontsize=8,
            va="center",
            textcoords="offset points",
            color=label.colour,
            fontweight="bold" if label.bold else "normal",
            arrowprops={"arrowstyle": "-", "color": "0.6", "lw": 0.5, "shrinkA": 0, "shrinkB": 3},
            path_effects=[withStroke(linewidth=2, foreground="white")],
        )
        boxes = [_box_at(text, place) for place in _PLACES]
        leaders = [_leader(to_pixels(label.point), box) for box in boxes]
        covered = [
            _covered(box, taken, axes.bbox) + sum(_covered(part, written, axes.bbox) for part in leader)
            for box, leader in zip(boxes, leaders, strict=True)
        ]
        best = covered.index(min(covered))
        _move(text, _PLACES[best])
        written.append(boxes[best])
        taken += [boxes[best], *leaders[best]]


def _move(text: Any, place: tuple[float, float, str]) -> None:
    text.set_position(place[:2])
    text.set_horizontalalignment(place[2])


def _box_at(text: Any, place: tuple[float, float, str]) -> Any:
    from matplotlib.text import Text

    _move(text, place)
    text.update_positions(text.figure.canvas.get_renderer())
    return Text.get_window_extent(text)  # without the line to the point, which Annotation counts in


def _around(x: float, y: float, half: float) -> Any:
    from matplotlib.transforms import Bbox

    return Bbox.from_extents(x - half, y - half, x + half, y + half)


def _leader(point: NDArray[np.float64], box: Any) -> list[Any]:
    """What the line from a point to its label takes."""
    middle = ((box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2)
    on_the_way = [(x, y) for x, y in _along(np.array([point, middle])) if not box.contains(x, y)]
    return [_around(x, y, _LINE) for x, y in on_the_way]


def _along(corners: NDArray[np.float64]) -> NDArray[np.float64]:
    """Places on a line through corners, in pixels, as close as the boxes around them are wide."""
    if len(corners) < 2:
        return corners
    lengths = np.append(0.0, np.cumsum(np.hypot(*np.diff(corners, axis=0).T)))
    steps = np.arange(0.0, lengths[-1], 2 * _LINE)
    return np.stack([np.interp(steps, lengths, corners[:, axis]) for axis in range(2)], axis=1)


def _covered(box: Any, taken: Sequence[Any], frame: Any) -> float:
    """How much of a label lies on others, and outside of its panel, in pixels squared."""
    from matplotlib.transforms import Bbox

    on_others = sum(_area(Bbox.intersection(box, other)) for other in taken)
    return on_others + 2 * (_area(box) - _area(Bbox.intersection(box, frame)))


def _area(box: Any) -> float:
    return 0.0 if box is None else float(box.width * box.height)
