"""Fold E[θ] into weights, so that what ships is an ordinary network without noise layers."""

from __future__ import annotations

import copy
from typing import Any, TypeVar

import numpy as np
from torch import Tensor, nn

from bmrs_torch.attachment import attachments, detach
from bmrs_torch.channels.calling import TrainingStep, answers, check_has_values
from bmrs_torch.channels.computed import let_go_of_graphs
from bmrs_torch.channels.network import follow, none_closed
from bmrs_torch.channels.stored import check_stored
from bmrs_torch.channels.variants import another_batch
from bmrs_torch.layer import MultiplicativeNoise, noise_layers
from bmrs_torch.remembering import forget, remembered
from bmrs_torch.surgery.unreached import Unreached, check_unreached, report_unreached, unreached_readers
from bmrs_torch.surgery.verification import (
    RELATIVE_TOLERANCE,
    Reference,
    difference,
    doubled,
    rounds_to_float32,
    trained_answers,
    warn_untrained,
)
from bmrs_torch.surgery.ways import Way, Ways, multiplying, test_factors
from bmrs_torch.wrapping import whole

__all__ = ["NotFoldableError", "fold", "unfoldable"]

M = TypeVar("M", bound=nn.Module)

READERS, MAKER = "what takes them", "the layer before their noise"

EXACT = 1e-9
"""Of ‖difference‖ to ‖answer‖ in float64: a million times its rounding, and a thousandth of what a wrong
factor on a structure that hardly matters would do."""


class NotFoldableError(ValueError):
    """The factor of a noise layer can go neither into what comes before it nor into what comes after.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from bmrs_torch import MultiplicativeNoise, NotFoldableError, fold
    >>> try:
    ...     fold(nn.Sequential(MultiplicativeNoise(3), nn.Tanh()), torch.ones(2, 3))
    ... except NotFoldableError as error:
    ...     print(str(error).partition(":")[0])
    noise layer '0' can't be folded
    """


def fold(
    model: M,
    example_inputs: Any = None,
    *,
    training_step: TrainingStep | None = None,
    unreached: Unreached = "error",
) -> M:
    """Return a copy of a model with every noise layer folded into weights.

    The factor E[θ_c]·mask_c of structure c goes into the weights and biases of the layer before the noise, or
    into the weights for input c of every layer that takes what the noise multiplies, whichever is exact: the
    result answers as the model does in evaluation mode and needs nothing of this package. That is tried with
    other factors than the model's, and both models are compared as :func:`compact` does it: on other inputs
    than the example too, and in training mode.

    Parameters
    ----------
    model : nn.Module
        A model with noise layers; it is left untouched. Of a wrapped one (DistributedDataParallel,
        DataParallel, ``torch.compile``, AveragedModel) what is inside is folded and returned; of one that
        ``fully_shard`` divided a plain copy, on all ranks, which all have to call this.
    example_inputs : Tensor, tuple, list or dict, optional
        One input, positional inputs, or keyword inputs: what the model is followed on and compared on. By
        default what :func:`insert_noise` was given, if that was small and the model wasn't pickled since.
    training_step, unreached
        As of :func:`compact`; what was never reached matters where a factor goes into what takes it.

    Returns
    -------
    nn.Module
        In the training mode of `model`.

    Raises
    ------
    NotFoldableError
        A ValueError: the factor of a noise layer, which is named, can go nowhere exactly.
    SurgeryError
        If the folded model answers differently, the model's answers can't be compared, or parameters that the
        example never reached, which are named, might take what is folded.
    ValueError
        If the model has no noise layer, if its parameters are unusable (the layer is named), or if there is
        no example.

    Warns
    -----
    UserWarning
        If the model can't be run in training mode on the example, so that nothing was verified there.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from bmrs_torch import fold, insert_noise
    >>> model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    >>> fold(insert_noise(model, torch.ones(2, 4)))
    Sequential(
      (0): Linear(in_features=4, out_features=3, bias=True)
      (1): ReLU()
      (2): Linear(in_features=3, out_features=2, bias=True)
    )
    """
    model = whole(model)  # type: ignore[assignment]
    layers = noise_layers(model)
    check_unreached(unreached)
    check_has_values(model)
    factors = {name: _expected(name, layer) for name, layer in layers.items()}
    inputs = remembered(model) if example_inputs is None else example_inputs
    if inputs is None:
        raise ValueError(
            "example_inputs are needed: folding is verified on them, and only insert_noise leaves some with "
            "the model; a minibatch will do"
        )
    let_go_of_graphs(model)
    check_stored(model)
    reference = Reference(model, inputs, widely=True, training_step=training_step)
    found, refused = _found(model, inputs)
    if refused:
        raise NotFoldableError("; ".join(refused.values()))
    for into, ways in _doubtful(found).items():
        missed = _missed(model, inputs, ways, training_step)
        report_unreached(missed, unreached if into == READERS else "warn", f"folded into {into}")
    folded = _folded(model, found, factors)
    reference.verify(folded, "folding the noise into the weights")
    if reference.untrained:
        warn_untrained(reference.untrained)
    return folded


def _doubtful(ways: dict[str, Way]) -> dict[str, list[str]]:
    """Noise layers whose factor doesn't go where their noise sits, by where it goes."""
    found: dict[str, list[str]] = {}
    for name, way in ways.items():
        if not way.is_evident:
            found.setdefault(READERS if way.in_readers else MAKER, []).append(name)
    return found


def _missed(model: nn.Module, inputs: Any, names: list[str], training_step: TrainingStep | None) -> list[str]:
    """What was never reached and might take the structures of these noise layers."""
    network = follow(model, inputs, closed=none_closed, training_step=training_step, routed=True)
    roots = network.labels.roots
    classes = [root for n in names if n in network.gates for root in roots(network.gates[n]).tolist()]
    widths = network.widths(lambda labels: np.isin(roots(labels), classes))
    return unreached_readers(model, network, widths)


def unfoldable(model: nn.Module, example_inputs: Any) -> dict[str, str]:
    """Why noise layers can't be folded, by name; those that can are not in it.

    Parameters
    ----------
    model : nn.Module
        With noise layers; it is left as it is.
    example_inputs : Tensor, tuple, list or dict
        To try it on.
    """
    return _found(model, example_inputs)[1]


def _expected(name: str, noise: MultiplicativeNoise) -> Tensor:
    """E[θ]·mask; a ValueError naming the layer where that can't be computed."""
    try:
        return noise.expected_noise().detach()
    except ValueError as error:
        raise ValueError(f"noise layer {name or '(model)'!r} can't be folded: {error}") from error


def _found(model: nn.Module, inputs: Any) -> tuple[dict[str, Way], dict[str, str]]:
    """For each noise layer the first way that is exact, or what was tried, in words."""
    trial, example = doubled(model, inputs)
    ways = Ways(trial, example)
    tolerance = RELATIVE_TOLERANCE if rounds_to_float32(trial, example) else EXACT
    found: dict[str, Way] = {}
    tried: dict[str, list[str]] = {name: [] for name in noise_layers(trial)}
    left = {name: ways.of(name) for name in tried}
    while left:  # the first way of each all at once, then the second of those whose first wasn't exact
        turn = {name: way for name, others in left.items() if (way := next(others, None)) is not None}
        for name, off in _errors(trial, example, turn, found, tolerance).items():
            tried[name].append(f"{turn[name].text} (off by {off:.1g})")
        left = {name: others for name, others in left.items() if name in turn and name not in found}
    refused = {}
    for name in tried.keys() - found.keys():
        where = (
            " nor into ".join(tried[name]) or "any weights: no layer with weights of its own lies beside it"
        )
        refused[name] = (
            f"noise layer {name!r} can't be folded: its factor goes exactly neither into {where}; put it "
            "where a Linear, Conv or BatchNorm layer gives these structures, or only such layers take them"
        )
    return found, refused


def _errors(
    trial: nn.Module, example: Any, ways: dict[str, Way], found: dict[str, Way], tolerance: float
) -> dict[str, float]:
    """Add to those found the ways that are exact beside them; of the others, how far off each is."""
    if not ways:
        return {}
    off = _error(trial, example, {**found, **ways})
    if off <= tolerance:
        found.update(ways)
        return {}
    if len(ways) == 1:
        return dict.fromkeys(ways, off)
    names, half = list(ways), len(ways) // 2
    parts = [{name: ways[name] for name in part} for part in (names[:half], names[half:])]
    return {n: off for part in parts for n, off in _errors(trial, example, part, found, tolerance).items()}


def _error(trial: nn.Module, example: Any, ways: dict[str, Way]) -> float:
    """How far off, relative, the model is if the factors of these noise layers go these ways.

    In training too, where a way isn't exact by the kind of layer: a BatchNorm that is passed by takes a
    factor back there.
    """
    layers = noise_layers(trial)
    factors = {name: test_factors(layers[name]) for name in ways}
    with multiplying(trial, factors):
        wanted = answers(trial, example)
        trained = None if all(way.is_evident for way in ways.values()) else _trained(trial, example)
    other = copy.deepcopy(trial)
    try:
        for name, way in ways.items():
            way.apply(other, factors[name])
    except (ValueError, RuntimeError):  # of another width, or without weights of its own
        return float("inf")
    with multiplying(other, {}):
        off = difference(wanted, answers(other, example))
        again = _trained(other, example) if trained is not None and off <= RELATIVE_TOLERANCE else None
    return off if trained is None or again is None else max(off, difference(trained, again))


def _trained(model: nn.Module, example: Any) -> list[Tensor] | None:
    """What a model answers in training mode, None if it doesn't run there or gives no finite numbers."""
    for inputs in (another_batch(example), example):  # BatchNorm wants more than one sample
        try:
            found = trained_answers(model, inputs)
        except Exception:  # noqa: BLE001 - the user's forward method, which in training may want targets
            continue
        return found if difference(found, found) == 0 else None
    return None


def _folded(model: M, ways: dict[str, Way], factors: dict[str, Tensor]) -> M:
    folded = copy.deepcopy(model)
    layers = noise_layers(folded)
    for name, way in ways.items():
        way.apply(folded, factors[name].double())
    for attached in attachments(folded):
        detach(attached)
    noise = set(layers.values())
    placed = [name for name, module in folded.named_modules(remove_duplicate=False) if module in noise]
    for name in reversed(placed):
        folded = _without(folded, name)
    forget(folded)
    return folded


def _without(model: M, path: str) -> M:
    """Take a noise layer out of the model that calls it."""
    parent_path, _, own_name = path.rpartition(".")
    parent = model.get_submodule(parent_path)
    if not isinstance(parent, nn.Sequential):
        model.set_submodule(path, nn.Identity())
    elif all(key.isdigit() for key in dict(parent.named_children())):
        del parent[int(own_name)]
    else:
        delattr(parent, own_name)
    return model
