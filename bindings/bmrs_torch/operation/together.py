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

from bmrs_kernels.cpu import noise as noise_cpu
from bmrs_torch.operation.cpu import raise_unusable
from bmrs_torch.operation.operators import applied, differentiable_once, scaled

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


class _Seat(NamedTuple):
    """A layer as a plan found it: while this is so, the plan holds."""

    layer: MultiplicativeNoise
    mu: Tensor
    log_sigma: Tensor
    mask: Tensor
    addresses: tuple[int, int, int]
    mask_version: int
    state: tuple[bool, bool, float, float]


class _Plan(NamedTuple):
    """Who draws, and where everything lies; the same from step to step, as long as it holds."""

    seats: list[_Seat]
    leading_bounds: tuple[float, float]
    with_divergence: bool
    drawing: list[MultiplicativeNoise]
    whole: set[MultiplicativeNoise]
    layers: list[MultiplicativeNoise]
    parameters: tuple[Tensor, ...]
    sizes: NDArray[np.int64]
    splits: list[int]
    drawn: NDArray[np.int64]
    widths: list[int]
    width: int
    starts: NDArray[np.int64]
    addresses: NDArray[np.int64]
    draw_addresses: NDArray[np.int64]
    bounds: NDArray[np.float64] | None


class _State(threading.local):
    """Of one thread: noise unused yet, noise in use, the parameters' versions at the draw, the divergence."""

    plan: _Plan | None = None
    divergence: Divergence | None = None

    def __init__(self) -> None:
        self.ready: dict[MultiplicativeNoise, Tensor] = {}
        self.used: dict[MultiplicativeNoise, Tensor] = {}
        self.versions: dict[MultiplicativeNoise, int] = {}
        self.seed = torch.empty(1, dtype=torch.int64)


class Team:
    """The noise layers of a model that draw together; every thread draws for itself.

    A copied or unpickled team is empty, until its layers join again.
    """

    def __init__(self) -> None:
        self._members: list[tuple[weakref.ref[MultiplicativeNoise], str]] = []
        self._state = _State()
        self._divergence_wanted = False

    def __deepcopy__(self, _memo: dict[int, Any]) -> Team:
        return Team()

    def __reduce__(self) -> tuple[type[Team], tuple[()]]:
        return Team, ()

    def add(self, layer: MultiplicativeNoise, name: str) -> None:
        """Let a layer draw with the others; errors call it by its name. Layers of a copy join themselves."""
        self._members.append((weakref.ref(layer), name))

    def holds(self, layers: Sequence[MultiplicativeNoise]) -> bool:
        """Tell whether the members are these layers, in this order."""
        return self._layers() == layers

    def _layers(self) -> list[MultiplicativeNoise]:
        return [layer for member, _ in self._members if (layer := member()) is not None]

    def multiplied(self, layer: MultiplicativeNoise, x: Tensor) -> Tensor | None:
        """`x` times θ·mask of its samples, or None: the layer is to draw alone."""
        theta = self._noise(layer, x)
        if theta is None:
            return None
        plan = self._state.plan
        # Where nothing is pruned torch's product will do: there is no 0 to keep clear of infinities and NaN.
        plain = x.ndim == 2 and plan is not None and layer in plan.whole
        return x * theta if plain else scaled(x, theta, layer.axis % x.ndim)

    def _noise(self, layer: MultiplicativeNoise, x: Tensor) -> Tensor | None:
        state = self._state
        theta = state.ready.pop(layer, None)
        if not _qualifies(layer, x):
            state.used.pop(layer, None)
            layer.draws_jointly = False
            return None
        if torch._C._current_graph_task_id() != -1:
            # In a backward pass a checkpointed segment is computed again: it must see what it saw.
            return state.used.get(layer)
        if theta is None or theta.shape[0] != x.shape[0] or state.versions[layer] != _version(layer):
            if not layer.draws_jointly:
                layer.draws_jointly = True  # what it sees is known after its first call
                return None
            self._lead(state, layer, x.shape[0])
            theta = state.ready.pop(layer, None)
            if theta is None:
                return None
        state.used[layer] = theta
        return theta

    def divergence(self, layers: Sequence[MultiplicativeNoise]) -> Divergence | None:
        """The divergence of these layers, if it was taken with this step's noise."""
        self._divergence_wanted = True
        state = self._state
        if state.divergence is None or not torch.is_grad_enabled():
            return None
        for layer in layers:
            if state.versions[layer] != _version(layer):
                return None
        return state.divergence

    def _lead(self, state: _State, leader: MultiplicativeNoise, samples: int) -> None:
        """Draw for all that can join the leader, and take the divergence, if it is wanted, of all members."""
        plan = state.plan
        if plan is None or not self._holds(plan, leader):
            plan = state.plan = self._plan(leader)
        state.ready, state.used, state.versions, state.divergence = {}, {}, {}, None
        if not plan.drawing or samples * plan.width > JOINT_DRAWS:
            return
        seed = int(state.seed.random_(-(2**63), 2**63 - 1))  # what torch.randint draws, in half its time
        theta, *divergence = applied(_JointStep, self, plan, samples, seed, *plan.parameters)
        for layer, own in zip(plan.drawing, theta.split_with_sizes(plan.widths, 1), strict=True):
            state.ready[layer] = own
        for seat in plan.seats:
            state.versions[seat.layer] = seat.mu._version + seat.log_sigma._version + seat.mask._version
        if plan.bounds is not None:
            state.divergence = Divergence(*divergence)

    def _holds(self, plan: _Plan, leader: MultiplicativeNoise) -> bool:
        if plan.with_divergence != self._divergence_wanted or len(plan.seats) != len(self._layers()):
            return False
        if plan.leading_bounds != (leader.log_a, leader.log_b):
            return False
        for layer, mu, log_sigma, mask, addresses, mask_version, state in plan.seats:
            parameters = layer._parameters
            if (
                parameters["mu"] is not mu
                or parameters["log_sigma"] is not log_sigma
                or layer._buffers["mask"] is not mask
                or mask._version != mask_version
                or (mu.data_ptr(), log_sigma.data_ptr(), mask.data_ptr()) != addresses
                or (layer.training, layer.draws_jointly, layer.log_a, layer.log_b) != state
            ):
                return False
        return True

    def _plan(self, leader: MultiplicativeNoise) -> _Plan:
        leading_bounds = leader.log_a, leader.log_b
        seats = [_seat(layer) for layer in self._layers()]
        plain = [_is_plain(seat.mu, seat.log_sigma, seat.mask) for seat in seats]
        with_divergence = self._divergence_wanted and all(plain)
        joining: list[_Seat] = []
        places: list[int] = []
        for seat, usable in zip(seats, plain, strict=True):
            draws = usable and seat.state == (True, True, *leading_bounds)
            if draws:
                places.append(len(joining))
            if draws or with_divergence:
                joining.append(seat)
        sizes = np.array([seat.mu.shape[0] for seat in joining], np.int64)
        addresses = np.array([seat.addresses for seat in joining], np.int64).reshape(-1, 3).T.copy()
        drawn = sizes[places]
        return _Plan(
            seats=seats,
            leading_bounds=leading_bounds,
            with_divergence=self._divergence_wanted,
            drawing=[joining[place].layer for place in places],
            whole={seat.layer for seat in joining if bool(seat.mask.all())},
            layers=[seat.layer for seat in joining],
            parameters=(*(seat.mu for seat in joining), *(seat.log_sigma for seat in joining)),
            sizes=sizes,
            splits=sizes.tolist() * 2,
            drawn=drawn,
            widths=drawn.tolist(),
            width=int(drawn.sum()),
            starts=(np.cumsum(sizes) - sizes)[places],
            addresses=addresses,
            draw_addresses=np.ascontiguousarray(addresses[:, places]),
            bounds=np.array([seat.state[2:] for seat in joining]).T.copy() if with_divergence else None,
        )

    def raise_unusable(self, layers: list[MultiplicativeNoise], structure: int) -> None:
        """Say which layer and structure the first unusable one is, counted through these layers."""
        names = {member(): name for member, name in self._members}
        for layer in layers:
            if structure < layer.num_structures:
                raise_unusable(layer.mu, layer.log_sigma, structure, names[layer])
            structure -= layer.num_structures


def _seat(layer: MultiplicativeNoise) -> _Seat:
    mu, log_sigma, mask = layer.mu, layer.log_sigma, layer.mask
    addresses = mu.data_ptr(), log_sigma.data_ptr(), mask.data_ptr()
    state = layer.training, layer.draws_jointly, layer.log_a, layer.log_b
    return _Seat(layer, mu, log_sigma, mask, addresses, mask._version, state)


def _version(layer: MultiplicativeNoise) -> int:
    """Grows with every change in place of the parameters or the mask."""
    # Not by attribute: a module looks those up in Python, which costs more than all the rest here.
    parameters: dict[str, Any] = layer._parameters
    mask: Any = layer._buffers["mask"]
    version: int = parameters["mu"]._version + parameters["log_sigma"]._version + mask._version
    return version


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
    """θ of the layers that draw, side by side, then the divergence of all, if it is wanted.

    Keeps the derivatives, not the parameters, so that parts of it can be differentiated at different times.
    """

    @staticmethod
    def forward(ctx: Any, team: Team, plan: _Plan, samples: int, seed: int, *_parameters: Tensor) -> Any:
        ctx.plan, ctx.divergence = plan, None
        ctx.set_materialize_grads(False)
        theta = torch.empty(samples, plan.width)
        ctx.derivatives = np.empty((2, samples, plan.width), np.float32)
        bad = noise_cpu.joint_draw(
            plan.draw_addresses, plan.drawn, plan.leading_bounds, seed, theta.numpy(), ctx.derivatives
        )
        if bad >= 0:
            team.raise_unusable(plan.drawing, bad)
        if plan.bounds is None:
            return (theta,)
        ctx.divergence = np.empty((2, sum(plan.splits) // 2), np.float32)
        values, kept, bad = noise_cpu.divergence(
            "float32", plan.addresses, plan.sizes, plan.bounds, ctx.divergence
        )
        if bad >= 0:
            team.raise_unusable(plan.layers, bad)
        counts = torch.from_numpy(kept)
        ctx.mark_non_differentiable(counts)
        return theta, torch.from_numpy(np.array(values.sum())), torch.from_numpy(values), counts

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, by_theta: Tensor | None, *by_divergence: Tensor | None) -> Any:
        plan: _Plan = ctx.plan
        gradients = _of_divergence(plan, ctx.divergence, *by_divergence[:2])
        if by_theta is not None:
            d_theta = by_theta.contiguous().numpy()
            noise_cpu.add_joint_gradients(d_theta, plan.drawn, plan.starts, ctx.derivatives, gradients)
        return None, None, None, None, *torch.from_numpy(gradients).flatten().split_with_sizes(plan.splits)


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
