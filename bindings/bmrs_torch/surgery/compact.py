"""Make a network smaller: remove what is masked, and prove that its answers stay the same."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, TypeVar

import torch
from torch import nn

from bmrs_torch.channels.calling import TrainingStep
from bmrs_torch.channels.reached import unreached_twins
from bmrs_torch.distributed.sharding import is_divided
from bmrs_torch.layer import noise_layers
from bmrs_torch.surgery.cutting import Cut, cut_model
from bmrs_torch.surgery.optimizer_state import carry_gradients, check_optimizer, with_smaller_state
from bmrs_torch.surgery.plan_compaction import select
from bmrs_torch.surgery.surgeon import Surgeon
from bmrs_torch.surgery.unreached import Unreached, check_unreached, report_unreached, unreached_readers
from bmrs_torch.surgery.verification import warn_untrained
from bmrs_torch.wrapping import unwrapped, whole

M = TypeVar("M", bound=nn.Module)


def compact(
    model: M,
    example_inputs: Any,
    *,
    optimizer: torch.optim.Optimizer | None = None,
    others: Sequence[nn.Module] = (),
    training_step: TrainingStep | None = None,
    unreached: Unreached = "error",
    time_limit: float = float("inf"),
) -> M:
    """Return a smaller model with the masked structures removed from every layer they reach.

    The noise layers stay, narrower; :func:`fold` removes them. The model given is left untouched, and so are
    the optimizer and the other models unless all went well. Whatever would change the model's answers is
    retained: on the example, on other values, at another batch size and at another length or image size, as
    far as the model runs on these, and in training mode.

    Parameters
    ----------
    model : nn.Module
        A model with noise layers, some of whose structures are masked by :func:`prune`. Of one wrapped by
        DistributedDataParallel, DataParallel, ``torch.compile`` or AveragedModel what is inside is made
        smaller and returned, to be wrapped again; of one that ``fully_shard`` divided a plain copy, on all
        ranks, which all have to call this.
    example_inputs : Tensor, tuple, list or dict
        One input, positional inputs, or keyword inputs: to follow the model's channels with, and to compare
        the two models on in evaluation mode. A real minibatch tells more than zeros.
    optimizer : torch.optim.Optimizer, optional
        An optimizer of `model`, made to continue with the new model: its parameters are replaced and its
        state (the moments of Adam, the factors of Adafactor) is cut to match.
    others : sequence of nn.Module
        Models of the same structure, such as an exponential moving average of the weights or an
        ``AveragedModel`` of `model`, made smaller in place and alike.
    training_step : callable, optional
        What a step of training computes where that needs more than the example, such as targets:
        ``lambda model: loss(model(x), y)``. It gets copies of the model in training mode and returns what is
        to stay the same. By default the model is called on the example.
    unreached : {"error", "warn"}
        What to do about parameters that the example never reached, such as a second head, of the width of
        something that is cut: they might read it. By default an error, for what never runs can't be verified.
        Of a mixture of experts, of which values choose some, what they have in common is retained instead.
    time_limit : float
        Seconds after which the search for what can't go ends: what wasn't tried by then is retained, and the
        warning says so. By default there is no end, and what goes doesn't depend on the machine's speed.

    Returns
    -------
    nn.Module
        The smaller model, in the training mode and with the `requires_grad` of the one given, and with the
        gradients that were accumulated, cut to match.

    Raises
    ------
    SurgeryError
        If the model's answers can't be compared, or if parameters that the example never reached, which are
        named, might read what is cut.
    ValueError
        If the model has no noise layers, another model isn't of its structure, parameters are computed by a
        hook or have no shape yet, `unreached` isn't one of the two, or the optimizer is another model's or
        can't go on (LBFGS, whose state is about all parameters at once; any, of a divided model).
    TypeError
        For example inputs of another kind, or an optimizer that is none.

    Warns
    -----
    UserWarning
        If structures are masked that can't be removed, with the reasons; :func:`plan_compaction` lists them.
        If the model can't be run in training mode on the example, so that nothing was verified there.
        If an optimizer's state can't be cut and begins anew.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from bmrs_torch import compact, insert_noise
    >>> model = insert_noise(nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)), torch.ones(2, 4))
    >>> model[0].noise.mask[1] = 0
    >>> compact(model, torch.ones(2, 4))[2]
    Linear(in_features=2, out_features=2, bias=True)
    """
    noise_layers(model)
    check_unreached(unreached)
    if (optimizer is not None or others) and is_divided(unwrapped(model)):
        raise ValueError(
            "a model that fully_shard divided can't be made smaller together with an optimizer, whose state "
            "is divided too, or with others: prune it by masks while it trains, then compact it without "
            "them, which gives a whole plain network on every rank, and make those anew"
        )
    model = whole(model)  # type: ignore[assignment]
    _check_alike(model, others)
    if optimizer is not None:
        check_optimizer(optimizer, model)
    selection = select(model, example_inputs, training_step=training_step)
    surgeon = Surgeon(model, example_inputs, selection, training_step=training_step, time_limit=time_limit)
    smaller, selection = surgeon.operate()
    network = selection.network
    widths = network.widths(lambda labels: selection.goes(network.labels.roots(labels)))
    experts = unreached_twins(model, network.parameters)  # for which what they share is retained
    readers = [name for name in unreached_readers(model, network, widths) if name not in experts]
    report_unreached(readers, unreached, "cut")
    if surgeon.untrained:
        warn_untrained(surgeon.untrained)
    plan = selection.plan(selection.removable)
    if plan.retained:
        warnings.warn(f"{plan.retained} masked structures are not removable:\n{plan}", stacklevel=2)
    cut = Cut(selection)
    carry_gradients(model, smaller, cut)
    rebind = None if optimizer is None else with_smaller_state(optimizer, model, smaller, cut)
    for other in others:
        cut_model(same_part(model, other), cut)
    if rebind is not None:
        rebind()
    return smaller


def _check_alike(model: nn.Module, others: Sequence[nn.Module]) -> None:
    for other in others:
        same_part(model, other)


def same_part(model: nn.Module, other: nn.Module) -> nn.Module:
    """The part of another model that has the model's structure: itself, or what an average wraps."""
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    for part in (other, getattr(other, "module", None)):
        if isinstance(part, nn.Module):
            found = {name: tensor.shape for name, tensor in part.state_dict().items()}
            if found == shapes:
                return part
    raise ValueError(
        f"others must be models of the same structure as the {type(model).__name__} to compact, so that the "
        f"same channels can be removed from them, got a {type(other).__name__} with other parameters"
    )
