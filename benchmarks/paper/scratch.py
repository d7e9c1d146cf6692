"""What a run needs to go on after it was killed, in a scratch folder, on which no result depends."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from benchmarks.measuring.keeping import claimed
from benchmarks.paper.data import Split
from benchmarks.paper.training import Snapshot, Training, evaluate

_NOT_OF_TRAINING = {"method", "timing", "rule", "curves", "finetune_epochs", "epochs"}


def digest(of: Mapping[str, Any]) -> str:
    """A short name for settings: the same in every process, another for any other settings."""
    return hashlib.sha256(json.dumps(of, sort_keys=True).encode()).hexdigest()[:16]


def save(what: Any, path: Path) -> None:
    """Save tensors and plain numbers whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    torch.save(what, part)
    part.replace(path)


def load(path: Path) -> Any:
    """Read what :func:`save` wrote; None if there is nothing."""
    return torch.load(path, weights_only=True) if path.exists() else None


class Unpruned:
    """A network trained with noise and without pruning, as it was after each epoch.

    Until a method prunes for the first time its network is this one, to the bit, since it starts from the
    same seed; and all criteria after training judge the last of these. So it is trained once.

    Parameters
    ----------
    settings : mapping
        Of a run.
    split : Split
        Its images.
    folder : Path
        The scratch folder.
    weights : Path, optional
        A file that a large network starts from.
    """

    def __init__(
        self, settings: Mapping[str, Any], split: Split, folder: Path, weights: Path | None = None
    ) -> None:
        self.settings, self.split, self.weights = settings, split, weights
        known = {key: value for key, value in settings.items() if key not in _NOT_OF_TRAINING}
        self.folder = folder / f"unpruned-{digest({**known, 'sizes': split.sizes()})}"

    def at(self, epoch: int) -> tuple[Snapshot, dict[str, float]]:
        """The network after an epoch, from 1 on, and how it does on the validation images."""
        if not self._path(epoch).exists():
            with claimed(self.folder / "claim", wait=True):
                self._train(epoch)
        found = load(self._path(epoch))
        return found["snapshot"], found["validation"]

    def _train(self, until: int) -> None:
        done = max((e for e in range(1, until + 1) if self._path(e).exists()), default=0)
        training = Training(self.settings, self.split, self.weights)
        if done:
            training.restore(load(self._path(done))["snapshot"])
        for epoch in range(done + 1, until + 1):
            training.epoch(epoch - 1, self.settings["epochs"])
            validation = evaluate(training.model, self.split.validation)
            save({"snapshot": training.snapshot(), "validation": validation}, self._path(epoch))

    def _path(self, epoch: int) -> Path:
        return self.folder / f"epoch-{epoch:03}.pt"
