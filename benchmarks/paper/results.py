"""The results: one JSON for each run, written whole or not at all."""

from __future__ import annotations

import json
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from benchmarks.measuring.keeping import replace
from benchmarks.measuring.source import RESULTS, ROOT
from benchmarks.paper.experiments import Run

DEFAULT_FOLDER = ROOT / RESULTS / "paper"
FORMAT = 1


class Results:
    """A folder of results.

    Parameters
    ----------
    folder : Path
        It need not exist yet.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, run: Run) -> Path:
        """Where the result of a run lies."""
        return self.folder / f"{run.name}.json"

    def find(self, run: Run, settings: dict[str, Any]) -> dict[str, Any] | None:
        """The result of a run, if it was made with these settings."""
        path = self.path(run)
        if not path.exists():
            return None
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return found if found["format"] == FORMAT and found["settings"] == settings else None

    def add(
        self, run: Run, settings: dict[str, Any], outcome: dict[str, Any], made: dict[str, Any]
    ) -> dict[str, Any]:
        """Write the result of a run and return it as it is read again."""
        path = self.path(run)
        path.parent.mkdir(parents=True, exist_ok=True)
        whole = {"format": FORMAT, "run": asdict(run), "settings": settings, **outcome, "made": made}
        text = json.dumps(whole, ensure_ascii=False, separators=(",", ":"))
        replace(path, text + "\n")
        found: dict[str, Any] = json.loads(text)
        return found

    def read(self) -> list[tuple[Run, dict[str, Any]]]:
        """All results that are there."""
        names = {field.name for field in fields(Run)}
        found = []
        for path in sorted(self.folder.glob("*/*/*.json")):
            whole = json.loads(path.read_text(encoding="utf-8"))
            if whole.get("format") == FORMAT:
                found.append((Run(**{k: v for k, v in whole["run"].items() if k in names}), whole))
        return found
