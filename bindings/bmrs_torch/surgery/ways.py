"""Into which weights the factor of a gate can go: of what comes before it, or of all that comes after."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from bmrs_torch.attachment import Attachment, attachments
from bmrs_torch.channels.calling import call, in_mode
from bmrs_torch.channels.makers import has_weight, made_by
from bmrs_torch.channels.network import FollowedNetwork, ModuleCall, follow, none_closed
from bmrs_torch.channels.weights import activation_axis, is_plain, is_weighted, weight_axes
from bmrs_torch.layer import MultiplicativeNoise, noise_layers
from bmrs_torch.surgery.scaling import scale_inputs, scale_outputs, scale_own_state, scale_parameter

if TYPE_CHECKING:
    from bmrs_torch.channels.labels import Ints

__all__ = ["Way", "Ways", "multiplying", "test_factors"]


@dataclass(frozen=True)
class Way:
    """A way for the factor of a gate to go into weights.

    Attributes
    ----------
    text : str
        Where it goes.
    layers : tuple of str
        Names of the layers whose weights change.
    apply : callable
        Multiplies the weights of a model of this structure by the factors, a float64 tensor with one for each
        structure.
    is_evident : bool
        Whether it is exact by the kind of layer alone: the noise sits on its output.
    in_readers : bool
        Whether it changes what takes the structures, and not only what gives them.
    """

    text: str
    layers: tuple[str, ...]
    apply: Callable[[nn.Module, Tensor], None]
    is_evident: bool = False
    in_readers: bool = False


class multiplying(ExitStack):
    """While the block runs, noise layers multiply by given factors, all others of the model by 1.

    Parameters
    ----------
    model : nn.Module
        With noise layers or without.
    factors : dict of str to Tensor
        By the name of the noise layer, one for each structure.
    """

    def __init__(self, model: nn.Module, factors: dict[str, Tensor]) -> None:
        super().__init__()
        for name, layer in model.named_modules():
            if not isinstance(layer, MultiplicativeNoise):
                continue
            factor = factors.get(name, torch.ones(layer.num_structures, device=layer.mu.device))
            vars(layer)["forward"] = partial(layer.scaled, scale=factor.to(layer.mu.device))
            self.callback(vars(layer).pop, "forward")


class Ways:
    """The ways into the weights of a model.

    Parameters
    ----------
    model : nn.Module
        With noise layers; it is left as it is.
    example_inputs : Tensor, tuple, list or dict
        What it is followed on, where it has to be.
    """

    def __init__(self, model: nn.Module, example_inputs: Any) -> None:
        self._model, self._inputs = model, example_inputs
        self._layers = noise_layers(model)
        self._on: dict[int, list[Attachment]] = {}
        for attached in attachments(model):
            self._on.setdefault(id(attached.noise), []).append(attached)
        self._weighted = {
            n: m for n, m in model.named_modules() if is_weighted(m) or isinstance(m, nn.RNNBase)
        }
        uses = Counter(
            id(p) for module in model.modules() for p in module._parameters.values() if p is not None
        )
        self._shared = {key for key, number in uses.items() if number > 1}

    @cached_property
    def _network(self) -> FollowedNetwork:
        return follow(self._model, self._inputs, closed=none_closed)

    def of(self, name: str) -> Iterator[Way]:
        """The ways for a noise layer, the likelier first; which of them is exact, only trying tells."""
        own = self._beside(name)
        if own is not None and own.is_evident:
            yield own
        if own is None:
            yield from self._before(name)
        yield from self._after(name)
        if own is not None and not own.is_evident:
            yield own
        yield from self._tied(name)

    def _beside(self, name: str) -> Way | None:
        """Into the layers on which the noise sits."""
        on = self._on.get(id(self._layers[name]), [])
        if not on or not all(_has_weights(a) for a in on):
            return None

        def apply(model: nn.Module, factor: Tensor) -> None:
            for attached in on:
                layer = model.get_submodule(attached.name)
                width = _width(layer, inputs=attached.before)
                block = width // factor.numel() if attached.blocks else 1
                scale = scale_inputs if attached.before else scale_outputs
                scale(layer, factor.repeat_interleave(block))

        ends = [f"{'inputs' if a.before else 'outputs'} of {a.name or 'the model'!r}" for a in on]
        return Way(
            f"the {' and '.join(ends)}", tuple(a.name for a in on), apply, all(map(self._is_evident, on))
        )

    def _is_evident(self, attached: Attachment) -> bool:
        layer = attached.layer
        shared = any(id(p) in self._shared for p in layer.parameters(recurse=False))
        axis = activation_axis(layer)
        ndim = len(_weight_shape(layer))
        axes = (1, -1) if axis == -1 else (1, 1 - ndim) if ndim > 1 else (1,)
        return is_plain(layer) and not shared and (attached.blocks or attached.noise.axis in axes)

    def _before(self, name: str) -> Iterator[Way]:
        """Into the last layer that gives these structures before the noise is called."""
        maker = made_by(self._network, self._model, name)
        if maker is not None:
            yield Way(f"the outputs of {maker!r}", (maker,), partial(_scale_outputs_of, maker))

    def _after(self, name: str) -> Iterator[Way]:
        """Into the inputs of all layers that take what the noise multiplies, and nothing else of it."""
        readers = self._readers(name)
        recurrent = [a.name for a in self._on.get(id(self._layers[name]), []) if a.state]
        if readers or recurrent:
            ends = [f"the state that {own!r} takes itself" for own in recurrent]
            ends += [f"the inputs of {', '.join(map(repr, readers))}"] if readers else []
            apply = partial(_scale_inputs_of, readers, recurrent)
            yield Way(" and ".join(ends), (*recurrent, *readers), apply, in_readers=bool(readers))

    def _readers(self, name: str) -> dict[str, Ints]:
        """Layers with weights whose inputs are multiplied when the noise is, and by which structure each."""
        if name not in self._network.gates:
            return {}
        places = self._places(name)
        alone = sum(not places.keys().isdisjoint(self._places(other)) for other in self._network.gates) == 1
        met = self._met_together if alone else self._met([name])
        readers = {
            reader: np.array([places.get(root, -1) for root in self._roots(labels).tolist()])
            for reader, labels in met.items()
        }
        return {reader: index for reader, index in readers.items() if (index >= 0).any()}

    @cached_property
    def _met_together(self) -> dict[str, Ints]:
        """Readers of any noise layer: one run tells, where channels tell whose they are."""
        return self._met(list(self._layers))

    @cached_property
    def _plain(self) -> dict[tuple[str, int], Tensor]:
        """What layers with weights take while all gates are open."""
        return _inputs_of(self._model, self._inputs, self._weighted, {})

    def _met(self, names: list[str]) -> dict[str, Ints]:
        """Layers with weights whose inputs are multiplied when these noise layers are, and their labels."""
        plain = self._plain
        calls: dict[str, list[ModuleCall]] = {}
        for made in self._network.calls:
            calls.setdefault(made.name, []).append(made)
        readers: dict[str, Ints] = {}

        def met(reader: str, x: Tensor, turn: int) -> Tensor:
            before = plain[reader, turn]
            if x.shape != before.shape or torch.allclose(x, before, rtol=1e-6, atol=0.0):
                return x
            given = calls[reader][turn].given if turn < len(calls.get(reader, ())) else ()
            layer = self._weighted[reader]
            axis = -1 if isinstance(layer, nn.RNNBase) else activation_axis(layer)
            channels = given[axis] if axis is not None and len(given) > 1 else None
            if channels is not None:
                readers[reader] = channels.labels
            return before  # as it is once its weights have the factor: what follows is as it was

        factors = {name: test_factors(self._layers[name]) for name in names}
        _inputs_of(self._model, self._inputs, self._weighted, factors, met)
        return readers

    def _places(self, name: str) -> dict[int, int]:
        roots = self._roots(self._network.gates[name]).tolist()
        return {root: structure for structure, root in enumerate(roots)}

    def _roots(self, labels: Ints) -> Ints:
        return self._network.labels.roots(labels)

    def _tied(self, name: str) -> Iterator[Way]:
        """Its square root into weights that are used at both ends, as in an autoencoder with tied weights."""
        if name not in self._network.gates:
            return
        places = self._places(name)
        noise = {id(p) for layer in self._layers.values() for p in layer.parameters()}
        ends = [
            (key, axis, np.array([places.get(r, -1) for r in self._roots(found.labels).tolist()]))
            for key, axes in self._network.parameters.items()
            for axis, found in enumerate(axes)
        ]
        stored = {n: p for n, p in self._model.named_parameters() if id(p) not in noise}
        ends = [(key, axis, index) for key, axis, index in ends if key in stored and (index >= 0).any()]

        def apply(model: nn.Module, factor: Tensor) -> None:
            for key, axis, index in ends:
                parameter = model.get_parameter(key)
                scale_parameter(parameter, axis, _picked(factor.sqrt(), index))

        if ends:
            text = ", ".join(dict.fromkeys(key for key, _, _ in ends))
            names = tuple(dict.fromkeys(key.rpartition(".")[0] for key, _, _ in ends))
            yield Way(f"{text}, the square root at each end", names, apply, in_readers=True)


def test_factors(layer: MultiplicativeNoise) -> Tensor:
    """Factors from 0.3 to 0.9 for each structure, to try a way with: wrong ways are wrong by much then."""
    generator = torch.Generator().manual_seed(layer.num_structures)
    factors = 0.3 + 0.6 * torch.rand(layer.num_structures, dtype=torch.float64, generator=generator)
    return factors.to(layer.mu.device)


def _has_weights(attached: Attachment) -> bool:
    inputs = is_weighted(attached.layer) if attached.before else True
    return inputs and has_weight(attached.layer)


def _weight_shape(layer: nn.Module) -> torch.Size:
    weight = layer.weight
    assert isinstance(weight, Tensor)
    return weight.shape


def _width(layer: nn.Module, *, inputs: bool) -> int:
    """How many inputs, or outputs, a layer has; axis 1 of a weight counts those of one group."""
    axis = weight_axes(layer)[inputs]
    assert axis is not None
    return _weight_shape(layer)[axis] * (int(getattr(layer, "groups", 1)) if axis == 1 else 1)


def _scale_outputs_of(name: str, model: nn.Module, factor: Tensor) -> None:
    scale_outputs(model.get_submodule(name), factor)


def _scale_inputs_of(
    readers: dict[str, Ints], recurrent: list[str], model: nn.Module, factor: Tensor
) -> None:
    for name in recurrent:
        layer: Any = model.get_submodule(name)
        scale_own_state(layer, factor)
    for name, index in readers.items():
        scale_inputs(model.get_submodule(name), _picked(factor, index))


def _picked(factor: Tensor, index: Ints) -> Tensor:
    """The factor of each entry by the structure that it belongs to; 1 for those that belong to none (−1)."""
    places = torch.as_tensor(index, device=factor.device)
    return torch.where(places >= 0, factor[places.clamp_min(0)], 1.0)


@torch.no_grad()
def _inputs_of(
    model: nn.Module,
    example_inputs: Any,
    layers: dict[str, nn.Module],
    factors: dict[str, Tensor],
    met: Callable[[str, Tensor, int], Tensor] = lambda _name, x, _turn: x,
) -> dict[tuple[str, int], Tensor]:
    """What each of these layers takes at each of its calls; `met` may put something else in its place."""
    seen: dict[tuple[str, int], Tensor] = {}
    turns = dict.fromkeys(layers, 0)

    def hook(name: str, _layer: nn.Module, args: tuple[Any, ...]) -> Any:
        if not args or not isinstance(args[0], Tensor):
            return None
        turn, turns[name] = turns[name], turns[name] + 1
        seen[name, turn] = met(name, args[0], turn)
        return (seen[name, turn], *args[1:])

    handles = [layer.register_forward_pre_hook(partial(hook, name)) for name, layer in layers.items()]
    try:
        with in_mode(model, training=False), multiplying(model, factors):
            call(model, example_inputs)
    finally:
        for handle in handles:
            handle.remove()
    return seen
