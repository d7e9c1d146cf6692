"""What insertion promises, tried on a copy: open gates change nothing, gates fold, structures can go."""

from __future__ import annotations

import copy
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from bmrs_torch.attachment import attach, attachments
from bmrs_torch.channels.calling import answers
from bmrs_torch.channels.network import follow
from bmrs_torch.insertion.placement import InsertionPlan, Placement
from bmrs_torch.layer import MultiplicativeNoise, noise_layers
from bmrs_torch.surgery.fold import unfoldable
from bmrs_torch.surgery.plan_compaction import Selection
from bmrs_torch.surgery.progress import Progress
from bmrs_torch.surgery.surgeon import CHANGES_ANSWERS, Surgeon
from bmrs_torch.surgery.verification import Reference
from bmrs_torch.surgery.ways import multiplying

if TYPE_CHECKING:
    from bmrs_kernels.contract import Share

__all__ = ["CHANGES_OPEN", "carry_out", "rehearsed"]

CHANGES_OPEN = "the model would answer differently with an open gate there"


def carry_out(
    plan: InsertionPlan,
    model: nn.Module,
    *,
    share: Share = "sample",
    log_a: float = -20.0,
    log_b: float = 0.0,
) -> None:
    """Put noise on a model as planned."""
    shared: dict[str, MultiplicativeNoise] = {}
    for place in plan.placements:
        layer = model.get_submodule(place.name)
        noise = shared.get(place.stream)
        if noise is None:
            options = {"axis": place.axis, "log_a": log_a, "log_b": log_b}
            own = "batch" if place.state else share  # of a state's noise there is one for all samples
            noise = MultiplicativeNoise(place.num_structures, share=own, **options)  # type: ignore[arg-type]
            like = next((p for m in (layer, model) for p in m.parameters() if p.is_floating_point()), None)
            if like is not None:
                noise.to(device=like.device, dtype=like.dtype)
            noise.train(layer.training)
        if place.stream:
            shared[place.stream] = noise
        attach(layer, noise, before=place.before, blocks=place.block > 1, state=place.state)


def rehearsed(
    plan: InsertionPlan,
    model: nn.Module,
    example_inputs: Any,
    progress: Progress,
    *,
    must_go: bool,
    must_fold: bool,
) -> InsertionPlan:
    """Leave out of a plan what doesn't keep its promises.

    Parameters
    ----------
    plan : InsertionPlan
    model : nn.Module
        It is left as it is.
    example_inputs : Tensor, tuple, list or dict
        What it is tried on.
    progress : Progress
        Three parts of it are done here.
    must_go : bool
        Whether the structures must be removable.
    must_fold : bool
        Whether the gates must be foldable.
    """
    if not plan.placements:
        return plan
    plan = plan.without(dict.fromkeys(_changing(plan, model, example_inputs), CHANGES_OPEN))
    progress.advance(1)
    if must_fold and plan.placements:
        trial = _tried(plan, model)
        plan = _without_noise(plan, trial, unfoldable(trial, example_inputs))
    progress.advance(1)
    if must_go and plan.placements:
        trial = _tried(plan, model)
        plan = _without_noise(plan, trial, _stuck(trial, example_inputs))
    progress.advance(1)
    return plan


def _tried(plan: InsertionPlan, model: nn.Module) -> nn.Module:
    trial = copy.deepcopy(model)
    carry_out(plan, trial)
    return trial


def _without_noise(plan: InsertionPlan, trial: nn.Module, reasons: dict[str, str]) -> InsertionPlan:
    """The plan without the places where these noise layers of a trial are."""
    layers = noise_layers(trial)
    of = {id(layers[name]): reason for name, reason in reasons.items()}
    at = {(a.name, a.before): of[id(a.noise)] for a in attachments(trial) if id(a.noise) in of}
    return plan.without({p: at[p.name, p.before] for p in plan.placements if (p.name, p.before) in at})


def _changing(plan: InsertionPlan, model: nn.Module, example_inputs: Any) -> list[Placement]:
    """The places at which an open gate changes what the model answers, found by halving."""
    opened = copy.deepcopy(model)
    gates: dict[Placement | str, list[Placement]] = {}
    for place in plan.placements:
        gates.setdefault(place.stream or place, []).append(place)

    def is_silent(places: list[Placement]) -> bool:
        return _is_silent(reference, _tried(InsertionPlan(tuple(places), ()), model), example_inputs)

    def changing(groups: list[list[Placement]]) -> list[Placement]:
        if not groups or is_silent([place for group in groups for place in group]):
            return []
        half = len(groups) // 2
        return changing(groups[:half]) + changing(groups[half:]) if half else groups[0]

    with multiplying(opened, {}):  # the gates that it has already are opened, too
        reference = Reference(opened, example_inputs)
        found = changing(list(gates.values()))
        left = [place for place in plan.placements if place not in found]
        # Sound each by itself, not together: nothing can be said of any.
        return found if not found or is_silent(left) else list(plan.placements)


def _is_silent(reference: Reference, trial: nn.Module, example_inputs: Any) -> bool:
    """Whether all gates open change nothing, and each is passed as often as the layer on which it sits."""
    calls: Counter[int] = Counter()

    def count(key: int, *_arguments: Any) -> None:
        calls[key] += 1

    attached = attachments(trial)
    counted = {id(module): module for a in attached for module in (a.layer, a.noise)}
    handles = [m.register_forward_hook(partial(count, key)) for key, m in counted.items()]
    try:
        with multiplying(trial, {}), torch.random.fork_rng():
            answers(trial, example_inputs)
            expected: Counter[int] = Counter()
            for a in attached:
                expected[id(a.noise)] += calls[id(a.layer)]
            once = all(calls[key] == number for key, number in expected.items())
            return once and reference.difference(trial) <= reference.tolerance
    except Exception:  # noqa: BLE001 - the user's forward method, with noise where it may not bear any
        return False
    finally:
        for handle in handles:
            handle.remove()


def _stuck(trial: nn.Module, example_inputs: Any) -> dict[str, str]:
    """Noise layers of which surgery, with one structure of each left, has to retain something."""
    layers = noise_layers(trial)
    for layer in layers.values():
        layer.mask[:-1] = 0
    selection = Selection(follow(trial, example_inputs), layers)
    _, selection = Surgeon(trial, example_inputs, selection).operate()
    return {
        layer.name: CHANGES_ANSWERS
        for layer in selection.plan(selection.removable).layers
        if not layer.removed and any(reason == CHANGES_ANSWERS for _, reason in layer.retained)
    }
