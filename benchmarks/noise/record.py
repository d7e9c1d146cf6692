"""A run as JSON: machine, versions, seed, command, and every time that was taken."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from benchmarks.measuring.machine import Machine
from benchmarks.measuring.source import commit
from benchmarks.noise.measurement import Result

FORMAT = 1


def run_record(
    machine: Machine, versions: dict[str, str], command: Sequence[str], **settings: Any
) -> dict[str, Any]:
    """What holds for a whole run."""
    return {
        "format": FORMAT,
        "command": shlex.join(["python", "-m", "benchmarks", *command]),
        "commit": commit(),
        "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": asdict(machine),
        "versions": versions,
        **settings,
    }


def problem_record(result: Result) -> dict[str, Any]:
    """One problem, with its rows and what was left out."""
    problem = result.problem
    return {
        "op": problem.op,
        "shape": list(problem.shape),
        "dtype": problem.dtype,
        "rows": [asdict(row) for row in result.rows],
        "left_out": result.left_out,
    }


def write(record: dict[str, Any], path: Path) -> None:
    """Write a record, one line per row at most."""
    path.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
