"""Put noise layers on the structures of a network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from typing import Any

from torch import nn

from bmrs_kernels.contract import Share
from bmrs_torch.channels.values import is_without_values, products_in_pieces, with_values
from bmrs_torch.channels.weights import BATCH_NORMS, activation_axis, is_weighted
from bmrs_torch.distributed.sharding import is_divided
from bmrs_torch.insertion.placement import InsertionPlan, Placement
from bmrs_torch.insertion.rehearsal import CHANGES_OPEN, carry_out, rehearsed
from bmrs_torch.insertion.search import Search
from bmrs_torch.insertion.states import with_states
from bmrs_torch.operation.checks import check_bounds, check_share
from bmrs_torch.remembering import remember
from bmrs_torch.surgery.progress import Progress
from bmrs_torch.wrapping import unwrapped, whole

Where = str | Sequence[str] | Callable[[str, nn.Module], bool]

PRESETS = {
    "auto": "one gate for the structures of each layer, where closing it lets them go from the whole network",
    "streams": "the same, and one noise layer for each residual stream, shared by all layers that add to it",
    "neurons": "of auto, the neurons of linear layers and the units of recurrent ones",
    "heads": "of auto, the attention heads",
    "heads and neurons": "of auto, both",
    "hidden": "after every hidden layer, and the BatchNorm after it, whether its structures can go or not",
    "batchnorm": "after every BatchNorm",
    "blocks": "after each block of a transformer",
}
"""Names that :func:`insert_noise` takes for `where`, and where each puts noise."""

ALIASES = {
    **dict.fromkeys(("mlp", "lenet5", "vgg"), "hidden"),
    "resnet": "batchnorm",
    **dict.fromkeys(("transformer", "vit", "bert", "gpt"), "heads and neurons"),
}
"""What networks of the paper and the zoos usually want, by their names."""

_REMOVABLE = ("auto", "streams", "neurons", "heads", "heads and neurons")


def plan_insertion(
    model: nn.Module, example_inputs: Any, *, where: Where = "auto", must_fold: bool = True
) -> InsertionPlan:
    """Say where :func:`insert_noise` would put noise, without touching the model.

    Parameters
    ----------
    model : nn.Module
        Any model. One without values, on the meta device or of fake tensors, is planned for by its shapes: it
        is followed with values that take next to no room, and what the plan promises isn't tried.
    example_inputs : Tensor, tuple, list or dict
        One input, positional inputs, or keyword inputs, on which the model is run. Of a model without values
        it may have none either.
    where : str, sequence of str or callable
        As for :func:`insert_noise`.
    must_fold : bool
        As for :func:`insert_noise`.

    Returns
    -------
    InsertionPlan
        Print it to read it.

    Raises
    ------
    ValueError
        If `where` fits no layer.
    SurgeryError
        If the model's answers on the example can't be compared with those of the model with noise.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from bmrs_torch import plan_insertion
    >>> model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    >>> print(plan_insertion(model, torch.ones(2, 4)))
    0: noise on 3 structures (axis -1)
    2: none, it is the model's output
    """
    model = whole(model)
    preset = ALIASES.get(where, where) if isinstance(where, str) else None
    with Progress(5, "places for noise") as progress:
        if is_without_values(model):
            with products_in_pieces():
                model, example_inputs = with_values(model, example_inputs)
                return _planned(Search(model, example_inputs), model, example_inputs, where, preset)
        search = Search(model, example_inputs)
        progress.advance(1)
        plan = _planned(search, model, example_inputs, where, preset)
        progress.advance(1)
        must_go = preset in _REMOVABLE
        return rehearsed(plan, model, example_inputs, progress, must_go=must_go, must_fold=must_fold)


def _planned(
    search: Search, model: nn.Module, example_inputs: Any, where: Where, preset: str | None
) -> InsertionPlan:
    if preset == "hidden":
        return search.hidden()
    if preset == "batchnorm":
        return search.after([name for name, layer in model.named_modules() if isinstance(layer, BATCH_NORMS)])
    if preset == "blocks":
        return search.after(_blocks(model))
    if preset in _REMOVABLE:
        plan = with_states(search.removable(streams=preset == "streams"), model, example_inputs)
        return _restricted(plan, model, preset)
    return search.after(_chosen(model, where))


def _blocks(model: nn.Module) -> list[str]:
    """Names of the blocks of a transformer, on whose outputs the paper's ViT has its noise."""
    names = [name for name, module in model.named_modules() if _is_block_list(module)]
    inner = [n for n in names if not any(other != n and other.startswith(f"{n}.") for other in names)]
    blocks = [f"{n}.{key}".lstrip(".") for n in inner for key, _ in model.get_submodule(n).named_children()]
    if not blocks:
        raise ValueError(
            f"where='blocks' puts noise after the blocks of a transformer, a list of modules of one kind; "
            f"{type(model).__name__} has no such list"
        )
    return blocks


def _is_block_list(module: nn.Module) -> bool:
    children = list(module.children())
    alike = len(children) > 1 and len({type(child) for child in children}) == 1
    return (
        isinstance(module, (nn.ModuleList, nn.Sequential))
        and alike
        and sum(map(is_weighted, children[0].modules())) > 2
    )


def _restricted(plan: InsertionPlan, model: nn.Module, preset: str) -> InsertionPlan:
    """Only the heads, or only the neurons, or both, of a transformer."""

    def belongs(place: Placement) -> bool:
        heads = place.block > 1 and place.before
        linear = place.state or activation_axis(model.get_submodule(place.name)) == -1
        wanted = {"heads": heads, "neurons": linear and not heads, "heads and neurons": linear}
        return wanted.get(preset, True)

    out = [place for place in plan.placements if not belongs(place)]
    streams = {place.stream for place in out if place.stream}
    left = [place for place in plan.placements if place not in out and place.stream not in streams]
    kept = {place.name for place in left}
    names = dict.fromkeys(place.name for place in plan.placements if place.name not in kept)
    return InsertionPlan(
        tuple(left), plan.passed_over + tuple((name, f"{preset!r} leaves it out") for name in names)
    )


def _chosen(model: nn.Module, where: Where) -> list[str]:
    """Names of the layers that the user names."""
    patterns = [where] if isinstance(where, str) else where
    if not (
        callable(patterns) or (isinstance(patterns, Sequence) and all(isinstance(p, str) for p in patterns))
    ):
        raise TypeError(
            "where must be a preset, a name or pattern of layers, a sequence of such or a function of name "
            f"and layer, got {where!r}"
        )
    chosen = [
        name
        for name, module in model.named_modules()
        if name
        and (patterns(name, module) if callable(patterns) else any(fnmatchcase(name, p) for p in patterns))
    ]
    if not chosen:
        raise ValueError(
            f"where must be one of {', '.join(PRESETS)}, a name or pattern of layers such as 'layer*.bn1', a "
            f"sequence of such or a function of name and layer; {where!r} fits no layer of "
            f"{type(model).__name__}"
        )
    return chosen


def insert_noise(
    model: nn.Module,
    example_inputs: Any,
    *,
    where: Where = "auto",
    must_fold: bool = True,
    share: Share = "sample",
    log_a: float = -20.0,
    log_b: float = 0.0,
) -> nn.Module:
    """Put :class:`MultiplicativeNoise` layers on the structures of a model, in place.

    The noise multiplies the pre-activation of each structure, h_i = θ_i·(w_i h_{i−1}) as in Eq. 1, so it
    goes directly after the layer, before its activation; where a BatchNorm follows the layer, after that,
    since the normalisation would undo any factor before it. Output layers get none: there is nothing to
    remove from them. Every layer stays what and where it is, under its own name, with its own parameters: its
    noise is a child of it, `layer.noise`, that a hook applies. A layer that is called more than once has one
    noise, with the same parameters and mask, drawn anew at each call. Insert the noise before the optimizer
    is made.

    On the example it is tried that the model with all gates open (θ = 1) answers as before, and that
    :func:`bmrs_torch.fold` can take each gate out again; where not, no noise is put.

    Parameters
    ----------
    model : nn.Module
        Any model.
    example_inputs : Tensor, tuple, list or dict
        One input, positional inputs, or keyword inputs, on which the model is run (in evaluation mode) to
        see which layers feed which. A small batch will do; up to 16 MiB are kept for :func:`fold`.
    where : str, sequence of str or callable
        - ``"auto"``: one gate for the structures of each layer, at a place where closing it lets them go
          from the whole network: neurons, filters, attention heads, before their output projection, and
          units of recurrent layers, whose noise reaches their recurrence too and is one for all samples.
          Layers on residual streams get none;
        - ``"streams"``: as ``"auto"``, and one noise layer for each residual stream, shared by all layers
          that add to it;
        - ``"heads"``, ``"neurons"``, ``"heads and neurons"``: of ``"auto"`` the attention heads, the neurons
          of the linear and recurrent layers, or both;
        - ``"hidden"``: after every hidden layer, removable or not;
        - ``"batchnorm"``: after every BatchNorm, as in the paper's ResNets;
        - ``"blocks"``: after each block of a transformer, as in the paper's ViT, which can't be folded;
        - names of layers or patterns such as ``"layer*.bn1"``: after these;
        - a function of a layer's name and the layer: after those for which it is true.

        :data:`ALIASES` has names of networks for some of these.
    must_fold : bool
        Put no gate that :func:`fold` couldn't take out again. Without it noise can be put that is good for
        training and judging, but from which no plain network can be had.
    share : {"sample", "batch", "element"}
        Over what one θ is shared; see :func:`multiplicative_noise`.
    log_a, log_b : float
        As of :class:`MultiplicativeNoise`.

    Returns
    -------
    nn.Module
        The same `model`. :func:`noise_layers` lists what it has now; :func:`plan_insertion` tells
        beforehand, and why a layer is passed over.

    Raises
    ------
    ValueError
        If no noise could be inserted (the reasons are given), `where` fits no layer, or the model would
        answer differently with open gates on a layer that `where` names.
    SurgeryError
        If that can't be compared: the model answers differently each time, or with no floating-point numbers.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from bmrs_torch import insert_noise, noise_layers
    >>> model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    >>> list(noise_layers(insert_noise(model, torch.ones(2, 4))))
    ['0.noise']
    """
    check_share(share)
    check_bounds(log_a, log_b)
    if isinstance(model, nn.parallel.DistributedDataParallel):
        raise ValueError(
            "noise must be inserted into a model before it is wrapped in DistributedDataParallel, which "
            "synchronises only the parameters that it found then: insert_noise(model, example_inputs) first"
        )
    if is_divided(unwrapped(model)):
        raise ValueError(
            "noise must be inserted into a model before fully_shard divides it, which divides only the "
            "parameters that it found then: insert_noise(model, example_inputs) first"
        )
    plan = plan_insertion(model, example_inputs, where=where, must_fold=must_fold)
    reasons = "; ".join(f"{name or '(model)'}: {reason}" for name, reason in plan.passed_over)
    if not plan.placements:
        reasons = reasons or "it calls no Linear or Conv layer"
        raise ValueError(f"no noise could be inserted into {type(model).__name__}: {reasons}")
    named = not isinstance(where, str) or ALIASES.get(where, where) not in PRESETS
    changing = [f"{name!r}" for name, reason in plan.passed_over if reason == CHANGES_OPEN]
    if named and changing:
        raise ValueError(f"noise can't be put on {', '.join(changing)}: {CHANGES_OPEN}")
    carry_out(plan, unwrapped(model), share=share, log_a=log_a, log_b=log_b)
    remember(unwrapped(model), example_inputs)
    return model
