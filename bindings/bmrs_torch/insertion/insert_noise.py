"""Put noise layers on the structures of a network."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from typing import Any

from torch import nn

from bmrs_kernels.contract import Share
from bmrs_torch.attachment import BlockNoiseBefore, Gate, NoiseBefore, WithNoise, keep_from_fast_path
from bmrs_torch.channels.network import follow
from bmrs_torch.channels.weights import NORMS, activation_axis, is_weighted
from bmrs_torch.insertion.placement import InsertionPlan, Placement
from bmrs_torch.insertion.search import CALLED_AGAIN, HAS_NOISE, IS_OUTPUT, NOT_CALLED, Search
from bmrs_torch.layer import MultiplicativeNoise, noise_layers
from bmrs_torch.module_graph import WEIGHTED, ModuleGraph
from bmrs_torch.surgery.compact import CHANGES_ANSWERS, Surgeon
from bmrs_torch.surgery.plan_compaction import Selection

Where = str | Sequence[str] | Callable[[str, nn.Module], bool]


def plan_insertion(model: nn.Module, example_inputs: Any = None, *, where: Where = "auto") -> InsertionPlan:
    """Say where :func:`insert_noise` would put noise, without touching the model.

    Parameters
    ----------
    model : nn.Module
        Any model; without `example_inputs` one that torch.fx can follow.
    example_inputs : Tensor, tuple, list or dict, optional
        One input, positional inputs, or keyword inputs, on which the model is run.
    where : str, sequence of str or callable
        As for :func:`insert_noise`.

    Returns
    -------
    InsertionPlan
        Print it to read it.

    Raises
    ------
    ValueError
        If `where` fits no layer, or needs `example_inputs`, or torch.fx can't follow the model without them.

    Examples
    --------
    >>> from torch import nn
    >>> from bmrs_torch import plan_insertion
    >>> print(plan_insertion(nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))))
    0: noise on 3 structures (axis -1)
    2: none, it is an output layer
    """
    preset = PRESETS.get(where) if isinstance(where, str) else None
    if preset is None:
        return _chosen(model, example_inputs, where)
    if preset == "hidden" or (preset == "auto" and example_inputs is None):
        return _hidden(model) if example_inputs is None else Search(model, example_inputs).hidden()
    if preset == "batchnorm":
        return _norms(model)
    if example_inputs is None:
        raise ValueError(
            f"where={where!r} needs example_inputs: the model is run on them to see which layers feed which"
        )
    if preset == "blocks":
        return _blocks(model, example_inputs)
    plan = Search(model, example_inputs).removable(streams=preset == "streams")
    return _rehearsed(_restricted(plan, model, preset), model, example_inputs)


PRESETS = {
    "auto": "auto",
    "hidden": "hidden",
    "mlp": "hidden",
    "lenet5": "hidden",
    "vgg": "hidden",
    "batchnorm": "batchnorm",
    "resnet": "batchnorm",
    "streams": "streams",
    "neurons": "neurons",
    "heads": "heads",
    "transformer": "transformer",
    "vit": "transformer",
    "bert": "transformer",
    "gpt": "transformer",
    "blocks": "blocks",
}
"""Names that :func:`insert_noise` takes for `where`, and what they stand for."""


def _hidden(model: nn.Module) -> InsertionPlan:
    """After every hidden layer and the norm that follows it, as torch.fx reads the forward method."""
    graph = ModuleGraph(model)
    placements, passed_over = [], []
    for name in graph.names_of(WEIGHTED):
        at = graph.following(name, NORMS) or name
        reason = _why_not(graph, name, at)
        if reason is None:
            placements.append(_after(at, model.get_submodule(at)))
        else:
            passed_over.append((name, reason))
    return InsertionPlan(tuple(placements), tuple(passed_over))


def _why_not(graph: ModuleGraph, name: str, at: str) -> str | None:
    if not graph.is_called_once(name):
        return CALLED_AGAIN
    if graph.is_output(name):
        return IS_OUTPUT
    if graph.following(at, (MultiplicativeNoise,)) is not None:
        return HAS_NOISE
    return None


def _after(name: str, layer: nn.Module) -> Placement:
    axis = activation_axis(layer)
    keys = ("out_features", "out_channels", "num_features", "nf")
    number = next((int(getattr(layer, key)) for key in keys if hasattr(layer, key)), None)
    if axis is None or number is None:
        raise ValueError(
            f"noise can be put after Linear, Conv and BatchNorm layers, whose structures are known, and "
            f"after other layers only if example_inputs are given; {name!r} is a {type(layer).__name__}"
        )
    return Placement(name, number, axis)


def _norms(model: nn.Module) -> InsertionPlan:
    """After every BatchNorm, as in the paper's ResNets."""
    norms = [(n, m) for n, m in model.named_modules() if isinstance(m, NORMS)]
    gated = {n for n, _ in norms if isinstance(_parent(model, n), Gate)}
    return InsertionPlan(
        tuple(_after(n, m) for n, m in norms if n not in gated), tuple((n, HAS_NOISE) for n in sorted(gated))
    )


def _blocks(model: nn.Module, example_inputs: Any) -> InsertionPlan:
    """After each block of a transformer, on its last axis, as in the paper's ViT."""
    names = [name for name, module in model.named_modules() if _is_block_list(module)]
    inner = [n for n in names if not any(other != n and other.startswith(f"{n}.") for other in names)]
    blocks = {f"{n}.{key}" if n else key for n in inner for key, _ in model.get_submodule(n).named_children()}
    return _chosen(model, example_inputs, lambda name, _: name in blocks)


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
        heads = place.block > 1
        linear = activation_axis(model.get_submodule(place.name)) == -1
        return {"heads": heads, "neurons": linear and not heads, "transformer": linear}.get(preset, True)

    left_out = tuple((p.name, f"{preset!r} leaves it out") for p in plan.placements if not belongs(p))
    return InsertionPlan(tuple(filter(belongs, plan.placements)), plan.passed_over + left_out)


def _rehearsed(plan: InsertionPlan, model: nn.Module, example_inputs: Any) -> InsertionPlan:
    """Leave out what surgery, tried on a copy with one structure left of each layer, has to retain."""
    trial = copy.deepcopy(model)
    _carry_out(plan, trial)
    if not plan.placements:
        return plan
    layers = noise_layers(trial)
    for layer in layers.values():
        layer.mask[:-1] = 0
    _, selection, _ = Surgeon(
        trial, example_inputs, Selection(follow(trial, example_inputs), layers)
    ).operate()
    stuck = {
        layer.name
        for layer in selection.plan(selection.removable).layers
        if not layer.removed and any(reason == CHANGES_ANSWERS for _, reason in layer.retained)
    }
    noises = {layers[name] for name in stuck}
    left_out = {p.name for p in plan.placements if trial.get_submodule(f"{p.name}.noise") in noises}
    return InsertionPlan(
        tuple(p for p in plan.placements if p.name not in left_out),
        plan.passed_over + tuple((name, CHANGES_ANSWERS) for name in sorted(left_out)),
    )


def _chosen(model: nn.Module, example_inputs: Any, where: Where) -> InsertionPlan:
    """After the layers that the user names."""
    patterns = [where] if isinstance(where, str) else where
    if not (
        callable(patterns) or (isinstance(patterns, Sequence) and all(isinstance(p, str) for p in patterns))
    ):
        raise TypeError(
            "where must be a preset, a name or pattern of layers, a sequence of such or a function of name "
            f"and layer, got {where!r}"
        )
    chosen = [
        (name, module)
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
    if example_inputs is None:
        inside = {n for n, _ in chosen if isinstance(_parent(model, n), nn.MultiheadAttention)}
        placements = tuple(_after(name, module) for name, module in chosen if name not in inside)
        return InsertionPlan(placements, tuple((name, NOT_CALLED) for name in sorted(inside)))
    return _measured(model, example_inputs, chosen)


def _parent(model: nn.Module, name: str) -> nn.Module:
    return model.get_submodule(name.rpartition(".")[0])


def _measured(
    model: nn.Module, example_inputs: Any, chosen: Sequence[tuple[str, nn.Module]]
) -> InsertionPlan:
    """Noise after these layers, on the axis on which the channels of their outputs lie."""
    calls = {call.name: call for call in follow(model, example_inputs).calls}
    placements, passed_over = [], []
    for name, module in chosen:
        axis = activation_axis(module)
        axes = calls[name].result if name in calls else ()
        if axis is None:  # channels last, as in tokens, or second, as in images
            axis = next((d for d in (-1, 1) if len(axes) > 1 and axes[d] is not None), None)
        channels = axes[axis] if axis is not None and len(axes) > 1 else None
        if axis is None or channels is None:
            passed_over.append(
                (name, "its output isn't a tensor with channels on its last axis or its second")
            )
        else:
            placements.append(Placement(name, channels.size, axis))
    return InsertionPlan(tuple(placements), tuple(passed_over))


def insert_noise(
    model: nn.Module,
    example_inputs: Any = None,
    *,
    where: Where = "auto",
    share: Share = "sample",
    log_a: float = -20.0,
    log_b: float = 0.0,
) -> nn.Module:
    """Put :class:`MultiplicativeNoise` layers on the structures of a model, in place.

    The noise multiplies the pre-activation of each structure, h_i = θ_i·(w_i h_{i−1}) as in Eq. 1, so it
    goes directly after the layer, before its activation; where a BatchNorm follows the layer, after that,
    since the normalisation would undo any factor before it. Output layers, after which nothing with weights
    comes, get none: there is nothing to remove from them. Insert the noise before the optimizer is made and
    after any weights are loaded: the layer `name` becomes `name.layer`, beside `name.noise`.
    :func:`bmrs_torch.fold` undoes this.

    Parameters
    ----------
    model : nn.Module
        Any model; without `example_inputs` one whose forward method torch.fx can follow.
    example_inputs : Tensor, tuple, list or dict, optional
        One input, positional inputs, or keyword inputs, on which the model is run (in evaluation mode) to
        see which layers feed which. A small batch will do.
    where : str, sequence of str or callable
        - ``"auto"``: one gate for the structures of each layer, at a place where closing it lets them go
          from the whole network: neurons, filters, and attention heads, before their output projection.
          Layers on residual streams get none. Without `example_inputs` the same as ``"hidden"``;
        - ``"hidden"`` (``"mlp"``, ``"lenet5"``, ``"vgg"``): after every hidden layer, removable or not;
        - ``"batchnorm"`` (``"resnet"``): after every BatchNorm, as in the paper's ResNets;
        - ``"streams"``: as ``"auto"``, and one noise layer for each residual stream, shared by all layers
          that add to it;
        - ``"transformer"`` (``"vit"``, ``"bert"``, ``"gpt"``), ``"heads"``, ``"neurons"``: of ``"auto"`` the
          attention heads, the neurons of the linear layers, or both;
        - ``"blocks"``: after each block of a transformer, as in the paper's ViT;
        - names of layers or patterns such as ``"layer*.bn1"``: after these;
        - a function of a layer's name and the layer: after those for which it is true.
    share : {"sample", "batch", "element"}
        Over what one θ is shared; see :func:`multiplicative_noise`.
    log_a, log_b : float
        Bounds of log θ.

    Returns
    -------
    nn.Module
        The same `model`. :func:`noise_layers` lists what it has now; :func:`plan_insertion` tells
        beforehand, and why a layer is passed over.

    Raises
    ------
    ValueError
        If no noise could be inserted (the reasons are given), `where` fits no layer, or the forward method
        can't be followed without `example_inputs`.

    Examples
    --------
    >>> from torch import nn
    >>> from bmrs_torch import insert_noise, noise_layers
    >>> model = insert_noise(nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)))
    >>> list(noise_layers(model))
    ['0.noise']
    """
    plan = plan_insertion(model, example_inputs, where=where)
    if not plan.placements:
        reasons = (
            "; ".join(f"{name}: {reason}" for name, reason in plan.passed_over)
            or "it calls no Linear or Conv layer"
        )
        raise ValueError(f"no noise could be inserted into {type(model).__name__}: {reasons}")
    _carry_out(plan, model, share=share, log_a=log_a, log_b=log_b)
    return model


def _carry_out(plan: InsertionPlan, model: nn.Module, **options: Any) -> None:
    shared: dict[str, MultiplicativeNoise] = {}
    for place in plan.placements:
        noise = shared.get(place.stream)
        if noise is None:
            noise = MultiplicativeNoise(place.num_structures, axis=place.axis, **options)
        if place.stream:
            shared[place.stream] = noise
        _put(model, place, noise)
    keep_from_fast_path(model)


def _put(model: nn.Module, place: Placement, noise: MultiplicativeNoise) -> None:
    layer = model.get_submodule(place.name)
    like = next((p for p in layer.parameters() if p.is_floating_point()), None)
    if like is None:
        like = next((p for p in model.parameters() if p.is_floating_point()), None)
    if like is not None:
        noise.to(device=like.device, dtype=like.dtype)
    kind = WithNoise if not place.before else NoiseBefore if place.block == 1 else BlockNoiseBefore
    gate = kind(layer, noise.train(layer.training))
    gate.training = layer.training
    model.set_submodule(place.name, gate)
