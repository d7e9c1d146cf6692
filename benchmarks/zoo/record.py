"""The record of a zoo: what it was made with and a row for each architecture, kept as it grows."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.measuring.machine import this_machine, versions
from benchmarks.noise.record import run_record
from benchmarks.zoo.architectures import ARCHITECTURES, source_of
from benchmarks.zoo.child import BMRS, TORCH_PRUNING
from benchmarks.zoo.measurement import BATCH, DEAD, OTHER_BATCH
from benchmarks.zoo.rival import METHOD

PACKAGES = ("bmrs-pruning", "torch", "torchvision", "timm", "transformers", "torch-pruning", "numpy")

_SAME = ("format", "commit", "machine", "versions", "seed", "dead")
"""Where two runs agree in these, their rows can stand in one record."""


def new_record(arguments: Sequence[str], seed: int) -> dict[str, Any]:
    """A record without rows."""
    started = run_record(this_machine(), versions(*PACKAGES), [])
    return started | {
        "command": shlex.join(["python", "-m", "benchmarks.zoo", *arguments]),
        "seed": seed,
        "dead": DEAD,
        "batches": [BATCH, OTHER_BATCH],
        "threads": 1,
        "torch_pruning_method": METHOD,
        "rows": [],
    }


def continued(path: Path, fresh: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The record in a file, if it was made with the same; else the fresh one, and in what they differ.

    Raises
    ------
    ValueError
        If the file holds something else than a record.
    """
    if not path.exists():
        return fresh, []
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        differing = [key for key in _SAME if found[key] != fresh[key]]
        found["rows"] = [row for row in found["rows"] if row["architecture"] in ARCHITECTURES]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is no record of the zoo ({type(error).__name__}: {error})") from error
    return (fresh, differing) if differing else (found, [])


def row_of(name: str, ours: dict[str, Any], rival: dict[str, Any]) -> dict[str, Any]:
    """What is known of one architecture."""
    architecture = ARCHITECTURES[name]
    return {
        "architecture": name,
        "of": source_of(name),
        "where": architecture.where,
        "goal": architecture.goal,
        "reached": None if architecture.goal is None else ours.get("share", 0.0) >= architecture.goal,
        BMRS: ours,
        TORCH_PRUNING: rival,
    }


def add(record: dict[str, Any], row: dict[str, Any]) -> None:
    """Put a row into a record in the order of the architectures, in the place of an older one."""
    order = list(ARCHITECTURES)
    others = [other for other in record["rows"] if other["architecture"] != row["architecture"]]
    record["rows"] = sorted([*others, row], key=lambda r: order.index(r["architecture"]))
