"""Torch-Pruning as its authors use it: importance of groups, all layers together, in steps to the budget."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.rivals.errors import PruningError
from benchmarks.rivals.images import Part
from benchmarks.rivals.separate import SeparateBlock, join, separate
from bmrs_torch.reporting.counting import count_macs

KINDS = {"taylor": "GroupTaylorImportance", "l2": "GroupMagnitudeImportance", "random": "RandomImportance"}
GRADIENT_IMAGES = 1024
_RUNGS = 2000
_LONGEST_STEP = 0.04
_MOST_HEADS = 0.5


def procedure(kind: str) -> str:
    """What is done, for the record."""
    gradients = f", gradients on {GRADIENT_IMAGES} training images anew at each" if kind == "taylor" else ""
    return (
        f"Torch-Pruning's BasePruner with {KINDS[kind]}, global_pruning, max_pruning_ratio 0.95, in steps of "
        f"at most {_LONGEST_STEP:.0%} of the channels, of one channel near the budget{gradients}"
    )


def prune(
    model: nn.Module, part: Part, limit: float, kind: str, *, whole_heads: bool, seed: int
) -> nn.Module:
    """Take channels away until a network has at most so many multiply-adds.

    Parameters
    ----------
    model : nn.Module
        The network; it is left as it is. Its last linear layer gives the answers.
    part : Part
        The training images; of the first :data:`GRADIENT_IMAGES` the gradients are taken.
    limit : float
        Multiply-adds for one image.
    kind : {"taylor", "l2", "random"}
        The importance.
    whole_heads : bool
        Take attention heads as wholes; otherwise dimensions of all heads of an attention alike.
    seed : int
        Of the random importance.

    Returns
    -------
    nn.Module
        A smaller copy.

    Raises
    ------
    PruningError
        If Torch-Pruning fails or stops above the limit.
    """
    torch.manual_seed(seed)
    model = copy.deepcopy(model).eval()
    try:
        _prune(model, part, limit, kind, whole_heads)
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError) as error:
        raise PruningError(f"Torch-Pruning fails: {type(error).__name__}: {error}") from error
    model.zero_grad()
    return model


def _prune(model: nn.Module, part: Part, limit: float, kind: str, whole_heads: bool) -> None:
    attentions = separate(model)
    pruner = _pruner(model, part, kind, attentions, whole_heads)
    macs, before = count_macs(model, part.images[:1])[""], None
    while macs > limit:
        if pruner.current_step == _RUNGS:
            raise PruningError(f"Torch-Pruning stops at {macs} multiply-adds, the budget is {limit:.0f}")
        if kind == "taylor" and macs != before:
            model.zero_grad()
            F.cross_entropy(model(part.images[:GRADIENT_IMAGES]), part.labels[:GRADIENT_IMAGES]).backward()
        before = macs
        stride = max(1, round(_LONGEST_STEP * _RUNGS * (1 - limit / macs)))
        rung = min(pruner.current_step + stride, _RUNGS)
        pruner.current_step = rung - 1
        if whole_heads:
            _set_head_ratio(pruner, rung, sum(attention.num_heads for attention in attentions))
        pruner.step()
        for attention in attentions:
            attention.num_heads = pruner.num_heads[attention.q]
        macs = count_macs(model, part.images[:1])[""]
    join(model)


def _pruner(
    model: nn.Module, part: Part, kind: str, attentions: list[SeparateBlock], whole_heads: bool
) -> Any:
    import torch_pruning as tp

    output = [layer for layer in model.modules() if isinstance(layer, nn.Linear)][-1]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it found the positions of the patches, which is right
        return tp.pruner.BasePruner(
            model,
            part.images[:2],
            getattr(tp.importance, KINDS[kind])(),
            global_pruning=True,
            pruning_ratio=1.0,
            max_pruning_ratio=0.95,
            iterative_steps=_RUNGS,
            ignored_layers=[output],
            num_heads={layer: block.num_heads for block in attentions for layer in block.layers()},
            prune_num_heads=whole_heads,
            prune_head_dims=not whole_heads,
            head_pruning_ratio=_MOST_HEADS if whole_heads else 0.0,
            in_channel_groups={},  # the defaults are shared by all pruners, and written to
            out_channel_groups={},
        )


def _set_head_ratio(pruner: Any, rung: int, heads: int) -> None:
    """Ask for heads only where one is to go: else Torch-Pruning 1.6.1 fails (UnboundLocalError)."""
    ratio = min(pruner.per_step_pruning_ratio[rung], _MOST_HEADS)
    fewer = int(pruner.initial_total_heads * (1 - ratio)) < heads
    pruner.per_step_head_pruning_ratio[rung] = ratio if fewer else 0.0
