"""What a pruner refuses before the training begins, not after hours of it."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from bmrs_torch.attachment import attachments
from bmrs_torch.channels.calling import answers
from bmrs_torch.layer import MultiplicativeNoise, noise_layers
from bmrs_torch.operation.arguments import check_model, check_switch, check_whole, described
from bmrs_torch.shipping.layout import Layout
from bmrs_torch.surgery.optimizer_state import check_optimizer, check_trains, fits, trained_by
from bmrs_torch.training.schedule import Schedule

ORDER = (
    "load the pruner's state first, pruner.load_state_dict, which gives model and optimizer their shapes, "
    "then the model's (and those of averages), then the optimizer's"
)


def check_options(
    model: nn.Module, optimizer: Any, schedule: object, *, shrink: bool, example_inputs: Any
) -> None:
    """Raise TypeError or ValueError for what a pruner can't work with."""
    check_model(model)
    _check_applied(model)
    check_switch("shrink", shrink)
    if schedule is not None and not isinstance(schedule, Schedule):
        raise TypeError(
            f"schedule must be a bmrs_torch.Schedule, such as Schedule(every=3), got {described(schedule)}"
        )
    if shrink and (optimizer is None or example_inputs is None):
        raise ValueError(
            "shrink=True needs the optimizer, whose state has to shrink too, and example_inputs to trace the "
            "model with"
        )
    if optimizer is not None:
        (check_optimizer if shrink else check_trains)(optimizer, model)


def _check_applied(model: nn.Module) -> None:
    """Raise ValueError if noise is the child of a layer of torch's that doesn't apply it."""
    applied = {(id(found.layer), id(found.noise)) for found in attachments(model)}
    for name, layer in model.named_modules():
        of_torch = type(layer).__module__.startswith("torch.nn.modules.") and not isinstance(
            layer, (nn.Sequential, nn.ModuleList, nn.ModuleDict)
        )
        for child in layer.children() if of_torch else ():
            if isinstance(child, MultiplicativeNoise) and (id(layer), id(child)) not in applied:
                raise ValueError(
                    f"the noise on {name!r}, a {type(layer).__name__}, is never applied: the layer has no "
                    "hook for it any more, as SyncBatchNorm.convert_sync_batchnorm(model) makes layers anew "
                    "without their hooks. Convert first, then insert_noise"
                )


def check_log(log: object) -> None:
    """Raise TypeError unless it is a function, or nothing."""
    if log is not None and not callable(log):
        raise TypeError(
            "log must be a function of a dict of floats by name and a number of steps, such as "
            f"lambda values, step: wandb.log(values, step=step), got {described(log)}"
        )


def check_counts(**counts: object) -> None:
    """Raise unless all of them are whole numbers from 0 on."""
    for name, count in counts.items():
        check_whole(name, count, "the number done", 0)


def check_example(model: nn.Module, example_inputs: Any) -> None:
    """Raise ValueError unless a model takes these inputs, on the device where both are."""
    tensors = [leaf for leaf in tree_leaves(example_inputs) if isinstance(leaf, Tensor)]
    if {tensor.device for tensor in tensors} - {parameter.device for parameter in model.parameters()}:
        return  # a model that is moved before it is trained
    try:
        with torch.random.fork_rng():  # what a forward method draws is not drawn from the training
            answers(model, example_inputs)
    except Exception as error:  # the user's forward method may raise anything
        raise ValueError(
            f"example_inputs must be what {type(model).__name__} takes: a tensor, a tuple or list of "
            "positional "
            f"inputs or a dict of keyword inputs. Called with {_shapes(example_inputs)} it raised "
            f"{type(error).__name__}: {error}"
        ) from error


def _shapes(inputs: Any) -> str:
    """Inputs in words."""
    if isinstance(inputs, Tensor):
        return f"a tensor of shape {tuple(inputs.shape)}"
    if isinstance(inputs, dict):
        return "{" + ", ".join(f"{key!r}: {_shapes(value)}" for key, value in inputs.items()) + "}"
    if isinstance(inputs, (tuple, list)):
        return "(" + ", ".join(map(_shapes, inputs)) + ")"
    return f"a {type(inputs).__name__}"


def say_if_noise_is_not_trained(model: nn.Module, *optimizers: torch.optim.Optimizer) -> None:
    """Warn of noise that would learn, but isn't in the optimizers."""
    held = set().union(*map(trained_by, optimizers))
    forgotten = [
        name or "(the model)"
        for name, layer in noise_layers(model).items()
        if any(p.requires_grad and p not in held for p in (layer.mu, layer.log_sigma))
    ]
    if forgotten:
        warnings.warn(
            f"the {type(optimizers[0]).__name__} given doesn't train the noise of {', '.join(forgotten[:4])}"
            f"{', …' if len(forgotten) > 4 else ''}, as one made before insert_noise doesn't, so that it "
            "stays as "
            "it began. Make the optimizer of bmrs_torch.parameter_groups(model, lr), after insert_noise; "
            "noise that isn't to learn is told by requires_grad_(False)",
            stacklevel=3,
        )


def check_state(state: object) -> None:
    """Raise ValueError unless it is what a pruner's `state_dict` gave, as far as its keys tell."""
    keys = {"steps", "epochs", "history", "num_structures", "layout", "buffers"}
    if not isinstance(state, Mapping) or not keys <= state.keys():
        came = sorted(map(str, state))[:8] if isinstance(state, Mapping) else type(state).__name__
        raise ValueError(
            f"a pruner's state holds {', '.join(sorted(keys))}, as pruner.state_dict() gives it, got {came}"
        )
    check_counts(epochs=state["epochs"], steps=state["steps"])
    for key, kind in (("history", list), ("num_structures", Mapping), ("buffers", Mapping)):
        if not isinstance(state[key], kind):
            raise ValueError(f"{key} of a pruner's state is damaged: got {described(state[key])}")
    for key, is_sound in (("noise", _is_noise), ("misfits", _is_sum)):  # states of earlier versions lack them
        if state.get(key) is not None and not is_sound(state[key]):
            raise ValueError(f"{key} of a pruner's state is damaged: got {described(state[key])}")


def _is_noise(value: object) -> bool:
    return isinstance(value, Mapping) and all(isinstance(part, Tensor) for part in value.values())


def _is_sum(value: object) -> bool:
    return isinstance(value, (tuple, list)) and len(value) == 2 and isinstance(value[0], Tensor)


def refuse_early_state(optimizer: torch.optim.Optimizer, model: nn.Module, layout: Layout) -> None:
    """Raise ValueError if an optimizer holds state of a model that is smaller than this one is now."""
    held = trained_by(optimizer)
    for name, parameter in model.named_parameters():
        shape = layout.shapes[name]
        changes = parameter in held and list(parameter.shape) != shape
        if changes and not fits(optimizer.state.get(parameter, {}), parameter, shape):
            raise ValueError(
                f"the state of {type(optimizer).__name__} is not that of a {name} of shape "
                f"{tuple(parameter.shape)}: it was loaded before the model took on the shapes of the "
                f"smaller one, and would be lost now. Make them anew and {ORDER}"
            )
