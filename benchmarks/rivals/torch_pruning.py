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
from bmrs_torch.costs.counting import count_macs

KINDS = {"taylor": "GroupTaylorImportance", "l2": "GroupMagnitudeImportance", "random": "RandomImportance"}
GRADIENT_IMAGES = 1024
_RUNGS = 2000
_LONGEST_STEP = 0.04
_MOST_HEADS = 0.5
_CLOSE = 0.02


def procedure(kind: str) -> str:
    """What is done, for the record."""
    gradients = f", gradients on {GRADIENT_IMAGES} training images anew at each" if kind == "taylor" else ""
    return (
        f"Torch-Pruning's BasePruner with {KINDS[kind]}, global_pruning, max_pruning_ratio 0.95, in steps "
        f"of at most {_LONGEST_STEP:.0%} of the channels, of one near the budget{gradients}; a layer whose "
        f"next channel leads more than {_CLOSE:.0%} below the budget stays as it is, and others go instead"
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
    start, locked = copy.deepcopy(model).eval(), frozenset[str]()
    separate(start)
    best, most = None, 0
    try:
        while most < (1 - _CLOSE) * limit:
            start, end, macs = _descend(start, locked, part, limit, kind, whole_heads)
            if macs > most:
                best, most = end, macs
            locked |= _narrower(start, end)
    except PruningError:
        if best is None:  # otherwise nothing comes closer to the budget from above than what there is
            raise
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError) as error:
        raise PruningError(f"Torch-Pruning fails: {type(error).__name__}: {error}") from error
    assert best is not None
    best.zero_grad()
    join(best)
    return best


def _descend(
    model: nn.Module, locked: frozenset[str], part: Part, limit: float, kind: str, whole_heads: bool
) -> tuple[nn.Module, nn.Module, int]:
    """Prune in place to the limit; return the network before the last step and after it, and its work."""
    attentions = [module for module in model.modules() if isinstance(module, SeparateBlock)]
    pruner = _pruner(model, locked, part, kind, attentions, whole_heads)
    sizes = [attention.q.out_features // attention.num_heads for attention in attentions]
    macs, counted, before = count_macs(model, part.images[:1])[""], None, model
    while macs > limit:
        if pruner.current_step == _RUNGS:
            raise PruningError(f"Torch-Pruning stops at {macs} multiply-adds, the budget is {limit:.0f}")
        if macs != counted:
            before, counted = copy.deepcopy(model), macs
            if kind == "taylor":
                model.zero_grad()
                images, labels = part.images[:GRADIENT_IMAGES], part.labels[:GRADIENT_IMAGES]
                F.cross_entropy(model(images), labels).backward()
        stride = max(1, round(_LONGEST_STEP * _RUNGS * (1 - limit / macs)))
        rung = min(pruner.current_step + stride, _RUNGS)
        pruner.current_step = rung - 1
        if whole_heads:
            _set_head_ratio(pruner, rung, sum(attention.num_heads for attention in attentions))
        pruner.step()
        if whole_heads:
            _count_heads(pruner, attentions, sizes)
        macs = count_macs(model, part.images[:1])[""]
    return before, model, macs


def _pruner(
    model: nn.Module,
    locked: frozenset[str],
    part: Part,
    kind: str,
    attentions: list[SeparateBlock],
    whole_heads: bool,
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
            ignored_layers=[output, *map(model.get_submodule, sorted(locked))],
            num_heads={layer: block.num_heads for block in attentions for layer in block.layers()},
            prune_num_heads=whole_heads,
            prune_head_dims=not whole_heads,
            head_pruning_ratio=_MOST_HEADS if whole_heads else 0.0,
            in_channel_groups={},  # the defaults are shared by all pruners, and written to
            out_channel_groups={},
        )


def _narrower(before: nn.Module, after: nn.Module) -> frozenset[str]:
    """Layers that have lost outputs."""
    return frozenset(
        name
        for name, layer in before.named_modules()
        if isinstance(layer, (nn.Linear, nn.Conv2d))
        and layer.weight.shape[0] > after.get_parameter(f"{name}.weight").shape[0]
    )


def _set_head_ratio(pruner: Any, rung: int, heads: int) -> None:
    """Ask for heads only where one is to go: else Torch-Pruning 1.6.1 fails (UnboundLocalError)."""
    ratio = min(pruner.per_step_pruning_ratio[rung], _MOST_HEADS)
    fewer = int(pruner.initial_total_heads * (1 - ratio)) < heads
    pruner.per_step_head_pruning_ratio[rung] = ratio if fewer else 0.0


def _count_heads(pruner: Any, attentions: list[SeparateBlock], sizes: list[int]) -> None:
    """Count what is there: Torch-Pruning 1.6.1 also counts heads as gone that it leaves, a layer's last."""
    for attention, size in zip(attentions, sizes, strict=True):
        attention.num_heads = attention.q.out_features // size
        for layer in attention.layers():
            pruner.num_heads[layer] = pruner.out_channel_groups[layer] = attention.num_heads
