"""From a run to its network: trained, pruned by its method, trained further."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.fashion.networks import SmallViT
from benchmarks.rivals import bmrs, torch_pruning
from benchmarks.rivals.images import Split
from benchmarks.rivals.learning import answers, train
from benchmarks.rivals.protocol import BASE_LR, BATCH, SUBJECTS, WHOLE_HEADS, Run, digest, settings
from benchmarks.rivals.store import Store
from bmrs_torch.costs.counting import count_macs

_PRUNING = ("network", "method", "budget", "seed", "variant")
_BASE = ("network", "seed", "data", "batch", "base_epochs", "base_lr", "split_seed")


@dataclass(frozen=True)
class Trained:
    """The network of a run, and the one that it began with."""

    base: nn.Module
    model: nn.Module


def trained(run: Run, images: Split, store: Store) -> Trained:
    """The network of a run; what it has in common with earlier runs comes from the store.

    Parameters
    ----------
    run : Run
        What is to be done. Whichever images judge it, it is the same network.
    images : Split
        The images; those to train on are used.
    store : Store
        Where base networks, pruned and trained ones are kept.

    Raises
    ------
    PruningError
        If the method can't prune this network to this budget.
    """
    known = settings(run, images.name)
    base = store.get(f"base-{_digest(known, _BASE)}", lambda: _base(run, images))
    own = digest({key: value for key, value in known.items() if key != "split"})
    return Trained(base, store.get(f"trained-{own}", lambda: _trained(run, base, images, store)))


def _trained(run: Run, base: nn.Module, images: Split, store: Store) -> nn.Module:
    method, _, teacher = run.method.partition("_")
    logits = answers(base, images.train.images) if teacher else None
    epochs = run.epochs
    if method == "bmrs":
        return _bmrs(run, base, images, logits)
    if method == "unpruned":
        model = base
    elif method == "scratch":
        model = _pruned("taylor", run, base, images, store)
        torch.manual_seed(run.seed)
        draw_anew(model)
        epochs += SUBJECTS[run.network].base_epochs
    else:
        model = _pruned(method, run, base, images, store)
    return _train(run, model, images, epochs, logits)


def _base(run: Run, images: Split) -> nn.Module:
    subject = SUBJECTS[run.network]
    torch.manual_seed(run.seed)
    return train(
        subject.build(),
        images.train,
        epochs=subject.base_epochs,
        lr=BASE_LR,
        batch=BATCH,
        channels_last=subject.channels_last,
    )


def _pruned(kind: str, run: Run, base: nn.Module, images: Split, store: Store) -> nn.Module:
    """Pruned by Torch-Pruning, not yet trained further: the same for all lengths and learning rates."""
    assert run.budget is not None
    limit = run.budget * count_macs(base.eval(), images.train.images[:1])[""]
    whole = run.variant == WHOLE_HEADS
    known = settings(run, images.name) | {"method": kind, "procedure": torch_pruning.procedure(kind)}
    return store.get(
        f"pruned-{_digest(known, {*_BASE, *_PRUNING, 'procedure'})}",
        lambda: torch_pruning.prune(base, images.train, limit, kind, whole_heads=whole, seed=run.seed),
    )


def _bmrs(run: Run, base: nn.Module, images: Split, teacher: Tensor | None) -> nn.Module:
    assert run.budget is not None
    subject = SUBJECTS[run.network]
    torch.manual_seed(_later_seed(run))
    return bmrs.smaller(
        base,
        images.train,
        macs=run.budget,
        epochs=run.epochs,
        lr=run.lr,
        batch=BATCH,
        where=subject.where,
        channels_last=subject.channels_last,
        teacher=teacher,
    )


def _train(run: Run, model: nn.Module, images: Split, epochs: int, teacher: Tensor | None) -> nn.Module:
    torch.manual_seed(_later_seed(run))
    return train(
        copy.deepcopy(model),
        images.train,
        epochs=epochs,
        lr=run.lr,
        batch=BATCH,
        channels_last=SUBJECTS[run.network].channels_last,
        teacher=teacher,
    )


def _later_seed(run: Run) -> int:
    """Of the order of the images after the base training: that of all methods, so that seeds are pairs."""
    return run.seed + 1000


@torch.no_grad()
def draw_anew(model: nn.Module) -> None:
    """Draw all parameters of a network as its constructor does, in place."""
    for module in model.modules():
        reset = getattr(module, "reset_parameters", None)
        if callable(reset):
            reset()
        elif isinstance(module, SmallViT):
            module.positions.copy_(0.02 * torch.randn_like(module.positions))


def _digest(known: dict[str, Any], keys: Any) -> str:
    return digest({key: known[key] for key in keys})
