"""Save a run after every epoch, and take it up again exactly where it was."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.demo.data import ImageData
from benchmarks.demo.network import FULL_WIDTHS, LeNet5
from benchmarks.demo.training import (
    DemoSettings,
    EpochRecord,
    Run,
    make_pruner,
    noise_optimizer,
    noisy_network,
    plain_optimizer,
    widths_of,
)
from bmrs_torch import Pruner


class ResumeError(ValueError):
    """There is nothing to resume, or it was begun with other data."""


def save_checkpoint(run: Run, data_name: str, path: Path) -> None:
    """Write everything that decides how a run goes on; a crash while writing leaves the previous file."""
    content = {
        "data": data_name,
        "settings": asdict(run.settings),
        "phase": run.phase,
        "epoch": run.epoch,
        "widths": widths_of(run.model),
        "model": run.model.state_dict(),
        "optimizer": run.optimizer.state_dict(),
        "pruner": None if run.pruner is None else run.pruner.state_dict(),
        "baseline": None if run.baseline is None else run.baseline.state_dict(),
        "history": [asdict(record) for record in run.history],
        "pruned_scores": run.pruned_scores,
        "kept_scores": run.kept_scores,
        "random_state": torch.get_rng_state(),
    }
    unfinished = path.with_suffix(".unfinished")
    torch.save(content, unfinished)
    unfinished.replace(path)


def load_checkpoint(path: Path, data: ImageData) -> Run:
    """Restore a run, torch's random numbers included.

    Parameters
    ----------
    path : Path
        What :func:`save_checkpoint` wrote.
    data : ImageData
        The images at hand.

    Returns
    -------
    Run

    Raises
    ------
    ResumeError
        If there is no checkpoint, or it was begun with other data.
    """
    if not path.is_file():
        raise ResumeError(f"there is no checkpoint {path} to resume; start without --resume")
    content = torch.load(path, weights_only=True)
    if content["data"] != data.name:
        raise ResumeError(f"{path} was begun on {content['data']}, but the data at hand is {data.name}")
    settings = DemoSettings(**content["settings"])
    run = Run(settings, *_rebuild(content, settings, data), content["phase"], content["epoch"])
    if content["baseline"] is not None:
        run.baseline = LeNet5(FULL_WIDTHS)
        run.baseline.load_state_dict(content["baseline"])
        run.baseline.eval()
    run.history = [EpochRecord(**record) for record in content["history"]]
    run.pruned_scores, run.kept_scores = content["pruned_scores"], content["kept_scores"]
    torch.set_rng_state(content["random_state"])
    return run


def _rebuild(
    content: dict[str, Any], settings: DemoSettings, data: ImageData
) -> tuple[nn.Module, torch.optim.Optimizer, Pruner | None]:
    pruner = None
    if content["pruner"] is None:
        model: nn.Module = LeNet5(tuple(content["widths"]))
        optimizer = plain_optimizer(model, settings)
    else:
        model = noisy_network()
        optimizer = noise_optimizer(model, settings)
        pruner = make_pruner(model, optimizer, settings, data)
        pruner.load_state_dict(content["pruner"])  # first: it gives the model its shapes
    model.load_state_dict(content["model"])
    optimizer.load_state_dict(content["optimizer"])
    return model, optimizer, pruner
