"""Let an optimizer go on with a model whose parameters have become smaller."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator, Mapping
from itertools import combinations
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from bmrs_torch.channels.computed import computed_tensors
from bmrs_torch.surgery.cutting import Cut

__all__ = [
    "carry_gradients",
    "check_optimizer",
    "check_trains",
    "fits",
    "trained_by",
    "with_smaller_state",
]

Reduced = tuple[tuple[int, ...], bool]
"""Axes of a parameter over which a statistic of it was taken, from the back; whether they stay, as 1."""


def trained_by(optimizer: torch.optim.Optimizer) -> set[nn.Parameter]:
    """The parameters in an optimizer's groups."""
    return {parameter for group in optimizer.param_groups for parameter in group["params"]}


def check_trains(optimizer: torch.optim.Optimizer, model: nn.Module) -> set[nn.Parameter]:
    """Return what an optimizer trains of a model; raise if it is no optimizer, or that is nothing."""
    kind = type(optimizer).__name__
    if not isinstance(optimizer, torch.optim.Optimizer):
        came = f"the class {optimizer.__name__}" if isinstance(optimizer, type) else f"a {kind}"
        raise TypeError(
            f"optimizer must be a torch.optim.Optimizer, made for the model's parameters, got {came}"
        )
    own = trained_by(optimizer) & set(model.parameters())
    if not own:
        raise ValueError(
            f"the {kind} given trains no parameter of this {type(model).__name__}: it was made for another "
            "model, or before this one was made smaller or its parameters replaced. Make it of "
            "bmrs_torch.parameter_groups(model, lr)"
        )
    return own


def check_optimizer(optimizer: torch.optim.Optimizer, model: nn.Module) -> None:
    """Raise unless an optimizer can go on with a smaller model in the place of this one.

    Parameters
    ----------
    optimizer : torch.optim.Optimizer
        It is left as it is.
    model : nn.Module
        What is to become smaller.

    Raises
    ------
    TypeError
        If it is no optimizer.
    ValueError
        If it trains nothing of the model, holds on to parameters outside its groups, or has state that is
        about more than the parameter that it belongs to.
    """
    own, kind = check_trains(optimizer, model), type(optimizer).__name__
    holders = sorted(_holders(optimizer, own))
    if holders:
        raise ValueError(
            f"{kind} holds on to the model's parameters outside its groups, in {', '.join(holders)}, where "
            f"they can't be replaced by smaller ones. {_INSTEAD}"
        )
    for parameter in own:
        for key, tensor in _tensors(optimizer.state.get(parameter, {})):
            if not _is_about(tensor, parameter):
                raise ValueError(
                    f"the state of {kind} can't be cut: {key!r} of shape {tuple(tensor.shape)} is kept for a "
                    f"parameter of shape {tuple(parameter.shape)} and tells of more than that. {_INSTEAD}"
                )


_INSTEAD = (
    "Nothing was changed. Compact the model without optimizer= (a Pruner: without shrink=True) and make a "
    "new optimizer for the smaller one"
)


def with_smaller_state(
    optimizer: torch.optim.Optimizer, model: nn.Module, smaller: nn.Module, cut: Cut
) -> Callable[[], None]:
    """Cut an optimizer's state; what comes back puts it, with the smaller parameters, into the optimizer.

    Tensors of a parameter's shape, and statistics of it over some of its axes (the factors of Adafactor),
    are cut as the parameter is. Where state is of another kind (the matrices of Shampoo), or it can't be
    told over which axes it was taken, all of that parameter's state begins anew.

    Parameters
    ----------
    optimizer : torch.optim.Optimizer
        As :func:`check_optimizer` lets it pass; left as it is by this call.
    model, smaller : nn.Module
        The model before and after; their parameters have the same names.
    cut : Cut
        What was cut out of each parameter.

    Returns
    -------
    callable
        Without arguments; changes the optimizer. Parameters that aren't the model's stay.

    Warns
    -----
    UserWarning
        If state begins anew.
    """
    names = {parameter: name for name, parameter in model.named_parameters()}
    successors = dict(smaller.named_parameters())
    # Weights that are no longer computed, such as spectral_norm's, take the place of what they were made of.
    made_of = {name: t.full_name for t in computed_tensors(model) for name in t.originals()}
    held = {p: names[p] for group in optimizer.param_groups for p in group["params"] if p in names}
    state = _cut_states({p: optimizer.state[p] for p in held if p in optimizer.state}, held, cut)
    anew = [held[parameter] for parameter in held if parameter in optimizer.state and parameter not in state]
    if anew:
        listed = ", ".join(anew[:_MOST_NAMES]) + (", …" if len(anew) > _MOST_NAMES else "")
        warnings.warn(
            f"the state of {type(optimizer).__name__} for {len(anew)} parameters that became smaller "
            f"({listed}) can't be cut, as it isn't an entry for each of theirs; it begins anew at the next "
            "step",
            stacklevel=3,
        )

    def rebind() -> None:
        for group in optimizer.param_groups:
            for i, parameter in enumerate(group["params"]):
                if parameter not in held:
                    continue
                name = held[parameter]
                group["params"][i] = successors[name if name in successors else made_of[name]]
                optimizer.state.pop(parameter, None)
                if name in successors and parameter in state:
                    optimizer.state[successors[name]] = state[parameter]
            group["params"] = list(dict.fromkeys(group["params"]))

    return rebind


_MOST_NAMES = 4


def _cut_states(
    states: Mapping[nn.Parameter, Mapping[str, Any]], names: Mapping[nn.Parameter, str], cut: Cut
) -> dict[nn.Parameter, Any]:
    """The states that can go on, cut where their parameters are."""
    kinds = _Kinds(states)
    found: dict[nn.Parameter, Any] = {}
    for parameter, state in states.items():
        name = names[parameter]
        if not cut.changes(name):
            found[parameter] = state
            continue
        with contextlib.suppress(_OfAnotherKindError):
            found[parameter] = {
                key: kinds.cut(key, value, parameter, name, cut) for key, value in state.items()
            }
    return found


@torch.no_grad()
def carry_gradients(model: nn.Module, smaller: nn.Module, cut: Cut) -> None:
    """Give a smaller model the gradients that another has accumulated, cut as its parameters were."""
    successors = dict(smaller.named_parameters())
    for name, parameter in model.named_parameters():
        gradient = parameter.grad
        if gradient is None or name not in successors:
            continue
        if not cut.changes(name):
            successors[name].grad = gradient.clone()
        elif gradient.is_sparse:
            kept = cut.apply(name, gradient.to_dense())
            successors[name].grad = kept.to_sparse(gradient.sparse_dim())
        else:
            successors[name].grad = cut.apply(name, gradient)


def fits(state: Mapping[str, Any], parameter: Tensor, other: list[int]) -> bool:
    """Whether an optimizer's state may be that of a parameter, and isn't that of one of another shape."""
    own = tuple(parameter.shape)
    tensors = [leaf for value in state.values() for leaf in tree_leaves(value) if isinstance(leaf, Tensor)]
    return not any(list(tensor.shape) == other for tensor in tensors) and all(
        _reductions(tuple(tensor.shape), own) for tensor in tensors if tensor.numel() != 1
    )


class _OfAnotherKindError(ValueError):
    """State that can't be cut as its parameter is."""


class _Kinds:
    """Over which axes of parameters the tensors of an optimizer's state were taken, by their key.

    One parameter doesn't tell: a vector of 8 beside a weight of 8×8 may belong to its rows or its columns,
    and a matrix of 8×8 may be no moment of it but a preconditioner. What a key means is the same for all.
    """

    def __init__(self, states: Mapping[nn.Parameter, Mapping[str, Any]]) -> None:
        self._unknown: set[str] = set()
        self._common: dict[str, set[Reduced]] = {}
        for parameter, state in states.items():
            for key, tensor in _tensors(state):
                possible = _reductions(tuple(tensor.shape), tuple(parameter.shape))
                if not possible:
                    self._unknown.add(key)
                self._common[key] = self._common.get(key, possible) & possible

    def cut(self, key: str, value: Any, parameter: Tensor, name: str, cut: Cut) -> Any:
        """What stays of a state's value, tensors in lists and dictionaries included."""

        def smaller(leaf: Any) -> Any:
            if not isinstance(leaf, Tensor) or leaf.numel() == 1:
                return leaf
            if key in self._unknown:
                raise _OfAnotherKindError
            possible = _reductions(tuple(leaf.shape), tuple(parameter.shape))
            results = [
                _cut(leaf, way, parameter, name, cut) for way in (possible & self._common[key]) or possible
            ]
            if any(not torch.equal(results[0], other) for other in results[1:]):
                raise _OfAnotherKindError
            return results[0]

        return tree_map(smaller, value)


def _cut(value: Tensor, reduced: Reduced, parameter: Tensor, name: str, cut: Cut) -> Tensor:
    """Cut a statistic taken over some axes of a parameter: spread it over them, cut, take one of each."""
    axes, stay = reduced
    if not axes:
        return cut.apply(name, value)
    spread = value
    for axis in sorted(axes) if not stay else ():
        spread = spread.unsqueeze(axis + parameter.ndim)
    kept = cut.apply(name, spread.expand(parameter.shape))
    first = kept
    for axis in axes:
        first = first.narrow(axis, 0, 1)
    if not torch.equal(first.expand_as(kept), kept):  # columns of groups go by themselves
        raise _OfAnotherKindError
    return (first if stay else first.squeeze(axes)).clone()


def _reductions(shape: tuple[int, ...], own: tuple[int, ...]) -> set[Reduced]:
    """The axes of a parameter over which a tensor of this shape may have been taken."""
    if shape == own:
        return {((), True)}
    if len(shape) == len(own):
        fit = all(a in (b, 1) for a, b in zip(shape, own, strict=True))
        axes = tuple(i - len(own) for i, (a, b) in enumerate(zip(shape, own, strict=True)) if a != b)
        return {(axes, True)} if fit else set()
    return {
        (tuple(i - len(own) for i in dropped), False)
        for dropped in combinations(range(len(own)), max(len(own) - len(shape), 0))
        if tuple(size for i, size in enumerate(own) if i not in dropped) == shape
    }


def _is_about(tensor: Tensor, parameter: Tensor) -> bool:
    """Whether a tensor of a state tells of this parameter alone: each axis is one of the parameter's."""
    return all(size in (0, 1, *parameter.shape) for size in tensor.shape)


def _tensors(state: Mapping[str, Any]) -> Iterator[tuple[str, Tensor]]:
    """The tensors of more than one entry in a parameter's state."""
    for key, value in state.items():
        for leaf in tree_leaves(value):
            if isinstance(leaf, Tensor) and leaf.numel() != 1:
                yield key, leaf


def _holders(optimizer: torch.optim.Optimizer, own: set[nn.Parameter]) -> Iterator[str]:
    """Attributes of an optimizer and entries of its groups, beside those known, that hold parameters."""
    groups = optimizer.param_groups
    lists = [group["params"] for group in groups]
    replaced = {id(part) for part in (groups, optimizer.state, *groups, *lists)}
    own_ids = {id(parameter) for parameter in own}
    for name, value in vars(optimizer).items():
        if _holds(value, own_ids, set(replaced)):
            yield f".{name}"
    for group in groups:
        for name, value in group.items():
            if _holds(value, own_ids, set(replaced)):
                yield f"param_groups[…][{name!r}]"


def _holds(value: Any, own: set[int], seen: set[int]) -> bool:
    """Whether one of the parameters is in a container, other than those seen."""
    if id(value) in own:
        return True
    if id(value) in seen:
        return False
    seen.add(id(value))
    if isinstance(value, torch.optim.Optimizer):
        value = vars(value)
    if isinstance(value, Mapping):
        value = [*value, *value.values()]
    return isinstance(value, (list, tuple, set, frozenset)) and any(_holds(part, own, seen) for part in value)
