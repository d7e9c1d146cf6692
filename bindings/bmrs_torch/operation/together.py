"""The noise of several small layers in one call: what each would draw by itself, drawn ahead.

A layer draws a seed from torch's generator when it is called, as dropout does, and its noise is a function of
that seed and of its parameters alone. So it is known beforehand what the next layers will draw, as long as
nothing else draws in between: a copy of the generator tells their seeds. The first of a model's small layers
draws for those after it too, in one call instead of many, and takes the divergence of all with it. A layer
that then draws the seed foreseen finds its noise ready; one that draws another seed draws by itself. Nothing
but time depends on what was foreseen: not the noise, not its gradients, not the state of the generator.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor

from bmrs_torch.distributed.seeds import key_of_rank, noise_rank
from bmrs_torch.distributed.sharding import is_sharded
from bmrs_torch.operation.cpu import raise_unusable
from bmrs_torch.operation.divergence import Divergence, divergence_of
from bmrs_torch.operation.draw import Draw, DrawRefusedError, NoiseParameters, draw, is_plain, parameters_of
from bmrs_torch.operation.memory import is_ordinary
from bmrs_torch.operation.multiplicative_noise import SEEDS, multiplicative_noise
from bmrs_torch.operation.operators import refuse_transforms, scaled
from bmrs_torch.operation.parts import divergence_of_parts

__all__ = ["DrawingTogether", "NoiseParameters", "divergence", "is_small", "multiplied", "parameters_of"]

AHEAD = 1 << 18
"""Most draws made ahead: beyond, a layer's own call costs little beside its arithmetic, and what is kept for
the backward pass, twelve bytes a draw, would matter."""

SMALL = 1 << 18
"""Largest activations of a layer that draws with others: larger ones are worth several threads."""

LONGEST_PAUSE = 1024
"""Calls of layers without looking ahead, at most, after that came to nothing."""


class NoiseLayer(NoiseParameters, Protocol):
    """A noise layer, and with whom it draws."""

    drawing: DrawingTogether | None


def is_small(layer: NoiseLayer, x: Tensor, axis: int) -> bool:
    """Whether noise on these activations is drawn here: few of them, float32 on the CPU, samples first."""
    if not is_ordinary(x) or x.dtype != torch.float32 or x.is_nested or torch.compiler.is_compiling():
        return False
    shape, mu = x.shape, layer._parameters["mu"]
    inner = 0 < axis < len(shape) or -len(shape) < axis < 0
    alike = inner and shape[axis] == mu.shape[0] and mu.dtype == torch.float32
    return alike and 0 < x.numel() <= SMALL and layer._parameters["log_sigma"].dtype == torch.float32


def multiplied(layer: NoiseLayer, x: Tensor, axis: int) -> Tensor:
    """Multiply small `x` by the noise of a layer."""
    if layer.drawing is None:
        layer.drawing = DrawingTogether({"": layer})
    return layer.drawing.multiplied(layer, x, axis)


def divergence(layers: Mapping[str, NoiseLayer]) -> Divergence:
    """KL of the noise of several layers from its prior; see :func:`divergence_of`.

    Layers whose divergence is taken together are of one model: they draw together from then on, which changes
    nothing but the time it takes.
    """
    found = list(layers.values())
    if not torch.compiler.is_compiling():
        drawing = found[0].drawing
        if drawing is None or drawing.layers != found:
            drawing = DrawingTogether(layers)
            for layer in found:
                layer.drawing = drawing
        taken = drawing.divergence()
        if taken is not None:
            return taken
    bounds = [(layer.log_a, layer.log_b) for layer in found]
    parameters = list(map(parameters_of, found))
    if not torch.compiler.is_compiling() and any(is_sharded(mu) for mu, *_ in parameters):
        return divergence_of_parts(list(layers), parameters, bounds)
    return divergence_of(list(layers), parameters, bounds)


class DrawingTogether:
    """Noise layers that draw ahead for one another.

    Parameters
    ----------
    layers : mapping of str to noise layer
        By the names that errors call them, in the order in which they are likely to be called.
    """

    def __init__(self, layers: Mapping[str, NoiseLayer]) -> None:
        self.layers = list(layers.values())
        self._names = list(layers)
        self._numbers = {id(layer): number for number, layer in enumerate(self.layers)}
        self._small: set[int] = set()
        self._ready: tuple[Draw | None, dict[tuple[int, int], int]] = None, {}
        self._used = self._disappointments = self._pause = 0
        self._copy_of_generator = torch.Generator()

    def multiplied(self, layer: NoiseLayer, x: Tensor, axis: int) -> Tensor:
        """Multiply small `x` by the noise of one of these layers."""
        refuse_transforms()
        number = self._numbers[id(layer)]
        self._small.add(number)
        key = key_of_rank(noise_rank())
        seed = int(torch.empty(1, dtype=torch.int64).random_(*SEEDS)) ^ key  # as draw_seed, in less time
        drawn, places = self._ready  # at once: other threads draw, too
        place = places.get((number, seed))
        if drawn is None or place is None or not drawn.is_for(place, x.shape[0]):
            plain = list(map(is_plain, self.layers))
            if not plain[number]:
                return _alone(layer, x, axis, seed)
            drawn, place = self._draw(number, seed, key, x.shape[0], plain), 0
        else:
            self._used += 1
        theta = drawn.thetas[place]
        # Where nothing is pruned torch's product will do: there is no 0 to keep clear of infinities and NaN.
        return x * theta if x.ndim == 2 and drawn.whole[place] else scaled(x, theta, axis % x.ndim)

    def divergence(self) -> Divergence | None:
        """The divergence of all, if it was taken of their parameters as they are."""
        drawn, _ = self._ready
        return None if drawn is None else drawn.still_taken()

    def _draw(self, number: int, seed: int, key: int, samples: int, plain: list[bool]) -> Draw:
        """Draw for a layer and, where looking ahead has paid so far, for those after it."""
        ahead = self._pays()
        seeds = self._foreseen(number, seed, key, samples, plain) if ahead else {number: seed}
        self._used = 0
        with_divergence = ahead and len(plain) > 1 and all(plain) and torch.is_grad_enabled()
        try:
            drawn = self._draw_for(seeds, samples, with_divergence=with_divergence)
        except DrawRefusedError:  # if it is another layer's, that says so when it is called
            seeds = {number: seed}
            drawn = self._draw_alone(number, seed, samples)
        self._ready = drawn, {key: place for place, key in enumerate(seeds.items())}
        return drawn

    def _draw_for(self, seeds: dict[int, int], samples: int, *, with_divergence: bool) -> Draw:
        chosen = list(seeds)
        involved = list(range(len(self.layers))) if with_divergence else chosen
        return draw(
            [self.layers[number] for number in involved],
            [involved.index(number) for number in chosen],
            list(seeds.values()),
            samples,
            with_divergence=with_divergence,
        )

    def _draw_alone(self, number: int, seed: int, samples: int) -> Draw:
        layer = self.layers[number]
        try:
            return draw([layer], [0], [seed], samples, with_divergence=False)
        except DrawRefusedError as error:
            mu, log_sigma, _ = parameters_of(layer)
            raise_unusable(mu, log_sigma, error.structure, self._names[number])

    def _pays(self) -> bool:
        """Whether to look ahead: not for a while after what was foreseen came to nothing, time and again."""
        foreseen = len(self._ready[1]) - 1
        if foreseen > 0:
            disappointed = 2 * self._used < foreseen
            self._disappointments = self._disappointments + 1 if disappointed else 0
            self._pause = min(2**self._disappointments, LONGEST_PAUSE) if disappointed else 0
        self._pause -= self._pause > 0
        return self._pause == 0

    def _foreseen(self, number: int, seed: int, key: int, samples: int, plain: list[bool]) -> dict[int, int]:
        """The seeds of a layer and those after it, by number: of small ones alike, while there is room."""
        layers, seeds = self.layers, {number: seed}
        later = [i for i in range(number + 1, len(layers)) if layers[i].training and not layers[i].fixed]
        self._copy_of_generator.set_state(torch.default_generator.get_state())
        drawn = torch.empty(len(later), dtype=torch.int64).random_(*SEEDS, generator=self._copy_of_generator)
        bounds = layers[number].log_a, layers[number].log_b
        room = AHEAD // samples - layers[number]._parameters["mu"].shape[0]
        for i, own in zip(later, drawn.tolist(), strict=True):
            size = layers[i]._parameters["mu"].shape[0]
            alike = plain[i] and (layers[i].log_a, layers[i].log_b) == bounds
            if alike and i in self._small and size <= room:
                seeds[i] = own ^ key
                room -= size
        return seeds


def _alone(layer: NoiseLayer, x: Tensor, axis: int, seed: int) -> Tensor:
    """The noise of a layer whose parameters can't be read where they lie, as of another dtype or strided."""
    mu, log_sigma, mask = parameters_of(layer)
    seeds, log_a, log_b = torch.tensor([seed]), layer.log_a, layer.log_b
    return multiplicative_noise(x, mu, log_sigma, axis=axis, mask=mask, seed=seeds, log_a=log_a, log_b=log_b)
