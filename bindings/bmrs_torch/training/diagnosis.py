"""Why nothing was pruned, or next to everything: the figures that tell, and the advice that fits them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from bmrs_torch.deciding.noise_alone import noise_alone
from bmrs_torch.deciding.prune import LayerPruning, PruneReport
from bmrs_torch.distributed.ranks import Ranks
from bmrs_torch.layer import INITIAL_LOG_SIGMA, INITIAL_MU, noise_layers

__all__ = ["Course", "Seen", "collapsed", "explain_collapse", "explain_nothing", "noise_rate"]

LOG_SIGMA_TO_GO = 7.5
"""log σ begins at −5, and ΔF_N comes within ½·log 2π of 0 where it is about 2.5, whatever μ is."""

RUSH = 20
"""Steps in which the noise shouldn't be able to go all that way: before the data have said anything."""


@dataclass(frozen=True)
class Course:
    """How a training with noise went.

    Attributes
    ----------
    model : nn.Module
        With its noise layers as they are now.
    steps : int
        How many minibatches it has learnt from.
    told : str
        That in words.
    kl_weight, usual_kl_weight : float
        Of the divergence, and what it would be by default.
    noise_lr : float or None
        Learning rate of the noise, if known.
    penalty, misfit : float or None
        What the divergence adds to the loss now, and the last loss without it, if known.
    detached : bool
        Whether that loss had no gradient.
    """

    model: nn.Module
    steps: int
    told: str
    kl_weight: float
    usual_kl_weight: float
    noise_lr: float | None = None
    penalty: float | None = None
    misfit: float | None = None
    detached: bool = False

    def moved(self) -> tuple[float, float]:
        """How far log σ and μ of kept structures lie from where noise begins, at most."""
        far = [0.0], [0.0]
        for layer in noise_layers(noise_alone(self.model)).values():
            kept = layer.kept()
            for distances, values, start in zip(
                far, (layer.log_sigma, layer.mu), (INITIAL_LOG_SIGMA, INITIAL_MU), strict=True
            ):
                if bool(kept.any()):
                    distances.append(float((values.detach()[kept] - start).abs().max()))
        return max(far[0]), max(far[1])

    def way(self) -> str:
        """How far the noise has come, in words."""
        log_sigma, mu = self.moved()
        return (
            f"the noise went at most {log_sigma:.2g} from its beginning at log σ = {INITIAL_LOG_SIGMA:g} and "
            f"{mu:.2g} from μ = {INITIAL_MU:g}"
        )

    def weights(self) -> str:
        """The weight of the divergence, and what that comes to, in words."""
        told = f"kl_weight={self.kl_weight:g}"
        if self.noise_lr is not None:
            told += f" and lr={self.noise_lr:g} of the noise"
        if self.penalty is not None and self.misfit is not None:
            told += f", by which the divergence adds {self.penalty:.3g} to a misfit of {self.misfit:.3g}"
        return told


@dataclass
class Seen:
    """What a pruner has seen of a training, for its history and the figures in its warnings."""

    minibatches: int = 0
    misfit: Tensor | None = None
    detached: bool = False
    collapsed: set[str] = field(default_factory=set)
    misfits: tuple[Tensor, int] | None = None
    """Sum and number of those of the epoch, where they were computed: a step waits for no device."""

    def note(self, misfit: Tensor | None) -> None:
        """Count a minibatch, with its loss if that is known; not in a compiled graph: it would be a guard."""
        if torch.is_grad_enabled() and not torch.compiler.is_compiling():
            self.minibatches += 1
            self.misfit = None if misfit is None else misfit.detach()
            self.detached = misfit is not None and not misfit.requires_grad

    def add(self, misfit: Tensor) -> None:
        """Take a minibatch's misfit into the mean of the epoch's."""
        if not torch.is_grad_enabled() or torch.compiler.is_compiling():
            return
        if self.misfits is None:
            wide = torch.promote_types(misfit.dtype, torch.float32)  # a sum of many in half precision stalls
            self.misfits = misfit.detach().to(wide), 1
        else:
            self.misfits = self.misfits[0] + misfit.detach(), self.misfits[1] + 1

    def mean_misfit(self, ranks: Ranks) -> float | None:
        """Mean of the epoch's misfits so far, of all ranks, if any is known."""
        own = [0.0, 0.0] if self.misfits is None else [self.misfits[0].item(), float(self.misfits[1])]
        total, number = (sum(each) for each in zip(*ranks.of_all(own), strict=True))
        return total / number if number else None


def noise_rate(optimizer: torch.optim.Optimizer | None, model: nn.Module) -> float | None:
    """The learning rate of a model's noise, the largest if there are several; None if it isn't trained."""
    if optimizer is None:
        return None
    noise = {layer.log_sigma for layer in noise_layers(model).values()}
    rates = [float(group["lr"]) for group in optimizer.param_groups if noise & set(group["params"])]
    return max(rates, default=None)


def collapsed(report: PruneReport) -> list[LayerPruning]:
    """Layers of which a rule leaves next to nothing: all but what a layer must keep, or three in fifty.

    An amount that the user asked for is no collapse.
    """
    if report.limit is None:
        return []
    return [layer for layer in report.layers if layer.spared is not None or layer.num_kept <= _few(layer)]


def _few(layer: LayerPruning) -> int:
    return min(3, layer.kept.size // 16)


def explain_collapse(layers: Iterable[LayerPruning], report: PruneReport, course: Course) -> str:
    """Say which layers have collapsed, with figures, and what to do about it."""
    evidence = report.criterion.is_evidence
    told = []
    for layer in layers:
        left = layer.scores[layer.kept]
        worst = left.max() if evidence else left.min()
        told.append(
            f"{layer.name!r} has {layer.num_kept} of {layer.kept.size} structures left, "
            f"{report.criterion.symbol} = {worst:.4g}"
        )
    return (
        f"next to nothing is left: {'; '.join(told)}; the rule is to {report.rule}. In {course.told} "
        f"with kl_weight={course.kl_weight:g} {course.way()}. {_against_collapse(course, report)}"
    )


def _against_collapse(course: Course, report: PruneReport) -> str:
    if course.detached:
        return "The loss has no gradient, so that the divergence alone was learnt from: detach nothing of it"
    if report.criterion.source != "noise":
        return "Take a smaller threshold, or an amount"
    if course.kl_weight > course.usual_kl_weight:
        times = course.kl_weight / course.usual_kl_weight
        return (
            f"kl_weight is {times:.3g} times the default for this number of samples, "
            f"{course.usual_kl_weight:g}: take a smaller one"
        )
    if course.noise_lr is not None and course.noise_lr * RUSH > LOG_SIGMA_TO_GO:
        return (
            f"The noise learns with lr={course.noise_lr:g}, so fast that it can decide within {RUSH} "
            "steps: take a smaller learning rate for it (noise_lr_multiplier of parameter_groups)"
        )
    return (
        "If the network answers worse than before, prune later (Schedule(start=...)), let the divergence "
        "come in slowly (kl_warmup), or take a smaller kl_weight"
    )


def explain_nothing(report: PruneReport | None, course: Course, due: str = "") -> str:
    """Say why nothing was pruned, with figures, and what to do about it.

    Parameters
    ----------
    report : PruneReport or None
        The last decision; None if there was none.
    course : Course
        How the training went.
    due : str
        When there would have been a decision.
    """
    said = (
        f"nothing was pruned in {course.told} with {course.weights()}, so the network is as large as it was"
    )
    if report is None:
        return f"{said}: it was never due. {due}"
    if report.spending is not None:
        return f"{said}: {report.spending}"
    if report.nearest is None:
        return f"{said}: the rule is to {report.rule}, which rounds to no structure more"
    layer, score = report.nearest
    said += f". The {report.criterion.symbol} nearest to the rule is {score:.4g}, in {layer!r}; {report.rule}"
    if report.criterion.source != "noise":
        return f"{said}. It takes another threshold, or an amount"
    return f"{said}. In that time {course.way()}. {_against_nothing(course)}"


def _against_nothing(course: Course) -> str:
    layers = noise_layers(course.model).values()
    if not any(layer.log_sigma.requires_grad or layer.fixed for layer in layers):
        return "The noise doesn't learn: none of its parameters requires a gradient"
    moved, _ = course.moved()
    reach = None if course.noise_lr is None else course.noise_lr * course.steps
    if reach is not None and reach < LOG_SIGMA_TO_GO:
        return (
            f"Adam moves log σ by at most its learning rate a step: {course.steps} steps at "
            f"lr={course.noise_lr:g} "
            f"lead {reach:.2g} of the way of about {LOG_SIGMA_TO_GO:g} that it takes. More steps, or a "
            "larger learning rate for the noise (parameter_groups), come before a larger kl_weight"
        )
    if reach is None and moved < 1:
        return (
            f"It takes about {LOG_SIGMA_TO_GO:g} in log σ: train longer, or with a larger learning rate "
            "for the noise (parameter_groups), before you try a larger kl_weight"
        )
    return (
        f"It had time enough for the way of about {LOG_SIGMA_TO_GO:g} in log σ, and the data held it: a "
        "larger "
        f"kl_weight prunes more (the default for this number of samples is {course.usual_kl_weight:g})"
    )
