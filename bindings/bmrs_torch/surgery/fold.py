"""Fold E[θ] into the weights, so that what ships is an ordinary network without noise layers."""

from __future__ import annotations

import copy
from typing import Any, TypeVar

import torch
from torch import Tensor, fx, nn

from bmrs_torch.attachment import BlockNoiseBefore, Gate, WithNoise, allow_fast_path
from bmrs_torch.channels.weights import CONVOLUTIONS, activation_axis, is_plain, is_weighted, weight_axes
from bmrs_torch.layer import MultiplicativeNoise, noise_layers
from bmrs_torch.module_graph import ModuleGraph, NotFoldableError
from bmrs_torch.surgery.verification import Reference

M = TypeVar("M", bound=nn.Module)


def fold(model: M, example_inputs: Any = None, *, constants: bool = False) -> M:
    """Return a copy of a model with every noise layer folded into the weights beside it.

    The weights and biases of structure c are multiplied by E[θ_c]·mask_c (of a layer after the noise, its
    weights for input c), which is exact: the result answers as the model does in evaluation mode and needs
    nothing of this package. Layers replaced by :func:`insert_noise` get their own names back.

    Parameters
    ----------
    model : nn.Module
        A model with noise layers; it is left untouched.
    example_inputs : Tensor, tuple, list or dict, optional
        If given, both models are compared on them in evaluation mode.
    constants : bool
        Leave a multiplication by a constant (a ``torch.fx.GraphModule``, which needs nothing of this package
        either) where noise can't be folded, rather than raise.

    Returns
    -------
    nn.Module
        In the training mode of `model`.

    Raises
    ------
    NotFoldableError
        A ValueError: a noise layer, which is named, wasn't inserted beside a Linear, Conv or BatchNorm layer
        by :func:`insert_noise`, nor follows one with weights of its own that feeds nothing else in a model
        that torch.fx can follow; or it lies on another axis than that layer's structures.
    SurgeryError
        If the folded model answers differently on the example inputs.
    ValueError
        If the model has no noise layer.

    Examples
    --------
    >>> from torch import nn
    >>> from bmrs_torch import fold, insert_noise
    >>> fold(insert_noise(nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))))
    Sequential(
      (0): Linear(in_features=4, out_features=3, bias=True)
      (1): ReLU()
      (2): Linear(in_features=3, out_features=2, bias=True)
    )
    """
    for name, layer in noise_layers(model).items():
        _check_expectation(name, layer)
    folded = copy.deepcopy(model)
    done: set[Gate] = set()
    refused: dict[MultiplicativeNoise, NotFoldableError] = {}
    for name, gate in _gates(folded).items():
        try:
            if gate not in done:
                _fold_gate(name, gate, folded)
        except NotFoldableError as error:
            if not isinstance(gate, WithNoise):
                raise
            refused[gate.noise] = error
            continue
        done.add(gate)
        folded = _replaced(folded, name, gate.layer)
    folded = _fold_rest(folded, refused, constants=constants)
    allow_fast_path(folded)
    if example_inputs is not None:
        Reference(model, example_inputs).verify(folded, "folding the noise into the weights")
    return folded


def _check_expectation(name: str, noise: MultiplicativeNoise) -> None:
    """Raise ValueError, naming the layer, unless E[θ] of its kept structures can be computed."""
    try:
        noise.expected_noise()
    except ValueError as error:
        raise ValueError(f"noise layer {name or '(model)'!r} can't be folded: {error}") from error


def _gates(model: nn.Module) -> dict[str, Gate]:
    """Gates by name, inner ones before those around them."""
    found = {name: m for name, m in model.named_modules(remove_duplicate=False) if isinstance(m, Gate)}
    return dict(reversed(found.items()))


def _fold_gate(name: str, gate: Gate, model: nn.Module) -> None:
    """Into the layer inside the gate: its outputs, or its inputs where the noise comes before it."""
    noise_name = f"{name}.noise" if name else "noise"
    layer, noise = gate.layer, gate.noise
    if activation_axis(layer) is None:
        raise NotFoldableError(
            f"noise layer {noise_name!r} can't be folded into a {type(layer).__name__}, only into Linear, "
            "Conv and BatchNorm layers"
        )
    scale = noise.expected_noise().detach()
    if isinstance(gate, WithNoise):
        _check_target(noise_name, noise, layer, model)
        _scale_outputs(layer, scale)
    else:
        _check_weights(noise_name, layer, model)
        if isinstance(gate, BlockNoiseBefore):
            width = _weight(layer).shape[weight_axes(layer)[1] or 0]
            scale = scale.repeat_interleave(width // noise.num_structures)
        _scale_inputs(layer, scale)


def _fold_rest(model: M, refused: dict[MultiplicativeNoise, NotFoldableError], *, constants: bool) -> M:
    """Noise placed by hand, or after what has no weights: into what comes before it, as torch.fx tells."""
    layers = {n: m for n, m in model.named_modules() if isinstance(m, MultiplicativeNoise)}
    if not layers:
        return model
    targets = {}
    for name, noise in layers.items():
        target = _target(name, noise, model)
        if isinstance(target, NotFoldableError) and not constants:
            raise refused.get(noise, target)
        targets[name] = target
    for name, noise in layers.items():
        target = targets[name]
        if isinstance(target, nn.Module):
            _scale_outputs(target, noise.expected_noise().detach())
    for name, noise in layers.items():
        model = (
            _without(model, noise)
            if isinstance(targets[name], nn.Module)
            else _with_constant(model, name, noise)
        )
    return model


def _target(name: str, noise: MultiplicativeNoise, model: nn.Module) -> nn.Module | NotFoldableError:
    """The layer to fold a noise layer into, or why there is none."""
    try:
        layer = model.get_submodule(ModuleGraph(model).feeding(name))
        _check_target(name, noise, layer, model)
    except NotFoldableError as error:
        return error
    except ValueError as error:
        return NotFoldableError(f"noise layer {name!r} can't be folded: {error}")
    return layer


def _check_target(name: str, noise: MultiplicativeNoise, layer: nn.Module, model: nn.Module) -> None:
    _check_weights(name, layer, model)
    axis = activation_axis(layer)
    ndim = _weight(layer).ndim
    axes = (1, -1) if axis == -1 else (1, 1 - ndim) if ndim > 1 else (1,)
    if noise.axis not in axes:
        raise NotFoldableError(
            f"noise layer {name!r} can't be folded: it lies on axis {noise.axis}, but the "
            f"{type(layer).__name__} before it has its structures on axis {' or '.join(map(str, axes))}"
        )


def _check_weights(name: str, layer: nn.Module, model: nn.Module) -> None:
    kind = type(layer).__name__
    if not is_plain(layer):
        raise NotFoldableError(
            f"noise layer {name!r} can't be folded: the {kind} beside it does more than multiply by its "
            "weights, such as an activation of its own"
        )
    if not isinstance(getattr(layer, "weight", None), nn.Parameter):
        raise NotFoldableError(
            f"noise layer {name!r} can't be folded: the {kind} beside it has no weight parameter of its own"
        )
    names = [
        n for n, p in model.named_parameters(remove_duplicate=False) if p is layer.weight or p is layer.bias
    ]
    if len(names) > 2 - (layer.bias is None):
        raise NotFoldableError(
            f"noise layer {name!r} can't be folded: the weights beside it are shared by {', '.join(names)}"
        )


@torch.no_grad()
def _scale_outputs(layer: nn.Module, scale: Tensor) -> None:
    """Multiply the weights and biases of each structure by its scale, rounding once."""
    axis, _ = weight_axes(layer)
    weight, groups = _weight(layer), int(getattr(layer, "groups", 1))
    if axis == 1 and groups > 1:
        # A transposed convolution's weight: (inputs, outputs of a group, …).
        rows = scale.view(groups, 1, -1).expand(-1, weight.shape[0] // groups, -1).flatten(0, 1)
        weight.copy_(weight.double() * rows.view(*rows.shape, *([1] * (weight.ndim - 2))))
    else:
        weight.copy_(weight.double() * _along(scale, axis, weight.ndim))
    if isinstance(layer.bias, nn.Parameter):
        layer.bias.copy_(layer.bias.double() * scale)


@torch.no_grad()
def _scale_inputs(layer: nn.Module, scale: Tensor) -> None:
    """Multiply the weights for each input by its scale, rounding once."""
    _, axis = weight_axes(layer)
    weight, groups = _weight(layer), int(getattr(layer, "groups", 1))
    assert axis is not None
    if isinstance(layer, CONVOLUTIONS) and groups > 1:
        columns = scale.view(groups, 1, -1).expand(-1, weight.shape[0] // groups, -1).flatten(0, 1)
        weight.copy_(weight.double() * columns.view(*columns.shape, *([1] * (weight.ndim - 2))))
    else:
        weight.copy_(weight.double() * _along(scale, axis, weight.ndim))


def _weight(layer: nn.Module) -> nn.Parameter:
    weight = layer.weight
    assert isinstance(weight, nn.Parameter)
    return weight


def _along(scale: Tensor, axis: int, ndim: int) -> Tensor:
    return scale.view(tuple(-1 if d == axis else 1 for d in range(ndim)))


def _with_constant(model: M, name: str, noise: MultiplicativeNoise) -> M:
    """Put a multiplication by a constant in the place of a noise layer."""
    parent_path, _, _ = name.rpartition(".")
    parent = model.get_submodule(parent_path)
    example = next(p for p in model.parameters() if p.is_floating_point())
    shape = (-1, *([1] * (-1 - noise.axis))) if noise.axis < 0 else None
    if shape is None or (isinstance(parent, Gate) and is_weighted(parent.layer)):
        raise NotFoldableError(
            f"noise layer {name!r} can be replaced by a constant only if its axis is counted from the end, "
            f"so that the constant's shape is known; it is {noise.axis}"
        )
    root = nn.Module()
    root.register_buffer("scale", noise.expected_noise().detach().to(example.dtype).view(shape))
    graph = fx.Graph()
    graph.output(graph.call_function(torch.mul, (graph.placeholder("x"), graph.get_attr("scale"))))
    constant = fx.GraphModule(root, graph, "Constant").train(noise.training)
    if not isinstance(parent, Gate):
        return _replaced(model, name, constant)
    return _replaced(model, parent_path, nn.Sequential(parent.layer, constant).train(parent.training))


def _without(model: M, noise: MultiplicativeNoise) -> M:
    """Take a noise layer out of the model that holds it."""
    path = next(name for name, module in model.named_modules() if module is noise)
    parent_path, _, own_name = path.rpartition(".")
    parent = model.get_submodule(parent_path)
    if isinstance(parent, Gate):
        return _replaced(model, parent_path, parent.layer)
    if isinstance(parent, nn.Sequential):
        _drop_item(parent, own_name)
    else:
        model.set_submodule(path, nn.Identity())
    return model


def _replaced(model: M, path: str, module: nn.Module) -> M:
    """The model with another module at that path; the other module itself where the path is empty."""
    if not path:
        return module  # type: ignore[return-value]
    model.set_submodule(path, module)
    return model


def _drop_item(sequence: nn.Sequential, name: str) -> None:
    if all(key.isdigit() for key in dict(sequence.named_children())):
        del sequence[int(name)]
    else:
        delattr(sequence, name)
