"""Finished rows of a sweep on disk, so that a second call goes on where the first one ended."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bmrs_torch.reporting.sweep_result import UNPRUNED, SweepRow
from bmrs_torch.shipping import LayoutError, load_pruned, save_pruned
from bmrs_torch.shipping.writing import write

__all__ = ["SweepFolder", "described_setting", "fingerprint"]

_FILE = "sweep.json"


class SweepFolder:
    """Rows that are kept: one JSON file of all, and the network of each.

    Parameters
    ----------
    path : path-like
        Made if it isn't there.
    dial : str
        What is turned.
    settings : dict
        What else decides the result, in plain values.

    Raises
    ------
    ValueError
        If it holds rows of a sweep with other settings, or a file that isn't a sweep's.
    """

    def __init__(self, path: str | os.PathLike[str], dial: str, settings: dict[str, Any]) -> None:
        self._folder, self._dial, self._settings = Path(path), dial, settings
        self._folder.mkdir(parents=True, exist_ok=True)
        self._rows: dict[str, dict[str, Any]] = {}
        if (self._folder / _FILE).exists():
            self._rows = self._read(self._folder / _FILE)

    def row(self, label: str, model: nn.Module) -> SweepRow | None:
        """The row of this label, if it is kept, with its network; `model` is the unpruned one, plain."""
        kept, file = self._rows.get(label), self._network(label)
        if kept is None or not (label == UNPRUNED or file.is_file()):
            return None
        row = SweepRow(**{**kept, "notes": tuple(kept["notes"])}, model=model)
        if label == UNPRUNED:
            return row
        try:
            return dataclasses.replace(row, model=load_pruned(copy.deepcopy(model), file))
        except LayoutError as error:
            why = f"its network is in {file} and isn't loaded here, being made of other modules: {error}"
            return dataclasses.replace(row, model=None, notes=(*row.notes, why))

    def keep(self, row: SweepRow) -> None:
        """Write a row that is finished; one that failed is to be tried again."""
        if row.failed is not None:
            return
        if row.label != UNPRUNED and row.model is not None:
            save_pruned(row.model, self._network(row.label))
        self._rows[row.label] = row.to_json()
        content = {"dial": self._dial, "settings": self._settings, "rows": list(self._rows.values())}
        write(self._folder / _FILE, (json.dumps(content, indent=1) + "\n").encode())

    def _network(self, label: str) -> Path:
        return self._folder / f"{self._dial}-{re.sub(r'[^A-Za-z0-9.=+-]+', '_', label)}.safetensors"

    def _read(self, file: Path) -> dict[str, dict[str, Any]]:
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
            settings = {"dial": content["dial"], **content["settings"]}
            rows = {row["label"]: row for row in content["rows"]}
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{file} is not what a sweep keeps there: name another folder") from error
        ours = {"dial": self._dial, **self._settings}
        differences = list(_differences(settings, ours))
        if differences:
            raise ValueError(
                f"{file} is of a sweep with other settings, whose rows can't stand beside these: "
                f"{'; '.join(differences)}. Name another folder, or ask for what it holds"
            )
        return rows


def _differences(kept: Any, asked: Any, name: str = "") -> Iterator[str]:
    if isinstance(kept, Mapping) and isinstance(asked, Mapping):
        for key in dict.fromkeys([*kept, *asked]):
            yield from _differences(kept.get(key), asked.get(key), f"{name}.{key}" if name else str(key))
    elif kept != asked:
        yield f"{name} was {kept!r:.60} and is {asked!r:.60}"


def described_setting(value: Any) -> Any:
    """A setting in plain values that are the same in another process; of data and networks a fingerprint."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Mapping):
        return {str(key): described_setting(part) for key, part in value.items()}
    if isinstance(value, (tuple, list)):
        return [described_setting(part) for part in value]
    if isinstance(value, (Tensor, nn.Module)):
        return f"{type(value).__name__} {fingerprint(value)}"
    if isinstance(value, Callable):  # type: ignore[arg-type]
        return f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', type(value).__name__)}"
    return repr(value) if dataclasses.is_dataclass(value) else type(value).__name__


def fingerprint(value: Tensor | nn.Module) -> str:
    """What tells a tensor, or the state of a network, from others: a hash of names, shapes and bits."""
    tensors = {"": value} if isinstance(value, Tensor) else value.state_dict()
    digest = hashlib.sha256()
    for name, tensor in tensors.items():
        if isinstance(tensor, Tensor):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]
