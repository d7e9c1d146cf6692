"""What a network's channels are coupled to, where they are summed over, and which can't be removed."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.utils.weak import WeakIdKeyDictionary

from bmrs_torch.channels.arithmetic import ARITHMETIC
from bmrs_torch.channels.axes import Axis
from bmrs_torch.channels.calling import (
    TrainingStep,
    call,
    check_has_values,
    in_mode,
    tensors_of,
    training_copy,
)
from bmrs_torch.channels.computed import follow_computed, let_go_of_graphs
from bmrs_torch.channels.follow_by import follow_modules, rules_of_operations
from bmrs_torch.channels.labels import Labels
from bmrs_torch.channels.movement import MOVEMENT
from bmrs_torch.channels.noting import Size, noting
from bmrs_torch.channels.reached import unreached_twins
from bmrs_torch.channels.recurrent import RECURRENCE, steps_followed
from bmrs_torch.channels.stored import check_stored
from bmrs_torch.channels.trace import Balance, BrokenRuleError, Grouped, Reshape, Trace, Use
from bmrs_torch.channels.variants import another_batch, other_values
from bmrs_torch.channels.work import Work, note_work
from bmrs_torch.layer import MultiplicativeNoise
from bmrs_torch.wrapping import whole

if TYPE_CHECKING:
    from bmrs_torch.channels.labels import Bools, Ints

OUTPUT = "it is the model's output"


@dataclass(frozen=True)
class Probe:
    """A gate tried out without being inserted.

    Attributes
    ----------
    module : str
        Name of a module.
    before : bool
        Whether it lies on the module's input, not on its output.
    axis : int
        Of the tensor there.
    closed : ndarray of bool
        For which entries of that axis it is closed.
    """

    module: str
    before: bool
    axis: int
    closed: Bools


@dataclass(frozen=True)
class ModuleCall:
    """One call of a module: what it is given and gives.

    Attributes
    ----------
    name : str
    given, result : tuple of Axis or None
        Axes of its first input and of its output; empty where that isn't one tensor.
    source : str
        Name of the module whose output is the input, or "".
    """

    name: str
    given: tuple[Axis | None, ...]
    result: tuple[Axis | None, ...]
    source: str


@dataclass
class FollowedNetwork:
    """The channels of a network after it was run on an example.

    Attributes
    ----------
    labels : Labels
    parameters : dict of str to tuple of Axis
        Labels of every axis of every parameter and buffer that takes part.
    gates : dict of str to ndarray of int64
        Labels of the structures of each noise layer that takes part.
    calls : list of ModuleCall
        In the order in which the calls ended, in evaluation mode.
    states : dict of str to ndarray of int64
        Labels of the units of each recurrent layer that takes part.
    sizes : list of Size
        Numbers that modules remember, where torch met them.
    work : list of Work
        Multiply-adds of each operation, in evaluation mode.
    in_training : bool
        Whether it was run in training mode too, or that was tried.
    uses, balances, reshapes, grouped, lost, sums
        See :class:`Trace`.
    """

    labels: Labels = field(default_factory=Labels)
    parameters: dict[str, tuple[Axis, ...]] = field(default_factory=dict)
    gates: dict[str, Ints] = field(default_factory=dict)
    calls: list[ModuleCall] = field(default_factory=list)
    states: dict[str, Ints] = field(default_factory=dict)
    uses: list[Use] = field(default_factory=list)
    balances: list[Balance] = field(default_factory=list)
    reshapes: list[Reshape] = field(default_factory=list)
    grouped: dict[str, Grouped] = field(default_factory=dict)
    lost: list[tuple[Ints, str]] = field(default_factory=list)
    sums: list[Ints] = field(default_factory=list)
    sizes: list[Size] = field(default_factory=list)
    work: list[Work] = field(default_factory=list)
    in_training: bool = False

    def obstacles(self) -> dict[int, str]:
        """Why a class of channels can't be removed, by its representative, whatever gates are closed."""
        return self.labels.pinned()

    def widths(self, chosen: Callable[[Ints], Bools]) -> set[int]:
        """How long the axes of parameters are, and of what modules take and give, that hold chosen labels."""
        axes = [axis for found in self.parameters.values() for axis in found]
        axes += [axis for call in self.calls for axis in (*call.given, *call.result) if axis is not None]
        return {axis.size for axis in axes if chosen(axis.labels).any()}

    def live(self) -> dict[int, str]:
        """Where a class of channels adds something to a sum, by its representative."""
        places: dict[int, str] = {}
        for use in self.uses:
            for root in np.unique(self.labels.roots(use.labels[~use.zero])).tolist():
                places.setdefault(root, use.module)
        return places

    def reopened(self) -> dict[int, str]:
        """Where a class of channels that was 0 ceases to be, by its representative."""
        places: dict[int, str] = {}
        for labels, place in self.lost:
            for root in np.unique(self.labels.roots(labels)).tolist():
                places.setdefault(root, place)
        return places


Closed = Callable[[MultiplicativeNoise], "Bools"]


def masked(layer: MultiplicativeNoise) -> Bools:
    """The structures of a layer that are masked."""
    dead: Bools = ~layer.kept().cpu().numpy()
    return dead


def every(layer: MultiplicativeNoise) -> Bools:
    """All structures of a layer."""
    return np.ones(layer.num_structures, dtype=np.bool_)


def none_closed(layer: MultiplicativeNoise) -> Bools:
    """None of them."""
    return np.zeros(layer.num_structures, dtype=np.bool_)


def follow(
    model: nn.Module,
    example_inputs: Any,
    *,
    closed: Closed = masked,
    probes: Sequence[Probe] = (),
    training: bool = False,
    training_step: TrainingStep | None = None,
    routed: bool = False,
) -> FollowedNetwork:
    """Run a model in evaluation mode and follow its channels; what takes part only in training is run too.

    Parameters
    ----------
    model : nn.Module
        It is left as it is.
    example_inputs : Tensor, tuple, list or dict
        One input, positional inputs, or keyword inputs.
    closed : callable
        Which structures of a noise layer are 0.
    probes : sequence of Probe
        Gates to try out.
    training : bool
        Run it in training mode even if evaluation takes all its parameters.
    training_step : callable, optional
        What to run in training mode, with a copy of the model; by default the copy is called on the example.
    routed : bool
        Where values choose among modules of one shape, run it on other values too, to reach more of them.

    Returns
    -------
    FollowedNetwork
    """
    model = whole(model)
    check_has_values(model)
    let_go_of_graphs(model)
    check_stored(model)
    network = FollowedNetwork()
    try:
        with in_mode(model, training=False):
            _run(model, example_inputs, network, closed, probes)
    except BrokenRuleError:
        raise
    except Exception:  # noqa: BLE001 - the user's forward method may want plain numbers, not followed ones
        network = FollowedNetwork()
        with in_mode(model, training=False):
            _run(model, example_inputs, network, closed, probes, note=False)
    if training or any(name not in network.parameters for name, _ in model.named_parameters()):
        with torch.random.fork_rng():  # what draws must not draw from what the user's training draws from
            _follow_training(model, example_inputs, network, closed, probes, training_step)
    if routed:
        _follow_routes(model, example_inputs, network, closed)
    return network


def _follow_routes(model: nn.Module, example_inputs: Any, network: FollowedNetwork, closed: Closed) -> None:
    """On other values a mixture of experts takes others."""
    for inputs in other_values(example_inputs):
        if not unreached_twins(model, network.parameters):
            return
        with in_mode(model, training=False):
            _runs(model, inputs, network, closed, ())


def trained(model: nn.Module) -> nn.Module:
    """A copy of a model whose biases and the like are not 0, as they are at the start but won't stay.

    A BatchNorm without bias and running mean maps 0 to 0: what can be removed of a network is to be judged by
    what it will be, not by how it was initialised.
    """
    let_go_of_graphs(model)
    check_stored(model)
    other = copy.deepcopy(whole(model))
    generator = torch.Generator().manual_seed(0)
    noise = {
        p for m in other.modules() if isinstance(m, MultiplicativeNoise) for p in (m.mu, m.log_sigma, m.mask)
    }
    with torch.no_grad():
        for vector in (*other.parameters(), *other.buffers()):
            if vector.ndim == 1 and vector.is_floating_point() and vector not in noise:
                offset = torch.rand(vector.shape, generator=generator) + 0.5
                vector.add_(offset.to(device=vector.device, dtype=vector.dtype))
    return other


def _follow_training(
    model: nn.Module,
    example_inputs: Any,
    network: FollowedNetwork,
    closed: Closed,
    probes: Sequence[Probe],
    step: TrainingStep | None,
) -> None:
    """Auxiliary heads take part only in training. Without a step a model may not run on the example there."""
    network.in_training = True
    if step is not None:
        _run(training_copy(model), None, network, closed, probes, step)
        return
    for inputs in (another_batch(example_inputs), example_inputs):  # BatchNorm wants more than one sample
        if _runs(training_copy(model), inputs, network, closed, probes):
            return


def _runs(
    model: nn.Module, inputs: Any, network: FollowedNetwork, closed: Closed, probes: Sequence[Probe]
) -> bool:
    try:
        _run(model, inputs, network, closed, probes, partial(_called, inputs))
    except BrokenRuleError:
        raise
    except Exception:  # noqa: BLE001 - the user's forward method, which in training may want targets
        return False
    return True


def _called(inputs: Any, model: nn.Module) -> Any:
    return call(model, inputs)


def _run(
    model: nn.Module,
    example_inputs: Any,
    network: FollowedNetwork,
    closed: Closed,
    probes: Sequence[Probe],
    step: TrainingStep | None = None,
    *,
    note: bool = True,
) -> None:
    stored = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    rules = {**MOVEMENT, **ARITHMETIC, **RECURRENCE, **rules_of_operations()}
    trace = Trace(stored, network.labels, rules, network.parameters)
    for name in ("uses", "balances", "reshapes", "grouped", "lost", "sums"):
        setattr(trace, name, getattr(network, name))
    if step is None:
        trace.witness = partial(note_work, trace, network.work)
    with ExitStack() as stack:
        stack.enter_context(plain_attention())
        stack.enter_context(follow_computed(model, trace))
        stack.enter_context(steps_followed(model, trace, network.states))
        stack.enter_context(follow_modules(model, trace))
        stack.enter_context(_gates(model, trace, network, closed))
        stack.enter_context(_watch(model, trace, network.calls if step is None else [], probes))
        # Inference mode would hand over whole layers, such as linear, in place of what they are made of.
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.no_grad())
        trace.read(example_inputs)
        trace.strangers_vary = example_inputs is None
        numbers = noting(model, trace, network.sizes) if note else nullcontext()
        with trace, numbers:
            found = tensors_of(call(model, example_inputs) if step is None else step(model))
        for tensor in found:
            trace.pin_tensor(tensor, OUTPUT)


@contextmanager
def plain_attention() -> Iterator[None]:
    """Attention in single operations that can be followed, not in fused ones."""
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)


@contextmanager
def _gates(model: nn.Module, trace: Trace, network: FollowedNetwork, closed: Closed) -> Iterator[None]:
    """Noise layers that only open and close, and whose parameters have the labels of what they multiply."""
    layers = {n: m for n, m in model.named_modules() if isinstance(m, MultiplicativeNoise)}

    def gate(name: str, layer: MultiplicativeNoise) -> Callable[[Tensor], Tensor]:
        dead = closed(layer)
        open_ = _strength(layer) if closed is masked else None

        def forward(x: Tensor, *, in_blocks: bool = False) -> Tensor:
            labels = trace.stored_labels(layer.mu)
            for vector in (layer.log_sigma, layer.mask):
                trace.labels.unite(labels, trace.stored_labels(vector))
            network.gates[name] = labels
            if not in_blocks:
                return close(trace, x, layer.axis, labels, dead, open_)
            axis = layer.axis % (x.ndim + 1)
            block = x.shape[axis] // labels.size
            wide = None if open_ is None else open_.repeat_interleave(block)
            return close(trace, x, axis, np.repeat(labels, block), np.repeat(dead, block), wide)

        return forward

    try:
        for name, layer in layers.items():
            layer.__dict__["forward"] = gate(name, layer)
        yield
    finally:
        for layer in layers.values():
            del layer.__dict__["forward"]


def _strength(layer: MultiplicativeNoise) -> Tensor | None:
    """What open structures are multiplied by in evaluation: what depends on values goes the same way then."""
    try:
        return layer.expected_noise().detach()
    except ValueError:  # of parameters that are not usable; who needs the numbers says so
        return None


def close(
    trace: Trace, x: Tensor, axis: int, labels: Ints, dead: Bools, strength: Tensor | None = None
) -> Tensor:
    """Multiply by 0 where `dead`, by the strength or 1 elsewhere."""
    along = [d == axis % x.ndim for d in range(x.ndim)]
    scale = torch.as_tensor(~dead, dtype=x.dtype, device=x.device)
    if strength is not None:
        scale = torch.where(scale != 0, strength.to(scale), 0.0)
    scale = scale.view([-1 if own else 1 for own in along])
    # Told here, since of a single structure a view can't tell on which axis it lies.
    trace.set(scale, [Axis(labels, dead) if own else None for own in along], dynamic=False)
    return x * scale


@contextmanager
def _watch(
    model: nn.Module, trace: Trace, calls: list[ModuleCall], probes: Sequence[Probe]
) -> Iterator[None]:
    """Keep track of which module runs, record the calls, and put the probes in."""
    names = {module: name for name, module in model.named_modules()}
    after = {p.module: p for p in probes if not p.before}
    before = {p.module: p for p in probes if p.before}
    sources: Any = WeakIdKeyDictionary()

    def probe(x: Any, at: Probe | None) -> Any:
        if at is None:
            return x
        return close(trace, x, at.axis, trace.labels.new(at.closed.size), at.closed)

    def enter(module: nn.Module, args: tuple[Any, ...]) -> Any:
        name = names.get(module)
        if name is None:
            return None
        trace.modules.append(name)
        return (probe(args[0], before[name]), *args[1:]) if name in before else None

    def leave(module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        name = names.get(module)
        if name is None:
            return None
        trace.modules.pop()
        if trace.asleep:
            return None
        first = args[0] if args and isinstance(args[0], Tensor) else None
        given = () if first is None else trace.state(first).axes
        result = trace.state(output).axes if isinstance(output, Tensor) else ()
        source = "" if first is None else sources.get(first, "")
        calls.append(ModuleCall(name, given, result, source))
        if isinstance(output, Tensor):
            output = probe(output, after.get(name))
            sources.setdefault(output, name)
        return output if name in after else None

    handles = (register_module_forward_pre_hook(enter), register_module_forward_hook(leave))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
