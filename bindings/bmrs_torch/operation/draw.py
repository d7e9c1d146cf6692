"""One call that draws the noise of several small layers and, if wanted, takes the divergence of all."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from bmrs_kernels.cpu import noise as noise_cpu
from bmrs_torch.operation.divergence import Divergence
from bmrs_torch.operation.memory import addresses, are_plain
from bmrs_torch.operation.operators import applied, differentiable_once

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["Draw", "DrawRefusedError", "NoiseParameters", "draw", "is_plain", "parameters_of"]


class DrawRefusedError(ValueError):
    """Parameters that the draw refused, by the place of the structure among those of all its layers."""

    def __init__(self, structure: int) -> None:
        super().__init__(f"the parameters of structure {structure} are unusable")
        self.structure = structure


class NoiseParameters(Protocol):
    """What is looked at of a noise layer."""

    training: bool
    log_a: float
    log_b: float
    _parameters: dict[str, Any]
    _buffers: dict[str, Any]

    @property
    def fixed(self) -> bool:
        """Whether it draws no noise in training either."""


def parameters_of(layer: NoiseParameters) -> tuple[Tensor, Tensor, Tensor]:
    """Mu, log sigma and mask of a layer."""
    # Not by attribute: a module looks those up in Python, which small layers feel.
    parameters = layer._parameters
    return parameters["mu"], parameters["log_sigma"], layer._buffers["mask"]


def is_plain(layer: NoiseParameters) -> bool:
    """Whether the kernels can read its parameters where they lie."""
    return are_plain(*parameters_of(layer))


class _Places(NamedTuple):
    """Where the parameters of layers lie, and where each begins among all, as kernels want it."""

    addresses: NDArray[np.int64]
    sizes: NDArray[np.int64]
    starts: NDArray[np.int64]
    bounds: NDArray[np.float64]


Pointers = tuple[int, int, int]


@functools.lru_cache(maxsize=64)
def _places(
    pointers: tuple[Pointers, ...], sizes: tuple[int, ...], bounds: tuple[tuple[float, float], ...]
) -> _Places:
    lengths = np.array(sizes, np.int64)
    return _Places(
        np.array(pointers, np.int64).T.copy(), lengths, lengths.cumsum() - lengths, np.array(bounds).T.copy()
    )


class _Layers(NamedTuple):
    """Layers side by side, with the values that their parameters had, [3, structures]."""

    layers: Sequence[NoiseParameters]
    parameters: list[tuple[Tensor, Tensor, Tensor]]
    pointers: tuple[Pointers, ...]
    sizes: tuple[int, ...]
    bounds: tuple[tuple[float, float], ...]
    places: _Places
    values: NDArray[np.float32]
    masked: int
    address: int

    @classmethod
    def of(cls, layers: Sequence[NoiseParameters]) -> _Layers:
        """Look at layers, all plain."""
        parameters = list(map(parameters_of, layers))
        pointers = tuple([addresses(*tensors) for tensors in parameters])
        sizes = tuple([mu.shape[0] for mu, _, _ in parameters])
        bounds = tuple([(layer.log_a, layer.log_b) for layer in layers])
        places = _places(pointers, sizes, bounds)
        found = noise_cpu.gathered(places.addresses, places.sizes, sum(sizes))
        return cls(layers, parameters, pointers, sizes, bounds, places, *found)

    def of_layer(self, place: int) -> NDArray[np.float32]:
        """The values of a layer's parameters."""
        start = int(self.places.starts[place])
        return self.values[:, start : start + self.sizes[place]]

    def are_unchanged(self, place: int) -> bool:
        """Whether the parameters of a layer are still these tensors with these values.

        The values themselves are compared: torch's fused optimizers change them without telling.
        """
        pointers, start = self.pointers[place], 4 * sum(self.sizes[:place])
        return self._are_the_same(place) and noise_cpu.unchanged(
            pointers, self.address + start, self.values.shape[1], self.sizes[place]
        )

    def are_all_unchanged(self) -> bool:
        """The same of all layers, in one call."""
        places = self.places
        alike = all(map(self._are_the_same, range(len(self.sizes))))
        return alike and noise_cpu.all_unchanged(places.addresses, places.sizes, self.values)

    def _are_the_same(self, place: int) -> bool:
        """Whether a layer still has these tensors, where they were, and these bounds."""
        layer, (mu, log_sigma, mask) = self.layers[place], self.parameters[place]
        now = parameters_of(layer)
        return (
            mu is now[0]
            and log_sigma is now[1]
            and mask is now[2]
            and self.pointers[place] == (mu.data_ptr(), log_sigma.data_ptr(), mask.data_ptr())
            and self.bounds[place] == (layer.log_a, layer.log_b)
        )


class Draw(NamedTuple):
    """What one call made.

    Parameters
    ----------
    thetas : tuple of Tensor
        θ·mask of the samples of each layer drawn for, (samples, structures).
    taken : Divergence or None
        Of all layers looked at.
    layers : _Layers
        Those looked at, as they were.
    places : list of int
        Of those drawn for, among them.
    graph : bool
        Whether it can be differentiated.
    whole : list of bool
        Whether no structure of a layer drawn for is masked.
    """

    thetas: tuple[Tensor, ...]
    taken: Divergence | None
    layers: _Layers
    places: list[int]
    graph: bool
    whole: list[bool]

    def is_for(self, number: int, samples: int) -> bool:
        """Whether it is what this layer would draw now for so many samples, from the same seed."""
        alike = self.thetas[number].shape[0] == samples and self.graph == torch.is_grad_enabled()
        return alike and self.layers.are_unchanged(self.places[number])

    def still_taken(self) -> Divergence | None:
        """The divergence, if it was taken and is that of the parameters as they are."""
        if self.taken is None or self.graph != torch.is_grad_enabled():
            return None
        return self.taken if self.layers.are_all_unchanged() else None


def draw(
    layers: Sequence[NoiseParameters],
    drawn: list[int],
    seeds: list[int],
    samples: int,
    *,
    with_divergence: bool,
) -> Draw:
    """Draw for some of these layers, each from its seed.

    Parameters
    ----------
    layers : sequence of noise layer
        All plain; those drawn for with the same bounds.
    drawn : list of int
        The places of those to draw for.
    seeds : list of int
        Of each of them.
    samples : int
        How many θ for each structure.
    with_divergence : bool
        Whether to take the divergence of all layers.

    Raises
    ------
    DrawRefusedError
        If a parameter is.
    """
    of = _Layers.of(layers)
    mus, log_sigmas, _ = zip(*of.parameters, strict=True)
    theta, *taken = applied(_Draw, of, drawn, seeds, samples, with_divergence, *mus, *log_sigmas)
    sizes = [of.sizes[place] for place in drawn]
    thetas = theta.split_with_sizes(sizes, 1) if len(drawn) > 1 else (theta,)
    whole = [not of.masked or bool(of.parameters[place][2].all()) for place in drawn]
    divergence = Divergence(*taken) if taken else None
    return Draw(thetas, divergence, of, drawn, torch.is_grad_enabled(), whole)


class _Draw(torch.autograd.Function):
    """θ·mask side by side, then total, values and kept of the divergence, if it is wanted.

    The derivatives, which the kernels give with them, are kept.
    """

    @staticmethod
    def forward(
        ctx: Any,
        of: _Layers,
        drawn: list[int],
        seeds: list[int],
        samples: int,
        with_divergence: bool,
        *_parameters: Tensor,
    ) -> tuple[Tensor, ...]:
        addresses, sizes, starts, bounds = of.places
        every = len(drawn) == len(sizes)
        own_sizes, own_starts = (sizes, starts) if every else (sizes[drawn], starts[drawn])
        values = of.values if every else np.concatenate([of.of_layer(place) for place in drawn], axis=1)
        theta = torch.empty(samples, values.shape[1])
        ctx.sizes, ctx.drawn, ctx.starts = of.sizes, own_sizes, own_starts
        ctx.by_theta, ctx.by_kl = np.empty((2, *theta.shape), np.float32), None
        ctx.set_materialize_grads(False)
        numbers, own_bounds = np.array(seeds, np.int64), of.bounds[drawn[0]]
        bad = noise_cpu.draw_together(values, own_sizes, own_bounds, numbers, theta.numpy(), ctx.by_theta)
        if bad >= 0:
            raise DrawRefusedError(bad)
        if not with_divergence:
            return (theta,)
        ctx.by_kl = np.empty((2, of.values.shape[1]), np.float32)
        kl, kept, bad = noise_cpu.divergence("float32", addresses, sizes, bounds, ctx.by_kl)
        if bad >= 0:
            raise DrawRefusedError(bad)
        by_layer, counts = torch.from_numpy(kl), torch.from_numpy(kept)
        ctx.mark_non_differentiable(counts)
        return theta, by_layer.sum(), by_layer, counts

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, d_theta: Tensor | None, *by_divergence: Tensor | None) -> Any:
        weights = [part.numpy() for part in by_divergence[:2] if part is not None]
        if weights:
            each = np.zeros(len(ctx.sizes)) + sum(weights)
            gradients = noise_cpu.scaled_gradients("float32", np.array(ctx.sizes), each, ctx.by_kl)
        else:
            gradients = np.zeros((2, sum(ctx.sizes)), np.float32)
        if d_theta is not None:
            rows = d_theta.contiguous().numpy()
            noise_cpu.add_gradients_together(rows, ctx.drawn, ctx.starts, ctx.by_theta, gradients)
        parts = torch.from_numpy(gradients).flatten().split_with_sizes(list(ctx.sizes) * 2)
        return None, None, None, None, None, *parts
