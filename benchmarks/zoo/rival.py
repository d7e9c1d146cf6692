"""Torch-Pruning on the same networks: does it run, is what it cuts exact, how much goes.

Torch-Pruning removes channels whatever they hold, so its network is compared with the original in which
exactly the parameters that it removed are 0: those two answer alike if everything that reads a removed
channel loses just that channel. Normalisation over removed channels (LayerNorm, GroupNorm) differs by right.

Which parameters it removed is read from the network itself. It decides at random, without looking at the
weights, so before it cuts, each parameter is filled with its own indices; what is left of them afterwards are
the places that stay, and there the weights are put back.
"""

from __future__ import annotations

import copy
import time
import warnings
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.zoo.architectures import ARCHITECTURES
from benchmarks.zoo.measurement import DEAD, parameters_of, stage, subject
from bmrs_torch.channels.calling import answers, call, tensors_of
from bmrs_torch.surgery.verification import difference

METHOD = (
    "tp.pruner.BasePruner(model, example, tp.importance.RandomImportance(), pruning_ratio=0.6, one step), "
    "with the layers that make the network's outputs ignored (those of a stream that is an output, too), "
    "output_transform returning its tensors, num_heads of attention modules that tell it, and their head "
    "sizes set after pruning as in the project's examples; nothing else by hand. Compared, in evaluation "
    "mode, with the original network in which just the parameters that were removed are 0."
)
"""What was done, for the record."""

_PROJECTIONS = (("qkv",), ("query", "key", "value"), ("q_proj", "k_proj", "v_proj"), ("q", "k", "v"))


@dataclass(frozen=True)
class RivalMeasured:
    """What came of it.

    Attributes
    ----------
    share : float
        Of the parameters gone.
    difference, difference_other_batch : float or None
        Relative; None if the answers have another shape.
    seconds : float
        From the network to the pruned one.
    """

    share: float
    difference: float | None
    difference_other_batch: float | None
    seconds: float


def measure_rival(name: str, *, dead: float = DEAD, seed: int = 0) -> RivalMeasured:
    """Prune an architecture with Torch-Pruning.

    Parameters
    ----------
    name : str
        Of the architecture.
    dead : float
        The pruning ratio: share of the channels of each group.
    seed : int
        Of parameters, inputs and choice.

    Raises
    ------
    StageError
        If any of it fails.
    """
    with stage("import"):
        import torch_pruning as tp
    large = subject(ARCHITECTURES[name], seed)
    model = large.model.requires_grad_(True)  # it follows gradients, and says so
    original = {n: p.detach().clone() for n, p in model.named_parameters(remove_duplicate=False)}
    reference = copy.deepcopy(model)
    heads = _heads(model)
    with stage("build_dependency"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ignored = _output_layers(model, large.example)
        started = time.perf_counter()
        pruner = tp.pruner.BasePruner(
            model,
            large.example,
            tp.importance.RandomImportance(),
            pruning_ratio=dead,
            ignored_layers=ignored,
            num_heads={layer: number for found in heads.values() for layer, number in found.items()},
            in_channel_groups={},
            out_channel_groups={},
            output_transform=tensors_of,
        )
    with stage("step"), torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.arange(parameter.numel()).view(parameter.shape))
        torch.manual_seed(seed)
        pruner.step()
        _set_head_sizes(heads)
        seconds = time.perf_counter() - started
        places = {n: p.detach().long() for n, p in model.named_parameters(remove_duplicate=False)}
        _put(model, {n: original[n].flatten()[kept.flatten()].view(kept.shape) for n, kept in places.items()})
        _put(reference, {n: _only(original[n], kept) for n, kept in places.items()})
    with stage("forward"):
        found = [difference(answers(reference, x), answers(model, x)) for x in (large.example, large.other)]
    told = [None if value == float("inf") else value for value in found]
    total = sum(p.numel() for p in large.model.parameters())
    return RivalMeasured(1 - total / parameters_of(reference), told[0], told[1], seconds)


def _only(values: Tensor, kept: Tensor) -> Tensor:
    """The values at the places that are kept, 0 elsewhere."""
    result = torch.zeros_like(values).flatten()
    result[kept.flatten()] = values.flatten()[kept.flatten()]
    return result.view(values.shape)


def _put(model: nn.Module, values: dict[str, Tensor]) -> None:
    for name, value in values.items():
        module, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(module), leaf, nn.Parameter(value))


def _output_layers(model: nn.Module, example: Any) -> list[nn.Module]:
    """Layers from which an output of the network is reached without another layer with weights between."""
    owners = {
        parameter: module
        for module in model.modules()
        for parameter in module.parameters(recurse=False)
        if parameter.ndim > 1
    }
    with torch.enable_grad():
        waiting: list[Any] = [t.grad_fn for t in tensors_of(call(model.eval(), example))]
    found: dict[nn.Module, None] = {}
    seen = set()
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        before = [earlier for earlier, _ in node.next_functions if earlier is not None]
        # A linear layer transposes its weight first.
        sources = [*before, *(s for n in before if n.name() == "TBackward0" for s, _ in n.next_functions)]
        weights = [v for s in sources if (v := getattr(s, "variable", None)) in owners]
        found.update(dict.fromkeys(owners[weight] for weight in weights))
        waiting += [] if weights else before
    return list(found)


def _heads(model: nn.Module) -> dict[nn.Module, dict[nn.Module, int]]:
    """Of each attention module that tells how many heads it has: its projections, and their heads."""
    found: dict[nn.Module, dict[nn.Module, int]] = {}
    for module in model.modules():
        number = _count(module, "num_heads", "num_attention_heads", "n_heads")
        of_keys = _count(module, "num_key_value_heads") or number
        for names in _PROJECTIONS:
            layers = [getattr(module, name, None) for name in names]
            if number and of_keys and all(isinstance(layer, nn.Linear) for layer in layers):
                counts = (number, of_keys, of_keys)
                found[module] = {
                    layer: n for layer, n in zip(layers, counts, strict=False) if layer is not None
                }
    return found


def _count(module: nn.Module, *names: str) -> int | None:
    """A whole number that a module, or its configuration, has under one of some names."""
    holders = (module, getattr(module, "config", None))
    values = (getattr(holder, name, None) for holder in holders for name in names)
    return next((value for value in values if isinstance(value, int)), None)


def _set_head_sizes(heads: dict[nn.Module, dict[nn.Module, int]]) -> None:
    for module, layers in heads.items():
        first, number = next(iter(layers.items()))
        assert isinstance(first, nn.Linear)
        inner = first.out_features // (3 if len(layers) == 1 else 1)
        sizes = {"head_dim": inner // number, "attention_head_size": inner // number}
        for key, value in {**sizes, "all_head_size": inner, "attn_dim": inner}.items():
            if isinstance(getattr(module, key, None), int):
                setattr(module, key, value)
