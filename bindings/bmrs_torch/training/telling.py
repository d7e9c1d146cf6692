"""Where a pruner stands, in a few lines; told from what it has noted, so that nothing is computed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from bmrs_torch.deciding.budget import MEASURES, as_budget
from bmrs_torch.layer import MultiplicativeNoise
from bmrs_torch.training.schedule import Schedule

__all__ = ["where_it_stands"]

_LONGEST = 60


def where_it_stands(
    model: nn.Module,
    history: Sequence[Mapping[str, Any]],
    schedule: Schedule,
    *,
    criterion: str,
    options: Mapping[str, Any],
    epochs: int,
    steps: int,
    kl_weight: float,
    num_structures: int,
) -> str:
    """Say what is done, what comes next, what is left and how near the next structure is.

    Parameters
    ----------
    model : nn.Module
        With its noise as it is now.
    history : sequence of mapping
        Of the pruner; entries of an earlier version, which held less, are told as far as they go.
    schedule : Schedule
        When it prunes.
    criterion, options
        By what.
    epochs, steps : int
        How many are done.
    kl_weight : float
        Without the warm-up.
    num_structures : int
        At the beginning.

    Returns
    -------
    str
        Never an error: it is read in debuggers too.
    """
    done = epochs if schedule.unit == "epoch" else steps
    by = "".join(
        f", {as_budget(value) if name == 'budget' else f'{name}={value!r:.{_LONGEST}}'}"
        for name, value in options.items()
        if value is not None
    )
    phase = "fine-tuning" if schedule.finetunes(done) else "pruning"
    lines = [
        f"Pruner of {type(model).__name__} by {criterion}{by}: {phase}",
        f"{epochs:,} epochs and {steps:,} steps done; {_next(schedule, done)}",
        _kept(model, num_structures),
        _weight(schedule, done, kl_weight),
        _last_pruning(history),
        _nearest(history, schedule, done),
    ]
    return "\n  ".join(line for line in lines if line)


def _next(schedule: Schedule, done: int) -> str:
    due = schedule.next_due(done)
    return "prunes no more" if due is None else f"prunes next after {schedule.unit} {due:,}"


def _kept(model: nn.Module, num_structures: int) -> str:
    layers = [module for module in model.modules() if isinstance(module, MultiplicativeNoise)]
    if not layers or any(layer.mask.is_meta for layer in layers):
        return f"{num_structures:,} structures at the beginning"
    kept = sum(int(layer.kept().sum()) for layer in layers)
    share = f" ({kept / num_structures:.1%})" if num_structures else ""
    return f"kept: {kept:,} of {num_structures:,} structures{share}"


def _weight(schedule: Schedule, done: int, kl_weight: float) -> str:
    factor = schedule.kl_factor(done)
    rising = (
        "" if factor == 1 or schedule.finetunes(done) else f", of which {factor:.0%} count in the warm-up"
    )
    return f"kl_weight: {kl_weight:g}{rising}"


def _last_pruning(history: Sequence[Mapping[str, Any]]) -> str:
    entry = next((entry for entry in reversed(history) if entry.get("pruned")), None)
    if entry is None:
        return "pruned last: nothing so far"
    told = f"pruned last: {entry['pruned']:,} structures after {_when(entry)}"
    costs = entry.get("costs") or {}
    left = ", ".join(f"{share:.3g} of the {MEASURES[cost].name}" for cost, share in costs.items())
    return f"{told}, with {left} left" if left else told


def _nearest(history: Sequence[Mapping[str, Any]], schedule: Schedule, done: int) -> str:
    entry = history[-1] if history else {}
    if not entry.get("next") or schedule.finetunes(done):
        return ""
    first, away = entry["next"][0], entry.get("nearest")
    named = f"structure {first['structure']} of {first['layer']!r}"
    if away is None:
        return f"next to go: {named}"
    unit = " nats" if entry.get("near") is not None else ""
    far = f"{away:.3g}{unit} away" if away > 0 else "meets it"
    return f"nearest to the rule: {named}, {far} after {_when(entry)}"


def _when(entry: Mapping[str, Any]) -> str:
    return f"step {entry['step']:,}" if entry.get("when") == "step" else f"epoch {entry.get('epoch', 0):,}"
