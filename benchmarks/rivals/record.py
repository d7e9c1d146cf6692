"""The record: a line of JSON for each finished run, appended at once, by any number of processes."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, fields
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from torch import nn

from benchmarks.measuring.keeping import claimed
from benchmarks.measuring.machine import this_machine, versions
from benchmarks.measuring.source import commit
from benchmarks.rivals.images import Split
from benchmarks.rivals.methods import Trained
from benchmarks.rivals.protocol import PROCEDURES, SUBJECTS, Run, digest, settings
from bmrs_torch.costs.counting import count_macs

PACKAGES = ("bmrs-pruning", "torch", "torch-pruning", "numpy", "numba")


class Record:
    """The finished runs in a file. Those whose settings, or whose method, have changed since don't count.

    Parameters
    ----------
    path : Path
        It need not exist yet.
    data : str
        Name of the images.

    Raises
    ------
    ValueError
        If a line of the file is something else than a run, or a run on other images.
    """

    def __init__(self, path: Path, data: str) -> None:
        self.path, self.data = path, data
        self.lines: dict[str, dict[str, Any]] = {}
        self.read()

    def read(self) -> None:
        """Read what is there now, other processes' runs, too."""
        text = self.path.read_text(encoding="utf-8") if self.path.exists() else ""
        whole = text[: text.rfind("\n") + 1]  # another process may be writing the last line
        for number, line in enumerate(whole.splitlines(), 1):
            try:
                found = json.loads(line)
                key, data = found["key"], found["data"]
                run = Run(**{field.name: found[field.name] for field in fields(Run)})
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(f"{self.path}, line {number}, is no run: {error!r}") from error
            if data != self.data:
                raise ValueError(
                    f"{self.path} holds runs on {data}, these are on {self.data}: name another file"
                )
            if run.network in SUBJECTS and run.method in PROCEDURES and key == key_of(run, data):
                self.lines[key] = found

    def find(self, run: Run) -> dict[str, Any] | None:
        """What came of a run, if it was made with the settings of today."""
        return self.lines.get(key_of(run, self.data))

    def add(self, run: Run, outcome: dict[str, Any], made_with: dict[str, Any]) -> None:
        """Append a run."""
        line = {
            "key": key_of(run, self.data),
            **settings(run, self.data),
            **outcome,
            "finished": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            **made_with,
        }
        text = json.dumps(line, ensure_ascii=False) + "\n"
        with self.held(), self.path.open("ab") as file:
            file.write(text.encode())
        self.lines[line["key"]] = line

    def held(self) -> AbstractContextManager[bool]:
        """Keep other processes from writing until a block ends."""
        return claimed(self.path.with_suffix(".part"), wait=True)


def key_of(run: Run, data: str) -> str:
    """The name of a run's settings."""
    return digest(settings(run, data))


def made_with(arguments: Sequence[str], module: str = "benchmarks.rivals") -> dict[str, Any]:
    """Command, commit, machine and versions."""
    return {
        "command": shlex.join(["python", "-m", module, *_without_places(arguments)]),
        "commit": commit(),
        "machine": asdict(this_machine()),
        "versions": versions(*PACKAGES),
        "threads": 1,
    }


def _without_places(arguments: Sequence[str]) -> list[str]:
    """What was asked for, but not where it lay on that machine."""
    words, kept = iter(arguments), []
    for word in words:
        name, _, value = word.partition("=")
        if name not in _PLACES:
            kept.append(word)
        elif not value:
            next(words, None)
    return kept


_PLACES = ("--scratch", "--data", "--record", "--results", "--weights", "--dask")


def sizes(found: Trained, images: Split) -> dict[str, Any]:
    """What is left of the network."""
    (macs, parameters), (macs_before, parameters_before) = (
        (count_macs(model.eval(), images.train.images[:1])[""], sum(p.numel() for p in model.parameters()))
        for model in (found.model, found.base)
    )
    return {
        "macs": macs,
        "macs_left": macs / macs_before,
        "parameters": parameters,
        "parameters_left": parameters / parameters_before,
        "widths": widths(found.model),
    }


def widths(model: nn.Module) -> dict[str, int]:
    """Outputs of each linear and convolution layer."""
    layers = (nn.Linear, nn.Conv2d)
    return {name: m.weight.shape[0] for name, m in model.named_modules() if isinstance(m, layers)}
