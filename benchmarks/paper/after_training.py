"""Accuracy against compression of a trained network, by each criterion (paper, §5, Fig. 2, 3, 5, 6 and 7)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch.nn.functional as F
from scipy.stats import spearmanr

from benchmarks.measuring.keeping import replace as write
from benchmarks.paper import rules, scratch
from benchmarks.paper.counting import compression
from benchmarks.paper.data import Split
from benchmarks.paper.experiments import method
from benchmarks.paper.training import Training, evaluate
from bmrs_torch import scores

if TYPE_CHECKING:
    from numpy.typing import NDArray

_GRADIENT_BATCHES = 50


class Curves:
    """The points of all curves of one network: each is fine-tuned for an epoch from the trained network.

    Parameters
    ----------
    settings : mapping
        Of the run.
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
        self.training = Training(settings, split, weights)
        self.inputs = split.train.batch(slice(0, 2))[0].to(self.training.device)
        unpruned = scratch.Unpruned(settings, split, folder, weights)
        self.trained, self.validation = unpruned.at(settings["epochs"])
        name = scratch.digest({**settings, "sizes": split.sizes()})
        self.path = folder / f"points-{name}.json"
        self.points: dict[str, dict[str, Any]] = {}
        if self.path.exists():
            self.points = json.loads(self.path.read_text(encoding="utf-8"))
        self.training.restore(self.trained)
        self.wanted: dict[str, Any] = settings["curves"]

    def outcome(self) -> dict[str, Any]:
        """All curves, the marks where each rule ends, the tolerances of BMRS_N and the correlations."""
        model = self.training.model
        criteria = self.wanted["criteria"]
        self._gradients()
        order = {name: rules.order(model, method(name), self.inputs) for name in criteria}
        values = np.concatenate(list(scores(model, "bmrs_n").values()))
        self.training.optimizer.zero_grad()
        rule = {
            name: rules.superfluous(model, method(name))
            for name in criteria
            if method(name).limit is not None
        }
        curves = {name: self._curve(ranks, rule.get(name), name) for name, ranks in order.items()}
        tolerances = self.wanted["tolerances"]
        found = {
            "unpruned": {"validation": self.validation},
            "curves": curves,
            "marks": {name: self._point(goes) for name, goes in rule.items()},
            "tolerances": [{"tolerance": t, **self._point(values >= -t)} for t in tolerances],
            "spearman": {"criteria": criteria, "rho": _correlations(list(order.values()))},
            "delta_f_n": [float(f"{value:.5g}") for value in np.sort(values)],
        }
        self.path.unlink(missing_ok=True)
        return found

    def _curve(
        self, ranks: NDArray[np.int64], rule: NDArray[np.bool_] | None, name: str
    ) -> list[dict[str, Any]]:
        most = int(rule.sum()) if rule is not None and name.startswith("bmrs") else len(ranks)
        numbers = [number for level in self.wanted["levels"] if (number := round(level * len(ranks))) <= most]
        return [self._point(ranks < number) for number in numbers]

    def _point(self, goes: NDArray[np.bool_]) -> dict[str, Any]:
        """The network without these structures, fine-tuned for an epoch; computed once for each such set."""
        name = hashlib.sha256(np.packbits(goes).tobytes()).hexdigest()[:20]
        if name not in self.points:
            training = self.training
            training.restore(self.trained)
            rules.close(training.model, goes)
            training.epoch(shuffled=False)
            self.points[name] = {
                "gone": int(goes.sum()),
                "compression": asdict(compression(training.model, self.inputs)),
                "accuracy": evaluate(training.model, training.split.test)["accuracy"],
            }
            write(self.path, json.dumps(self.points))
        return self.points[name]

    def _gradients(self) -> None:
        """Leave the gradient of the misfit of the first minibatches in the parameters."""
        training = self.training
        training.model.eval()
        training.optimizer.zero_grad()
        batch = training.settings["batch"]
        for start in range(0, min(_GRADIENT_BATCHES * batch, len(training.split.train)), batch):
            found = training.split.train.batch(slice(start, start + batch))
            inputs, labels = (t.to(training.device) for t in found)
            F.cross_entropy(training.model(inputs), labels).backward()


def _correlations(orders: list[NDArray[np.int64]]) -> list[list[float]]:
    rho = spearmanr(np.stack(orders), axis=1).statistic
    return [[round(float(value), 4) for value in row] for row in rho]
