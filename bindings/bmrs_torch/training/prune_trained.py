"""Prune a network that was trained without noise: learn the noise alone, with the weights as they are."""

from __future__ import annotations

import contextlib
import copy
import math
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from bmrs_torch.channels.calling import in_mode
from bmrs_torch.deciding.prune import PruneReport, check_rule, prune
from bmrs_torch.insertion import insert_noise
from bmrs_torch.layer import MultiplicativeNoise, noise_layers
from bmrs_torch.objective import default_kl_weight, elbo_loss
from bmrs_torch.operation.arguments import check_model, check_real, check_whole
from bmrs_torch.surgery.compact import compact
from bmrs_torch.surgery.fold import fold
from bmrs_torch.training.checks import check_example
from bmrs_torch.training.diagnosis import Course, collapsed, explain_collapse, explain_nothing

STEPS = 500
LR = 0.05
"""Adam moves log σ by about this much a step at most: 500 steps lead from −5 far beyond the prior's width."""


@dataclass(frozen=True)
class PostTrainingResult:
    """What :func:`prune_trained` made.

    Attributes
    ----------
    model : nn.Module
        The smaller network, an ordinary one; fine-tune it to win back what it lost.
    masked : nn.Module
        The network with its noise and masks, of the original widths.
    decision : PruneReport
        What was pruned and by which scores.
    steps : int
        How many steps were taken.
    losses : tuple of float
        The misfit, without the divergence, at each step.
    """

    model: nn.Module
    masked: nn.Module
    decision: PruneReport
    steps: int
    losses: tuple[float, ...]


def prune_trained(
    model: nn.Module,
    batches: Iterable[Any],
    loss: Callable[[nn.Module, Any], Tensor],
    *,
    num_samples: int | None = None,
    steps: int = STEPS,
    lr: float = LR,
    kl_weight: float | None = None,
    example_inputs: Any = None,
    criterion: str = "bmrs_n",
    **rule_options: Any,
) -> PostTrainingResult:
    """Prune a trained network with a few hundred batches: insert noise, learn only that, decide, shrink.

    The weights stay as they are, and so do dropout and the statistics of BatchNorm: the network runs as in
    evaluation, but for the noise. In a loop of one's own this is::

        noisy = insert_noise(copy.deepcopy(model), x).eval().requires_grad_(False)
        for layer in noise_layers(noisy).values():
            layer.train().requires_grad_(True)
        optimizer = torch.optim.Adam([p for p in noisy.parameters() if p.requires_grad], lr=0.05)
        for x, y in batches:
            optimizer.zero_grad()
            misfit = cross_entropy(noisy(x), y)
            elbo_loss(misfit, noisy, num_samples=len(data)).backward()
            optimizer.step()
        prune(noisy)
        smaller = fold(compact(noisy, x), x)

    Parameters
    ----------
    model : nn.Module
        A trained network, without noise, or with noise layers where they are wanted; it is left untouched.
    batches : iterable
        Of minibatches, such as a DataLoader; gone through again as often as the steps need it.
    loss : callable
        From a network and a minibatch to the mean negative log-likelihood, for instance
        ``lambda model, batch: cross_entropy(model(batch[0]), batch[1])``. With the first minibatch it is also
        called on copies of the network in training mode, to see that surgery leaves training as it was.
    num_samples : int, optional
        Size of the whole training set. By default the length of ``batches.dataset``.
    steps : int
        How many steps of Adam.
    lr : float
        Its learning rate.
    kl_weight : float, optional
        *The* dial between accuracy and compression; by default :func:`default_kl_weight`.
    example_inputs : Tensor, tuple, list or dict, optional
        A minibatch of inputs to trace the network with. By default the first element of the first minibatch
        if that is a tuple or list, else the minibatch.
    criterion : str
        See :func:`prune`, as for all `rule_options`.
    **rule_options
        Further options of :func:`prune`.

    Returns
    -------
    PostTrainingResult

    Raises
    ------
    ValueError
        If there is no minibatch, the number of samples can't be told, or a number is out of range; if the
        loss doesn't depend on the noise or is or becomes not finite; before any step, if the network can't
        take the example; and as :func:`insert_noise`, :func:`prune` and :func:`fold` do.
    TypeError
        For a model, a loss or minibatches of another kind.

    Warns
    -----
    UserWarning
        If the minibatches end before the steps do and can't be gone through again, or nothing was pruned, or
        next to nothing of a layer is left: with the figures that tell why.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from bmrs_torch import prune_trained
    >>> trained = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    >>> batches = [(torch.randn(16, 4), torch.zeros(16, dtype=torch.long)) for _ in range(4)]
    >>> result = prune_trained(
    ...     trained, batches, lambda net, batch: nn.functional.cross_entropy(net(batch[0]), batch[1]),
    ...     num_samples=64, steps=20, criterion="snr", amount=0.25,
    ... )
    >>> result.model[0]
    Linear(in_features=4, out_features=6, bias=True)
    """
    _check_arguments(model, batches, loss, steps, lr)
    check_rule(criterion, rule_options)
    total = _number_of_samples(batches) if num_samples is None else num_samples
    usual = default_kl_weight(total)
    weight = usual if kl_weight is None else kl_weight
    first, stream = _peek(batches, steps)
    if example_inputs is None:
        inputs = _inputs_of(model, first)
    else:
        inputs = example_inputs
        check_example(model, inputs)
    noisy = _with_noise(model, inputs)
    check_rule(criterion, rule_options, noisy, inputs)
    with _noise_alone_learns(noisy):
        losses = _learn(noisy, stream, loss, lr=lr, num_samples=total, kl_weight=weight)
    if len(losses) < steps:
        warnings.warn(
            f"the minibatches ended after {len(losses)} of {steps} steps and can't be gone through again; "
            "give a list or a DataLoader, not an iterator",
            stacklevel=2,
        )
    decision = prune(noisy, criterion, example_inputs=inputs, **rule_options)
    course = Course(noisy, len(losses), f"{len(losses)} steps", weight, usual, lr, misfit=losses[-1])
    if not decision.pruned_now:
        warnings.warn(explain_nothing(decision, course), stacklevel=2)
    elif layers := collapsed(decision):
        warnings.warn(explain_collapse(layers, decision, course), stacklevel=2)

    def step(network: nn.Module) -> Tensor:
        return loss(network, first)

    smaller = fold(compact(noisy, inputs, training_step=step), inputs, training_step=step)
    return PostTrainingResult(smaller, noisy, decision, len(losses), tuple(losses))


def _check_arguments(model: object, batches: object, loss: object, steps: int, lr: float) -> None:
    check_model(model)
    if not (hasattr(batches, "__iter__") or hasattr(batches, "__getitem__")):
        raise TypeError(
            f"batches must be minibatches to go through, such as a DataLoader, got {batches!r:.80}"
        )
    if not callable(loss) or isinstance(loss, nn.modules.loss._Loss):
        raise TypeError(
            "loss must be a function of a network and a minibatch, such as lambda model, batch: "
            f"cross_entropy(model(batch[0]), batch[1]), got {loss!r:.80}"
        )
    check_real("lr", lr)
    check_whole("steps", steps, "the number of steps")
    if steps < 1 or not (math.isfinite(lr) and lr > 0):
        raise ValueError(f"steps must be at least 1 and lr positive and finite, got {steps} and {lr}")


def _number_of_samples(batches: Iterable[Any]) -> int:
    dataset = getattr(batches, "dataset", None)
    try:
        return len(dataset)  # type: ignore[arg-type]
    except TypeError as error:
        raise ValueError(
            "num_samples, the size of the training set, must be given: batches is no DataLoader of a data "
            f"set with a length, but a {type(batches).__name__}"
        ) from error


def _with_noise(model: nn.Module, example_inputs: Any) -> nn.Module:
    noisy = copy.deepcopy(model)
    if not any(isinstance(module, MultiplicativeNoise) for module in noisy.modules()):
        return insert_noise(noisy, example_inputs)
    fold(compact(noisy, example_inputs), example_inputs)  # what can't be done is said before the steps
    return noisy


@contextlib.contextmanager
def _noise_alone_learns(noisy: nn.Module) -> Iterator[None]:
    """Run it as in evaluation but for its noise, the weights fixed; then all is in the mode it was in."""
    learning = [(parameter, parameter.requires_grad) for parameter in noisy.parameters()]
    try:
        with in_mode(noisy, training=False):
            noisy.requires_grad_(False)
            for layer in noise_layers(noisy).values():
                layer.train().requires_grad_(True)
            yield
    finally:
        for parameter, learns in learning:
            parameter.requires_grad_(learns)


def _peek(batches: Iterable[Any], steps: int) -> tuple[Any, Iterator[Any]]:
    """The first minibatch, and `steps` of them from the first on, going round again where they can."""
    once = iter(batches)
    first = next(once, _NOTHING)
    if first is _NOTHING:
        raise ValueError("batches holds no minibatch, so there is nothing to learn the noise from")

    def stream() -> Iterator[Any]:
        taken, current = 1, once
        yield first
        while taken < steps:
            batch = next(current, _NOTHING)
            if batch is _NOTHING:
                if current is batches:
                    return
                current = iter(batches)
                batch = next(current, _NOTHING)
                if batch is _NOTHING:
                    return
            taken += 1
            yield batch

    return first, stream()


_NOTHING = object()


def _learn(
    noisy: nn.Module,
    stream: Iterator[Any],
    loss: Callable[[nn.Module, Any], Tensor],
    *,
    lr: float,
    num_samples: int,
    kl_weight: float,
) -> list[float]:
    optimizer = torch.optim.Adam([p for p in noisy.parameters() if p.requires_grad], lr=lr)
    losses: list[float] = []
    with torch.enable_grad():
        for batch in stream:
            misfit = loss(noisy, batch)
            if not losses:
                _check_dependence(misfit, noisy)
            objective = elbo_loss(misfit, noisy, num_samples=num_samples, kl_weight=kl_weight)
            losses.append(misfit.item())
            if not math.isfinite(losses[-1]):
                raise ValueError(
                    f"the loss must be finite, got {losses[-1]} at step {len(losses)}; nothing was pruned"
                )
            optimizer.zero_grad()
            objective.backward()
            optimizer.step()
    return losses


def _check_dependence(misfit: Any, noisy: nn.Module) -> None:
    """Raise ValueError for a loss through which the noise can learn nothing."""
    if not isinstance(misfit, Tensor) or misfit.ndim:
        return  # refused by the objective
    noise = [layer.log_sigma for layer in noise_layers(noisy).values()]
    depends = misfit.requires_grad and any(
        gradient is not None
        for gradient in torch.autograd.grad(misfit, noise, retain_graph=True, allow_unused=True)
    )
    if not depends:
        raise ValueError(
            "the loss doesn't depend on the noise of the network that it is given, so that nothing could "
            "be learnt "
            "from it: call that network (the first argument of loss), with gradients, and detach nothing "
            "of what it answers"
        )


def _inputs_of(model: nn.Module, batch: Any) -> Any:
    inputs = batch[0] if isinstance(batch, (tuple, list)) and batch else batch
    try:
        check_example(model, inputs)
    except ValueError as error:
        raise ValueError(
            "the first minibatch doesn't say what the network takes (its first element, or the whole of "
            f"it, is tried): give example_inputs=. {error}"
        ) from error
    return inputs
