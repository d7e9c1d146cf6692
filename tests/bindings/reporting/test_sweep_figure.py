"""The figure of a sweep, and the knee that it marks."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from bmrs_torch import Sweep, SweepRow, draw_sweep
from bmrs_torch.reporting.canvas import canvas
from bmrs_torch.reporting.draw_sweep import _floor
from bmrs_torch.reporting.knee import front_of, knee_of
from bmrs_torch.reporting.labels import Label, place_labels


def test_the_knee_is_the_point_furthest_above_the_chord() -> None:
    # Scaled: (0, 0), (0.25, 0.5), (0.5, 0.9), (1, 1): 0, 0.25, 0.4 and 0 above.
    assert knee_of([10, 20, 30, 50], [0.0, 0.5, 0.9, 1.0]) == 2
    # Units and order don't matter, nor what is worse than something cheaper.
    assert knee_of([5000, 3000, 2000, 1000, 4000], [2.0, 1.8, 1.0, 0.0, 1.7]) == 1


def test_there_is_no_knee_without_a_bend_or_with_two_points() -> None:
    assert knee_of([1, 2], [0.1, 0.9]) is None
    assert knee_of([1, 2, 3], [0.0, 0.5, 1.0]) is None
    assert knee_of([1, 2, 3], [0.0, 0.2, 1.0]) is None
    assert knee_of([1, 2, 3], [1.0, 0.5, 0.2]) is None
    assert front_of([3, 1, 2, 2], [0.9, 0.5, 0.5, 0.7]) == [1, 3, 0]


def rows_of(points: dict[str, tuple[int, float]]) -> tuple[SweepRow, ...]:
    return tuple(
        SweepRow(label, None, parameters=cost, macs=cost**2, file_bytes=4 * cost, metrics={"accuracy": value})
        for label, (cost, value) in points.items()
    )


SWEPT = Sweep(
    "kl_weight",
    rows_of({"unpruned": (100, 0.95), "1": (60, 0.95), "3": (40, 0.94), "10": (20, 0.92), "30": (2, 0.1)}),
    {},
)


def test_the_knee_depends_on_what_is_saved() -> None:
    """By parameters 0.3 lies 0.19 above the chord and 0.7 lies 0.14, by their squares 0.27 and 0.35."""
    points = {"unpruned": (100, 1.0), "1": (60, 0.7), "3": (20, 0.3), "9": (10, 0.0)}
    found = Sweep("kl_weight", rows_of(points), {})
    by_parameters, by_macs = found.knee("parameters"), found.knee("macs")
    assert (by_parameters, by_macs) == (found.rows[2], found.rows[1])
    with pytest.raises(
        ValueError, match="cost must be one of 'parameters', 'macs', 'file_bytes', got 'size'"
    ):
        SWEPT.knee("size")  # type: ignore[arg-type]


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_a_sweep_is_drawn(suffix: str, tmp_path: Path) -> None:
    draw_sweep(SWEPT, tmp_path / f"sweep.{suffix}")
    assert (tmp_path / f"sweep.{suffix}").stat().st_size > 2000


def labels_of(found: Sweep, path: Path, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The texts beside the points of each panel."""
    told: list[list[str]] = []
    module = sys.modules["bmrs_torch.reporting.draw_sweep"]
    monkeypatch.setattr(
        module, "place_labels", lambda *given: told.append([label.text for label in given[2]])
    )
    draw_sweep(found, path)
    return told


def test_every_network_has_its_setting_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    panels = labels_of(SWEPT, tmp_path / "x.png", monkeypatch)
    assert panels == [["10 (knee)", "unpruned", "1", "3", "30: 0.1"]] * 2


def test_a_failed_setting_has_no_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = (SWEPT.rows[0], SweepRow("5", 5.0, failed="ValueError: no"))
    panels = labels_of(Sweep("kl_weight", rows, {}), tmp_path / "x.png", monkeypatch)
    assert panels == [["unpruned"]] * 2


def test_networks_far_below_all_others_do_not_set_the_scale() -> None:
    assert 0.9 < _floor([0.95, 0.94, 0.92, 0.1]) < 0.92
    assert 0.8 < _floor([0.95, 0.94, 0.93, 0.85, 0.1]) < 0.85
    # No fall, under one alone, under none that differ, and one that is little beside the rest.
    for alike in ([0.95, 0.9, 0.8, 0.6], [0.9, 0.1, 0.1], [0.9, 0.9, 0.9, 0.1], [0.7, 0.7, 0.69, 0.6, 0.4]):
        assert _floor(alike) == -float("inf")


def test_labels_cover_no_points_and_not_one_another(tmp_path: Path) -> None:
    points = [(1.0, 1.0), (1.02, 1.0), (1.0, 1.02), (1.03, 1.02), (2.0, 2.0), (0.0, 0.0)]
    with canvas(tmp_path / "labels.png", "labels", height=4) as (axes,):
        axes.scatter(*zip(*points, strict=True), s=4)
        axes.figure.draw_without_rendering()
        place_labels(
            axes, points, [Label(point, f"label {i}", "black", False) for i, point in enumerate(points)]
        )
        boxes = [super(type(text), text).get_window_extent() for text in axes.texts]
        places = axes.transData.transform(points)
    for number, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[:number])
        assert not any(box.contains(*place) for place in places)


def test_only_a_sweep_is_drawn_and_it_takes_matplotlib(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(TypeError, match=r"sweep must be what bmrs_torch.sweep found, got 3"):
        draw_sweep(3, tmp_path / "x.png")  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match="figures need matplotlib"):
        draw_sweep(SWEPT, tmp_path / "x.png")
