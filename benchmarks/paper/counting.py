"""How much of a network is pruned: structures, and parameters by the paper's count and as removed."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bmrs_torch import MultiplicativeNoise, compact
from bmrs_torch.costs.counting import count_plain_parameters


@dataclass(frozen=True)
class Compression:
    """Shares of the network that are gone, in per cent.

    Attributes
    ----------
    structures : float
        Of the structures with noise.
    published : float
        Of the parameters by the released code's count, which Tables 1 and 2 have; see
        :func:`published_count`.
    removed : float
        Of the weights and biases of the network without noise: what the smaller network really lacks.
    """

    structures: float
    published: float
    removed: float


def compression(model: nn.Module, example: Tensor) -> Compression:
    """Count what is pruned.

    Parameters
    ----------
    model : nn.Module
        The network; without noise nothing is.
    example : Tensor
        Some inputs, to follow it with.
    """
    gates = [m for m in model.modules() if isinstance(m, MultiplicativeNoise)]
    if not gates:
        return Compression(0.0, 0.0, 0.0)
    total = sum(gate.num_structures for gate in gates)
    left = sum(int(gate.kept().sum()) for gate in gates)
    is_chain = all(not any(module.children()) for module in model.children())
    if isinstance(model, nn.Sequential) and is_chain:
        removed = 1 - _chain_parameters(model) / count_plain_parameters(model)
    else:
        removed = 1 - _compacted_parameters(model, example) / count_plain_parameters(model)
    return Compression(100 * (1 - left / total), 100 * published_count(model), 100 * removed)


def published_count(model: nn.Module) -> float:
    """The share of the parameters that the released code counts as gone.

    The weights into and out of pruned structures, and their μ and σ, of all weights, biases, μ and σ. What
    comes before and after noise is the weight before and after it in the order of the modules, where the
    shapes fit. So it misses what a filter frees in a linear layer after it, and biases.
    """
    order: list[Tensor | MultiplicativeNoise] = []
    for module in model.modules():
        if isinstance(module, MultiplicativeNoise):
            order.append(module)
        elif isinstance(module, (nn.Linear, nn.Conv2d)):
            order.append(module.weight)
    kept = [torch.ones(w.shape[:2], dtype=torch.bool) if isinstance(w, Tensor) else None for w in order]
    gone = 0
    for number, gate in enumerate(order):
        if not isinstance(gate, MultiplicativeNoise):
            continue
        mask = gate.kept().cpu()
        gone += 2 * int((~mask).sum())
        before, after = kept[number - 1], kept[number + 1] if number + 1 < len(kept) else None
        if before is not None:
            before &= mask[:, None]
        if after is not None and after.shape[1] == len(mask):
            after &= mask
    for weight, left in zip(order, kept, strict=True):
        if left is not None and isinstance(weight, Tensor):
            gone += int((~left).sum()) * weight[0, 0].numel()
    return gone / sum(parameter.numel() for parameter in model.parameters())


def _chain_parameters(model: nn.Sequential) -> int:
    """Weights and biases of the smaller network; of a layer without structures the next one's biases stay."""
    gates: list[MultiplicativeNoise] = []  # those since the layer before
    count = each = 0
    for module in model:
        if isinstance(module, MultiplicativeNoise):
            count -= int((~module.kept()).sum()) * each
            gates = [module]
        elif isinstance(module, (nn.Linear, nn.Conv2d)):
            inputs = module.weight.shape[1]
            for gate in gates:
                inputs = int(gate.kept().sum()) * (inputs // gate.num_structures)  # a filter has many places
            each = inputs * module.weight[0, 0].numel() + 1
            count += module.weight.shape[0] * each
            gates = []
    return count


def _compacted_parameters(model: nn.Module, example: Tensor) -> int:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of structures that can't go, which are counted so
        return count_plain_parameters(compact(model, example))
