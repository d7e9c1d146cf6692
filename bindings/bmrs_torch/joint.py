"""One draw a step for all small layers of a model: a layer of a hundred units costs a call, not arithmetic.

Layers of one `Team` draw together: the first that needs noise draws for all of them and takes the divergence,
the others find theirs ready and multiply by it. What is drawn is used once; a layer that finds nothing ready
draws again for all. Large layers, and whatever else does not qualify, draw alone by the fused operation.
"""

from __future__ import annotations

import threading
import weakref
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from bmrs_kernels import noise_cpu
from bmrs_torch.cpu import raise_unusable
from bmrs_torch.operators import differentiable_once

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from bmrs_torch.layer import MultiplicativeNoise

__all__ = ["Divergence", "Team"]

JOINT_DRAWS = 1 << 18
"""Largest number of draws made together: beyond, a layer's own call costs little beside its arithmetic, and
what is kept for the backward pass, twelve bytes a draw, would matter."""

JOINT_ELEMENTS = 1 << 18
"""Largest activations of a layer that draws with others: larger ones are worth several threads."""

Versions = tuple[int, int, int]


class Divergence(NamedTuple):
    """KL of the noise of several layers from its prior.

    Parameters
    ----------
    total : Tensor of float64, scalar
        Sum over all layers, in nats.
    values : Tensor of float64, shape (layers,)
        Sum over the kept structures of each.
    kept : Tensor of int64, shape (layers,)
        How many those are.
    """

    total: Tensor
    values: Tensor
    kept: Tensor


class _Step(NamedTuple):
    """What was drawn at once: noise unused yet, noise in use, the parameters' state, the divergence."""

    ready: dict[MultiplicativeNoise, Tensor]
    used: dict[MultiplicativeNoise, Tensor]
    versions: dict[MultiplicativeNoise, Versions]
    divergence: Divergence | None = None


class _Plan(NamedTuple):
    """Who draws, and where everything lies; the same from step to step, as long as the key is."""

    key: tuple[Any, ...]
    layers: list[MultiplicativeNoise]
    drawing: list[MultiplicativeNoise]
    names: dict[MultiplicativeNoise, str]
    parameters: tuple[Tensor, ...]
    masks: tuple[Tensor, ...]
    sizes: NDArray[np.int64]
    splits: list[int]
    drawn: NDArray[np.int64]
    widths: list[int]
    width: int
    starts: NDArray[np.int64]
    addresses: NDArray[np.int64]
    draw_addresses: NDArray[np.int64]
    draw_bounds: tuple[float, float]
    bounds: NDArray[np.float64] | None


class _State(threading.local):
    step: _Step = _Step({}, {}, {})
    plan: _Plan | None = None


class Team:
    """The noise layers of a model that draw together; every thread draws for itself.

    A copied or unpickled team is empty, until its layers join again.
    """

    def __init__(self) -> None:
        # Of each layer, whether its last call qualified: what it sees is known after its first.
        self._members: weakref.WeakKeyDictionary[MultiplicativeNoise, bool] = weakref.WeakKeyDictionary()
        self._names: weakref.WeakKeyDictionary[MultiplicativeNoise, str] = weakref.WeakKeyDictionary()
        self._state = _State()
        self._divergence_wanted = False

    def __deepcopy__(self, _memo: dict[int, Any]) -> Team:
        return Team()

    def __reduce__(self) -> tuple[type[Team], tuple[()]]:
        return Team, ()

    def add(self, layer: MultiplicativeNoise, name: str) -> None:
        """Let a layer draw with the others; errors call it by its name. Layers of a copy join themselves."""
        self._members[layer] = False
        self._names[layer] = name

    def holds(self, layers: Sequence[MultiplicativeNoise]) -> bool:
        """Tell whether the members are these layers, in this order."""
        return list(self._members) == layers

    def noise(self, layer: MultiplicativeNoise, x: Tensor) -> Tensor | None:
        """θ·mask for the samples of `x`, shape (samples, structures), or None: the layer is to draw alone."""
        step = self._state.step
        theta = step.ready.pop(layer, None)
        if not _qualifies(layer, x):
            step.used.pop(layer, None)
            self._members[layer] = False
            return None
        if torch._C._current_graph_task_id() != -1:
            # In a backward pass a checkpointed segment is computed again: it must see what it saw.
            return step.used.get(layer)
        if theta is None or theta.shape[0] != x.shape[0] or step.versions[layer] != _versions(layer):
            if not self._members.get(layer):
                self._members[layer] = True
                return None
            step = self._state.step = self._lead(layer, x.shape[0])
            theta = step.ready.pop(layer, None)
            if theta is None:
                return None
        step.used[layer] = theta
        return theta

    def divergence(self, layers: Sequence[MultiplicativeNoise]) -> Divergence | None:
        """The divergence of these layers, if it was taken with this step's noise."""
        self._divergence_wanted = True
        step = self._state.step
        if step.divergence is None or not torch.is_grad_enabled():
            return None
        return step.divergence if all(step.versions[layer] == _versions(layer) for layer in layers) else None

    def _lead(self, leader: MultiplicativeNoise, samples: int) -> _Step:
        """Draw for all that can join the leader, and take the divergence, if it is wanted, of all members."""
        state = self._state
        key = (leader.log_a, leader.log_b, self._divergence_wanted, *map(_key, self._members.items()))
        if state.plan is None or state.plan.key != key:
            state.plan = self._plan(key, (leader.log_a, leader.log_b))
        plan = state.plan
        if not plan.drawing or samples * plan.width > JOINT_DRAWS:
            return _Step({}, {}, {})
        results = _JointStep.apply(plan, samples, *plan.parameters)  # type: ignore[no-untyped-call]
        versions = {layer: _versions(layer) for layer in plan.layers}
        divergence = Divergence(*results[-3:]) if plan.bounds is not None else None
        return _Step(dict(zip(plan.drawing, results, strict=False)), {}, versions, divergence)

    def _plan(self, key: tuple[Any, ...], bounds: tuple[float, float]) -> _Plan:
        found = [(layer, qualified, _tensors(layer)) for layer, qualified in self._members.items()]
        plain = [_is_plain(*tensors) for _, _, tensors in found]
        with_divergence = self._divergence_wanted and all(plain)
        layers: list[MultiplicativeNoise] = []
        places: list[int] = []
        tensors: list[tuple[Tensor, Tensor, Tensor]] = []
        for (layer, qualified, own), usable in zip(found, plain, strict=True):
            draws = usable and qualified and layer.training and (layer.log_a, layer.log_b) == bounds
            if draws:
                places.append(len(layers))
            if draws or with_divergence:
                layers.append(layer)
                tensors.append(own)
        mu, log_sigma, masks = zip(*tensors, strict=True) if tensors else ((), (), ())
        sizes = np.array([m.shape[0] for m in mu], np.int64)
        addresses = np.array([[t.data_ptr() for t in row] for row in (mu, log_sigma, masks)], np.int64)
        return _Plan(
            key=key,
            layers=layers,
            drawing=[layers[i] for i in places],
            names={layer: self._names.get(layer, "") for layer in layers},
            parameters=(*mu, *log_sigma),
            masks=masks,
            sizes=sizes,
            splits=sizes.tolist() * 2,
            drawn=sizes[places],
            widths=sizes[places].tolist(),
            width=int(sizes[places].sum()),
            starts=(np.cumsum(sizes) - sizes)[places],
            addresses=addresses,
            draw_addresses=np.ascontiguousarray(addresses[:, places]),
            draw_bounds=bounds,
            bounds=np.array([[layer.log_a for layer in layers], [layer.log_b for layer in layers]])
            if with_divergence
            else None,
        )


def _tensors(layer: MultiplicativeNoise) -> tuple[Tensor, Tensor, Tensor]:
    # Not by attribute: a module looks those up in Python, a dozen times a layer and step.
    parameters: dict[str, Any] = layer._parameters
    return parameters["mu"], parameters["log_sigma"], layer._buffers["mask"]  # type: ignore[return-value]


def _key(member: tuple[MultiplicativeNoise, bool]) -> tuple[Any, ...]:
    """What a plan depends on of one layer."""
    layer, qualified = member
    mu, log_sigma, mask = _tensors(layer)
    own = (layer.training, layer.log_a, layer.log_b, mu.requires_grad, log_sigma.requires_grad)
    return qualified, own, id(mu), mu.data_ptr(), log_sigma.data_ptr(), mask.data_ptr()


def _versions(layer: MultiplicativeNoise) -> Versions:
    mu, log_sigma, mask = _tensors(layer)
    return mu._version, log_sigma._version, mask._version


def _is_plain(*tensors: Tensor) -> bool:
    for tensor in tensors:
        if tensor.dtype != torch.float32 or not tensor.is_cpu or not tensor.is_contiguous():
            return False
    return True


def _qualifies(layer: MultiplicativeNoise, x: Tensor) -> bool:
    if type(x) is not Tensor or x.dtype != torch.float32 or not x.is_cpu or layer.share != "sample":
        return False
    shape, axis = x.shape, layer.axis
    if not 0 < x.numel() <= JOINT_ELEMENTS or not (0 < axis < len(shape) or -len(shape) < axis < 0):
        return False
    return (
        shape[axis] == layer._parameters["mu"].shape[0]  # type: ignore[union-attr]
        and torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cpu")
        and not torch._C._are_functorch_transforms_active()
    )


class _JointStep(torch.autograd.Function):
    """θ of the layers that draw, then the divergence of all, if it is wanted.

    Keeps the derivatives, not the parameters, so that parts of it can be differentiated at different times.
    """

    @staticmethod
    def forward(ctx: Any, plan: _Plan, samples: int, *_parameters: Tensor) -> tuple[Tensor, ...]:
        ctx.plan, ctx.divergence = plan, None
        ctx.set_materialize_grads(False)
        thetas = tuple([torch.empty(samples, width) for width in plan.widths])
        ctx.derivatives = np.empty((2, samples, plan.width), np.float32)
        places = np.array([t.data_ptr() for t in thetas], np.int64)
        seed = int(torch.randint(-(2**63), 2**63 - 1, (1,), dtype=torch.int64))
        bad = noise_cpu.joint_draw(
            plan.draw_addresses, places, plan.drawn, plan.draw_bounds, seed, ctx.derivatives
        )
        if bad >= 0:
            _raise_unusable(plan, plan.drawing, bad)
        if plan.bounds is None:
            return thetas
        ctx.divergence = np.empty((2, int(plan.sizes.sum())), np.float32)
        values, kept, bad = noise_cpu.divergence(
            "float32", plan.addresses, plan.sizes, plan.bounds, ctx.divergence
        )
        if bad >= 0:
            _raise_unusable(plan, plan.layers, bad)
        counts = torch.from_numpy(kept)
        ctx.mark_non_differentiable(counts)
        return *thetas, torch.from_numpy(np.array(values.sum())), torch.from_numpy(values), counts

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, *grad_outputs: Tensor | None) -> tuple[Tensor | None, ...]:
        plan: _Plan = ctx.plan
        drawing = len(plan.drawing)
        by_theta = [None if g is None else g.contiguous() for g in grad_outputs[:drawing]]
        addresses = np.array([0 if g is None else g.data_ptr() for g in by_theta], np.int64)
        gradients = _of_divergence(plan, ctx.divergence, *grad_outputs[drawing : drawing + 2])
        noise_cpu.add_joint_gradients(addresses, plan.drawn, plan.starts, ctx.derivatives, gradients)
        return None, None, *torch.from_numpy(gradients).flatten().split(plan.splits)


def _of_divergence(
    plan: _Plan,
    derivatives: NDArray[np.float32] | None,
    by_total: Tensor | None = None,
    by_values: Tensor | None = None,
) -> NDArray[np.float32]:
    """The gradients by mu and log sigma that come of the divergence, (2, structures of all layers)."""
    if derivatives is None or (by_total is None and by_values is None):
        return np.zeros((2, sum(plan.splits) // 2), np.float32)
    weights = np.zeros(plan.sizes.size) if by_values is None else by_values.numpy().copy()
    weights += 0.0 if by_total is None else by_total.item()
    return noise_cpu.scaled_gradients("float32", plan.sizes, weights, derivatives)


def _raise_unusable(plan: _Plan, layers: list[MultiplicativeNoise], structure: int) -> None:
    """Say which layer and structure the first unusable one is, counted through these layers."""
    for layer in layers:
        mu, log_sigma, _ = _tensors(layer)
        if structure < len(mu):
            raise_unusable(mu, log_sigma, structure, plan.names[layer])
        structure -= len(mu)
