"""Learn the noise of a trained network and prune by it: the first part of :func:`prune_trained`."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from bmrs_torch.channels.calling import in_mode
from bmrs_torch.deciding.prune_report import PruneReport
from bmrs_torch.layer import noise_layers
from bmrs_torch.surgery.progress import Progress
from bmrs_torch.training.batches import Batches, stream
from bmrs_torch.training.effort import Effort
from bmrs_torch.training.parameter_groups import parameter_groups
from bmrs_torch.training.pruner import Pruner
from bmrs_torch.training.recovery import check_finite, one_cycle
from bmrs_torch.training.schedule import Schedule

__all__ = ["learn_and_prune", "pruning_dates"]

Loss = Callable[[nn.Module, Any], Tensor]

_BEFORE = 4
"""A quarter of the steps tell where the noise goes before anything does."""

_PRUNINGS = 30
"""Into so many the way down to a budget is divided, each by the evidence of the network as it then is."""


def pruning_dates(steps: int, *, gradually: bool) -> Schedule:
    """When to prune in so many steps: at the end, or from a quarter of them on in equal ratios."""
    if not gradually:
        return Schedule(every=steps, start=steps, finetune_from=steps, unit="step")
    start = max(1, steps // _BEFORE)
    return Schedule(every=max(1, (steps - start) // _PRUNINGS), start=start, finetune_from=steps, unit="step")


def learn_and_prune(
    noisy: nn.Module,
    batches: Batches,
    loss: Loss,
    *,
    effort: Effort,
    fixed_weights: bool,
    progress: Progress,
    **options: Any,
) -> tuple[Pruner, list[float], list[PruneReport]]:
    """Train a network with its noise for so many steps, and prune it meanwhile.

    Parameters
    ----------
    noisy : nn.Module
        With noise layers; it is trained and pruned in place.
    batches : collection
        Of minibatches; gone through as often as the steps need it.
    loss : callable
        From a network and a minibatch to the mean negative log-likelihood.
    effort : Effort
        How long, and how fast. The weights go through the first part of one cycle of learning rates.
    fixed_weights : bool
        Whether the noise alone learns, and the network otherwise runs as in evaluation.
    progress : Progress
        Told of each step.
    **options
        Of :class:`Pruner`.

    Returns
    -------
    pruner : Pruner
    misfits : list of float
        The loss without the divergence at each step.
    reports : list of PruneReport
        Of each pruning.
    """
    with _noise_alone_learns(noisy) if fixed_weights else in_mode(noisy, training=True):
        groups = parameter_groups(noisy, effort.lr, effort.noise_lr / effort.lr)
        optimizer = torch.optim.Adam([group for group in groups if group["params"]])
        pruner = Pruner(noisy, optimizer, **options)
        reports: list[PruneReport] = []
        misfits = list(_steps(pruner, optimizer, batches, loss, effort, progress, reports))
        for layer in noise_layers(noisy).values():
            layer.fix(False)
        return pruner, misfits, reports


def _steps(
    pruner: Pruner,
    optimizer: torch.optim.Optimizer,
    batches: Batches,
    loss: Loss,
    effort: Effort,
    progress: Progress,
    reports: list[PruneReport],
) -> Iterator[float]:
    cycle = LambdaLR(optimizer, [partial(_rate, group["name"], effort) for group in optimizer.param_groups])
    with torch.enable_grad():
        for step, batch in zip(range(1, effort.noise_steps + 1), stream(batches), strict=False):
            misfit = loss(pruner.model, batch)
            if step == 1:
                _check_dependence(misfit, pruner.model)
            objective = pruner.loss(misfit)
            value = misfit.item()
            check_finite(value, step, "of the noise; nothing was pruned")
            optimizer.zero_grad()
            objective.backward()
            optimizer.step()
            cycle.step()
            report = pruner.step()
            reports += [] if report is None else [report]
            progress.advance(1)
            yield value


def _rate(group: str, effort: Effort, step: int) -> float:
    """That of the weights goes up and down over all steps, that of the noise stays."""
    return one_cycle(step, effort.steps) if group == "weights" else 1.0


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
            "the loss doesn't depend on the noise of the network that it is given, so that nothing could be "
            "learnt from it: call that network (the first argument of loss), with gradients, and detach "
            "nothing of what it answers"
        )
