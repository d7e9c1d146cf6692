"""A run as JSON: machine, versions, seed, command, what happened, what came of it."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from typing import Any

from benchmarks.fashion.after_training import AfterTraining
from benchmarks.fashion.training import Course, FashionSettings
from benchmarks.measuring.machine import this_machine, versions
from benchmarks.measuring.source import commit
from bmrs_torch import Comparison

PACKAGES = ("torch", "numpy", "numba")


def make_record(
    settings: FashionSettings,
    arguments: Sequence[str],
    data_name: str,
    training: list[dict[str, Any]],
    course: Course,
    comparison: Comparison,
    after_training: AfterTraining | None,
) -> dict[str, Any]:
    """Put everything together that somebody needs to believe, or to repeat, a run."""
    before, after = (cost.metrics["test accuracy"] for cost in (comparison.before, comparison.after))
    return {
        "command": shlex.join(["python", "-m", "benchmarks.fashion", *arguments]),
        "commit": commit(),
        "finished": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": asdict(this_machine()),
        "versions": versions(*PACKAGES),
        "data": data_name,
        "settings": asdict(settings),
        "rule": course.decisions[-1].rule,
        "masked_to_shrunk_relative_difference": course.difference,
        "accuracy_points_lost": 100 * (before - after),
        "latency_ratio": comparison.speedup,
        "epochs": training + course.epochs,
        "comparison": comparison.to_json(),
        "after_training": None if after_training is None else asdict(after_training),
    }
