"""How much of a network is pruned: structures, and parameters by the paper's count and as removed."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from bmrs_torch import MultiplicativeNoise


@dataclass(frozen=True)
class Compression:
    """Shares of the network that are gone, in per cent.

    Attributes
    ----------
    structures : float
        Of the structures with noise.
    published : float
        Of the parameters by the released code's count, which Table 1 has: weights into and out of pruned
        structures and their μ and σ, of all weights, biases, μ and σ. It misses what a filter frees in a
        linear layer after it, and biases.
    removed : float
        Of the weights and biases of the network without noise: what the smaller network really lacks.
    """

    structures: float
    published: float
    removed: float


def compression(model: nn.Sequential) -> Compression:
    """Count what is pruned in a chain of layers.

    Parameters
    ----------
    model : nn.Sequential
        Linear and convolution layers with noise between them, as
        :func:`benchmarks.paper.networks.build` makes the small networks.
    """
    chain = [m for m in model if isinstance(m, (nn.Linear, nn.Conv2d))]
    gates = [m for m in model if isinstance(m, MultiplicativeNoise)]
    plain = sum(p.numel() for layer in chain for p in layer.parameters())
    if not gates:
        return Compression(0.0, 0.0, 0.0)
    left = [int(gate.kept().sum()) for gate in gates]
    total = [gate.num_structures for gate in gates]
    gone = sum(total) - sum(left)
    widths_in, widths_out = [chain[0].weight.shape[1], *left], [*left, chain[-1].weight.shape[0]]
    remaining, counted = 0, 2 * gone
    for number, layer in enumerate(chain):
        outputs, inputs = layer.weight.shape[:2]
        each = layer.weight[0, 0].numel()  # weights between an input and an output
        before = total[number - 1] if number else inputs
        entries = widths_in[number] * (inputs // before)  # a filter of many positions feeds many inputs
        remaining += widths_out[number] * (entries * each + 1)
        seen = widths_in[number] if inputs == before else inputs
        counted += each * (outputs * inputs - widths_out[number] * seen)
    return Compression(
        100 * gone / sum(total),
        100 * counted / (plain + 2 * sum(total)),
        100 * (1 - remaining / plain),
    )
