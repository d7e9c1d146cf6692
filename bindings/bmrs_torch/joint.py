"""One draw a step for all small layers of a model: a layer of a hundred units costs a call, not arithmetic.

Layers of one `Team` that see a matrix (samples, structures) draw together: the first that needs noise draws
for all of them, the others find theirs ready and multiply by it. What is drawn is used once; a layer that
finds nothing ready draws again for all. Convolutional and larger layers, and whatever else does not qualify,
draw alone by the fused operation.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from bmrs_kernels import noise_cpu
from bmrs_torch.cpu import raise_unusable

if TYPE_CHECKING:
    from bmrs_torch.layer import MultiplicativeNoise

__all__ = ["Team"]

JOINT_DRAWS = 1 << 18
"""Largest number of draws made together: beyond, a layer's own call costs little beside its arithmetic, and
what is kept for the backward pass, twelve bytes a draw, would matter."""

Versions = tuple[int, ...]


class Team:
    """The noise layers of a model that draw together; every thread draws for itself.

    A copied or unpickled team is empty, until its layers join again.
    """

    def __init__(self) -> None:
        self._members: weakref.WeakKeyDictionary[MultiplicativeNoise, None] = weakref.WeakKeyDictionary()
        self._local = threading.local()
        self._divergence_wanted = False

    def __deepcopy__(self, _memo: dict[int, Any]) -> Team:
        return Team()

    def __reduce__(self) -> tuple[type[Team], tuple[()]]:
        return Team, ()

    def add(self, layer: MultiplicativeNoise) -> None:
        """Let a layer draw with the others."""
        self._members[layer] = None

    def holds(self, layers: Sequence[MultiplicativeNoise]) -> bool:
        """Tell whether the members are these layers."""
        return len(self._members) == len(layers) and all(layer in self._members for layer in layers)

    def noise(self, layer: MultiplicativeNoise, x: Tensor) -> Tensor | None:
        """θ·mask for the samples of `x`, shape (samples, structures), or None: the layer is to draw alone."""
        step = self._step()
        theta = step.ready.pop(layer, None)
        if not _qualifies(layer, x):
            step.used.pop(layer, None)
            return None
        if _in_backward():
            # A checkpointed segment is computed again: it must see what it saw.
            return step.used.get(layer)
        if theta is None or theta.shape[0] != x.shape[0] or step.versions[layer] != _versions(layer):
            step = self._local.step = self._lead(layer, x.shape[0])
            theta = step.ready.pop(layer, None)
            if theta is None:
                return None
        step.used[layer] = theta
        return theta

    def divergence(self, layers: Sequence[MultiplicativeNoise]) -> tuple[Tensor, Tensor] | None:
        """KL of each layer's noise and its number of kept structures, if computed with this step's noise."""
        self._divergence_wanted = True
        step = self._step()
        found = step.divergence
        if found is None or not torch.is_grad_enabled() or _in_backward():
            return None
        if tuple(layers) != step.layers or any(step.versions[layer] != _versions(layer) for layer in layers):
            return None
        return found

    def _step(self) -> _Step:
        step: _Step | None = getattr(self._local, "step", None)
        if step is None:
            step = self._local.step = _Step()
        return step

    def _lead(self, leader: MultiplicativeNoise, samples: int) -> _Step:
        """Draw for all that can join a layer, and take the divergence of all members."""
        members = tuple(self._members)
        bounds = (leader.log_a, leader.log_b)
        drawing = [layer for layer in members if _can_join(layer, bounds)]
        if leader not in drawing or samples * sum(layer.num_structures for layer in drawing) > JOINT_DRAWS:
            return _Step()
        with_divergence = self._divergence_wanted and all(_is_plain(layer) for layer in members)
        others = [layer for layer in members if layer not in drawing] if with_divergence else []
        seed = int(torch.randint(-(2**63), 2**63 - 1, (1,), dtype=torch.int64).item())
        layers = (*drawing, *others)
        mu, log_sigma, masks = zip(*(_tensors(layer) for layer in layers), strict=True)
        call = _Call(layers, len(drawing), samples, bounds, seed, masks, with_divergence)
        results = _JointStep.apply(call, *mu, *log_sigma)  # type: ignore[no-untyped-call]
        versions = {layer: _versions(layer) for layer in layers}
        step = _Step(dict(zip(drawing, results, strict=False)), {}, versions, members)
        if with_divergence:
            step.divergence = results[-2:]
            if layers != members:
                places = torch.tensor([layers.index(layer) for layer in members])
                step.divergence = (results[-2][places], results[-1][places])
        return step


class _Step:
    """What was drawn at once: noise nobody has used yet, noise in use, and the divergence."""

    def __init__(
        self,
        ready: dict[MultiplicativeNoise, Tensor] | None = None,
        used: dict[MultiplicativeNoise, Tensor] | None = None,
        versions: dict[MultiplicativeNoise, Versions] | None = None,
        layers: tuple[MultiplicativeNoise, ...] = (),
    ) -> None:
        self.ready = ready or {}
        self.used = used or {}
        self.versions = versions or {}
        self.layers = layers
        self.divergence: tuple[Tensor, Tensor] | None = None


def _tensors(layer: MultiplicativeNoise) -> tuple[Tensor, Tensor, Tensor]:
    # Not by attribute: a module looks those up in Python, a dozen times a layer and step.
    mu, log_sigma, mask = layer._parameters["mu"], layer._parameters["log_sigma"], layer._buffers["mask"]
    assert mu is not None
    assert log_sigma is not None
    assert mask is not None
    return mu, log_sigma, mask


def _qualifies(layer: MultiplicativeNoise, x: Tensor) -> bool:
    return (
        type(x) is Tensor
        and x.ndim == 2
        and x.dtype == torch.float32
        and x.is_cpu
        and x.shape[1] == len(_tensors(layer)[0])
        and len(x) > 0
        and torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cpu")
        and not torch._C._are_functorch_transforms_active()
    )


def _is_plain(layer: MultiplicativeNoise) -> bool:
    return all(t.dtype == torch.float32 and t.is_cpu and t.is_contiguous() for t in _tensors(layer))


def _can_join(layer: MultiplicativeNoise, bounds: tuple[float, float]) -> bool:
    return (
        layer.training
        and layer.share == "sample"
        and layer.axis in (1, -1)
        and layer.saw_matrix
        and (layer.log_a, layer.log_b) == bounds
        and _is_plain(layer)
    )


def _in_backward() -> bool:
    return torch._C._current_graph_task_id() != -1


def _versions(layer: MultiplicativeNoise) -> Versions:
    mu, log_sigma, mask = _tensors(layer)
    return (
        mu._version,
        log_sigma._version,
        mask._version,
        mu.data_ptr(),
        log_sigma.data_ptr(),
        mask.data_ptr(),
    )


class _Call(NamedTuple):
    layers: tuple[MultiplicativeNoise, ...]
    drawing: int
    samples: int
    bounds: tuple[float, float]
    seed: int
    masks: tuple[Tensor, ...]
    with_divergence: bool


class _JointStep(torch.autograd.Function):
    """θ of the first layers, then the divergence of all and their kept structures, if it is wanted.

    Keeps the derivatives, not the parameters, so that parts of it can be differentiated at different times.
    """

    @staticmethod
    def forward(ctx: Any, call: _Call, *parameters: Tensor) -> tuple[Tensor, ...]:
        layers = len(call.masks)
        mu, log_sigma = parameters[:layers], parameters[layers:]
        sizes = np.array([m.shape[0] for m in mu], np.int64)
        drawn = sizes[: call.drawing]
        thetas = tuple(torch.empty(call.samples, size) for size in drawn.tolist())
        addresses = [[t.data_ptr() for t in tensors] for tensors in (mu, log_sigma, call.masks)]
        derivatives = np.empty((2, call.samples, int(drawn.sum())), np.float32)
        joint = [[*row[: call.drawing]] for row in (*addresses, [t.data_ptr() for t in thetas])]
        bad = noise_cpu.joint_draw(joint, drawn, call.bounds, call.seed, derivatives)
        if bad >= 0:
            raise_unusable(torch.cat(mu), torch.cat(log_sigma), bad)
        ctx.sizes, ctx.drawn, ctx.derivatives, ctx.divergence = sizes, drawn, derivatives, None
        ctx.set_materialize_grads(False)
        if not call.with_divergence:
            return thetas
        ctx.divergence = np.empty((2, int(sizes.sum())), np.float32)
        log_a, log_b = (np.array([getattr(layer, name) for layer in call.layers]) for name in ("log_a", "log_b"))
        values, kept, bad = noise_cpu.divergence(
            "float32", addresses, sizes, (log_a, log_b), ctx.divergence
        )
        if bad >= 0:
            raise_unusable(torch.cat(mu), torch.cat(log_sigma), bad)
        counts = torch.from_numpy(kept)
        ctx.mark_non_differentiable(counts)
        return *thetas, torch.from_numpy(values), counts

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor | None) -> tuple[Tensor | None, ...]:
        drawing = len(ctx.drawn)
        by_theta = [None if g is None else g.contiguous() for g in grad_outputs[:drawing]]
        by_divergence = grad_outputs[drawing] if ctx.divergence is not None else None
        total = np.zeros((2, int(ctx.sizes.sum())), np.float32)
        if by_divergence is not None:
            weights = np.ascontiguousarray(by_divergence.numpy())
            total = noise_cpu.scaled_gradients("float32", ctx.sizes, weights, ctx.divergence)
        if any(g is not None for g in by_theta):
            addresses = [0 if g is None else g.data_ptr() for g in by_theta]
            noise_cpu.add_joint_gradients(addresses, ctx.drawn, ctx.derivatives, total)
        parts = torch.from_numpy(total)
        sizes = ctx.sizes.tolist()
        return None, *parts[0].split(sizes), *parts[1].split(sizes)
