"""Algorithm 1: a network pruned after every epoch of its training, then fine-tuned (paper, Table 1)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.paper import rules, scratch
from benchmarks.paper.counting import compression
from benchmarks.paper.data import Split
from benchmarks.paper.experiments import Method
from benchmarks.paper.networks import LARGE
from benchmarks.paper.training import Training, evaluate
from bmrs_torch import noise_layers, scores


def continuous(
    settings: Mapping[str, Any],
    method: Method,
    split: Split,
    folder: Path,
    number: int | None,
    weights: Path | None = None,
) -> dict[str, Any]:
    """Train, prune and fine-tune a network, going on where an earlier process was killed.

    Parameters
    ----------
    settings : mapping
        Of the run.
    method : Method
        What decides.
    split : Split
        The images.
    folder : Path
        The scratch folder.
    number : int or None
        How many structures go, for a method that goes by the number of another.
    weights : Path, optional
        A file that a large network starts from.

    Returns
    -------
    dict
        What came of it: per cent and nats. Of the epochs of fine-tuning the one that is best on the
        validation images is judged by the test images, as in the released code.
    """
    training = Training(settings, split, weights)
    path = folder / f"run-{scratch.digest({**settings, 'sizes': split.sizes(), 'number': number})}.pt"
    state = scratch.load(path)
    if state is None:
        state = _begun(training, method, folder, number, weights)
    else:
        training.restore(state["snapshot"])
    last, total = settings["epochs"], settings["epochs"] + settings["finetune_epochs"]
    for epoch in range(len(state["history"]) + 1, total + 1):
        if epoch <= last:
            training.epoch(epoch - 1, last)
            _prune(training, method, epoch, number)
        else:
            training.epoch(epoch - last - 1, settings["finetune_epochs"])
        _note(state, training, evaluate(training.model, split.validation), finetuning=epoch > last)
        if epoch == last:
            state["evidence"] = _evidence(training)
        state["snapshot"] = training.snapshot()
        scratch.save(state, path)
    outcome = _outcome(state, training)
    path.unlink(missing_ok=True)
    return outcome


def _begun(
    training: Training, method: Method, folder: Path, number: int | None, weights: Path | None
) -> dict[str, Any]:
    """The run after the first epoch in which it prunes: before, it is a network that nobody pruned."""
    state: dict[str, Any] = {"history": [], "best": None, "evidence": None}
    if not training.noisy or training.settings["network"] in LARGE:  # too large to keep after each epoch
        return state
    unpruned = scratch.Unpruned(training.settings, training.split, folder, weights)
    last = training.settings["epochs"]
    for epoch in range(1, last + 1):
        snapshot, validation = unpruned.at(epoch)
        training.restore(snapshot)
        changed = _prune(training, method, epoch, number)
        if changed:
            validation = evaluate(training.model, training.split.validation)
        _note(state, training, validation, finetuning=False)
        if changed:
            break
    if epoch == last:
        state["evidence"] = _evidence(training)
    return state


def _prune(training: Training, method: Method, epoch: int, number: int | None) -> bool:
    """Prune if it is due; return whether anything changed."""
    model, last = training.model, training.settings["epochs"]
    if method.criterion is None or (method.as_many_as and epoch < last):
        return False
    if method.as_many_as:
        assert number is not None
        inputs, _ = training.split.train.batch(slice(0, 2))
        return rules.close(model, rules.order(model, method, inputs) < number)
    anew = training.settings["decisions"] == "anew"
    return rules.close(model, rules.superfluous(model, method), anew=anew)


def _note(
    state: dict[str, Any], training: Training, validation: Mapping[str, float], *, finetuning: bool
) -> None:
    """Take down an epoch, and the network if it is the best of fine-tuning so far."""
    kept = int(rules.kept(training.model).sum()) if training.noisy else None
    accuracy = validation["accuracy"]
    state["history"].append(
        {"kept": kept, "accuracy": round(accuracy, 3), "nll": round(validation["nll"], 4)}
    )
    best = state["best"]
    if finetuning and (best is None or accuracy > best["accuracy"]):
        snapshot = training.snapshot()
        state["best"] = {"epoch": len(state["history"]), "accuracy": accuracy, "model": snapshot["model"]}


def _outcome(state: Mapping[str, Any], training: Training) -> dict[str, Any]:
    if state["best"] is not None:
        training.model.load_state_dict(state["best"]["model"])
    gates = noise_layers(training.model) if training.noisy else {}
    inputs, _ = training.split.train.batch(slice(0, 2))
    return {
        "test": evaluate(training.model, training.split.test),
        "validation": evaluate(training.model, training.split.validation),
        "compression": asdict(compression(training.model, inputs.to(training.device))),
        "structures": {name: gate.num_structures for name, gate in gates.items()},
        "kept": {name: int(gate.kept().sum()) for name, gate in gates.items()},
        "best_epoch": None if state["best"] is None else state["best"]["epoch"],
        "evidence": state["evidence"],
        "history": state["history"],
    }


def _evidence(training: Training) -> dict[str, Any] | None:
    """ΔF_N after the last pruning, in nats: quantiles of what is kept and of what is pruned."""
    if not training.noisy:
        return None
    kept = rules.kept(training.model)
    values = np.concatenate(list(scores(training.model, "bmrs_n").values()))
    return {"kept": _quantiles(values[kept]), "pruned": _quantiles(values[~kept])}


def _quantiles(values: np.ndarray[Any, np.dtype[np.float64]]) -> dict[str, float] | None:
    if not values.size:
        return None
    names = {"min": 0.0, "q05": 0.05, "median": 0.5, "q95": 0.95, "max": 1.0}
    return {name: float(f"{np.quantile(values, q):.6g}") for name, q in names.items()}
