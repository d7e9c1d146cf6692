"""From a trained network to a smaller one that is as good: noise for a short while, then recovery."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from bmrs_torch.costs.counting import stored_tensors
from bmrs_torch.deciding.budget import Budget, as_budget
from bmrs_torch.deciding.prune import check_rule
from bmrs_torch.deciding.prune_report import PruneReport
from bmrs_torch.objective import default_kl_weight
from bmrs_torch.operation.arguments import check_switch
from bmrs_torch.surgery.compact import compact
from bmrs_torch.surgery.fold import fold
from bmrs_torch.surgery.progress import Progress
from bmrs_torch.training.batches import Batches
from bmrs_torch.training.decision import altogether, from_numbers, to_numbers
from bmrs_torch.training.distillation import Distillation
from bmrs_torch.training.effort import FASTEST_NOISE, Effort, usual_effort
from bmrs_torch.training.given import (
    check_arguments,
    check_numbers,
    inputs_of,
    number_of_samples,
    with_noise,
)
from bmrs_torch.training.noise_phase import learn_and_prune, pruning_dates
from bmrs_torch.training.range_test import range_test
from bmrs_torch.training.recovery import MakeOptimizer, Recovery, Validate, validated
from bmrs_torch.training.run_folder import RunFolder

__all__ = ["PostTrainingResult", "prune_trained"]

_NOTHING = object()

Loss = Callable[[nn.Module, Any], Tensor]


@dataclass(frozen=True)
class PostTrainingResult:
    """What :func:`prune_trained` made. Print it to read what happened.

    Attributes
    ----------
    model : nn.Module
        The smaller network, an ordinary one, trained again, and in the mode of the one given.
    masked : nn.Module
        The network with its noise and masks, of the original widths, as it was when it was made smaller.
    decision : PruneReport
        What was pruned in all, and by which scores.
    steps : int
        How many steps were taken with noise.
    losses : tuple of float
        The misfit, without the divergence, at each of them.
    history : tuple of dict
        Of each epoch of the recovery: "step", "epoch", "misfit" (a mean over the epoch, what the teacher says
        included), "lr", "seconds", and with `validate` the "score"; the first is of the network just cut.
    score_before, score : float or None
        With `validate`, how good the network given was, and how good `model` is.

    Examples
    --------
    See :func:`prune_trained`.
    """

    model: nn.Module
    masked: nn.Module
    decision: PruneReport
    steps: int
    losses: tuple[float, ...]
    history: tuple[dict[str, Any], ...] = ()
    score_before: float | None = None
    score: float | None = None

    def __str__(self) -> str:
        plain = sum(p.numel() for p in self.model.parameters())
        whole = sum(t.numel() for t in stored_tensors(self.masked).values() if isinstance(t, nn.Parameter))
        decided = str(self.decision).partition("\n")[0]
        structures = sum(layer.kept.size for layer in self.decision.layers)
        told = [
            f"{plain:,} of {whole:,} parameters left ({plain / whole:.1%})",
            f"{self.decision.num_kept:,} of {structures:,} structures left",
            f"decided in {self.steps} steps with noise: {decided}",
        ]
        trained = [record for record in self.history if record["step"]]
        if trained:
            told.append(
                f"recovered in {trained[-1]['step']} steps: misfit {trained[0]['misfit']:.4g} in the first "
                f"epoch, {trained[-1]['misfit']:.4g} in the last"
            )
        if self.score is not None and self.score_before is not None:
            cut = f", {self.history[0]['score']:.5g} when cut" if self.history else ""
            told.append(f"validated: {self.score_before:.5g} before{cut}, {self.score:.5g} now")
        return "\n".join(told)


def prune_trained(
    model: nn.Module,
    batches: Batches,
    loss: Loss,
    *,
    budget: Budget | Mapping[str, Any] | None = None,
    epochs: float | None = None,
    num_samples: int | None = None,
    steps: int | None = None,
    lr: float | None = None,
    noise_lr: float | None = None,
    kl_weight: float | None = None,
    fixed_weights: bool = False,
    teacher: bool | nn.Module | Distillation = False,
    validate: Validate | None = None,
    patience: int | None = None,
    optimizer: MakeOptimizer | None = None,
    folder: str | os.PathLike[str] | None = None,
    example_inputs: Any = None,
    criterion: str = "bmrs_n",
    **rule_options: Any,
) -> PostTrainingResult:
    """Make a trained network smaller and train it until it is good again, in one call.

    First noise and weights learn together for a short while, and what the evidence is against, or what loses
    least evidence for what it saves until a budget is met, is pruned: on the way to a budget little by
    little, so that the evidence is always that of the network as it then is. Then the network is made
    smaller, the noise is folded into its weights, and it is trained plainly for the greater part of the time.

    Nothing has to be set. The learning rate is found by trying what the network bears, on a copy; the number
    of steps and epochs goes by the number of samples: see `lr`, `epochs` and `steps`.

    Parameters
    ----------
    model : nn.Module
        A trained network, without noise, or with noise layers where they are wanted; it is left untouched.
    batches : collection
        Of minibatches, such as a DataLoader, with a length; gone through once an epoch.
    loss : callable
        From a network and a minibatch to the mean negative log-likelihood, for instance
        ``lambda model, batch: cross_entropy(model(batch[0]), batch[1])``. With the first minibatch it is also
        called on copies of the network in training mode, to see that surgery leaves training as it was.
    budget : Budget or mapping, optional
        What the smaller network may cost, ``Budget(macs=0.5)`` or ``{"macs": 0.5}``. By default the evidence
        decides how much goes.
    epochs : float, optional
        In all, those with noise included. By default 6, or as many as make 2,500 steps: on a small set
        recovery is a matter of steps. 0: nothing is recovered.
    num_samples : int, optional
        Size of the whole training set. By default the length of ``batches.dataset``.
    steps : int, optional
        How many of all steps are with noise. By default those of one epoch, but at least 200, at most 1,000,
        within which the noise has said what it has to say, and at most a quarter of all, because what
        recovers the network is worth more than what decides about it.
    lr : float, optional
        The highest learning rate of the weights: in one cycle over all steps it rises to that within a tenth
        of them, and then falls to 0. By default the one at which the loss of the network given has grown by
        0.1 nats when it is raised from 1e-6 in up to 100 steps (Smith, 2017), from 1e-5 to 0.01.
    noise_lr : float, optional
        Of the noise; by default five times `lr`, and without a budget at least 25 / steps, without which
        log σ couldn't go as far as the rule wants to see. The default is at most 0.05, beyond which a few
        steps decide, before the data have said anything.
    kl_weight : float, optional
        *The* dial between accuracy and compression without a budget; by default :func:`default_kl_weight`.
        With a budget it matters little.
    fixed_weights : bool
        With noise the weights stay as they are, and so do dropout and the statistics of BatchNorm: the
        network runs as in evaluation, but for the noise, which alone learns.
    teacher : bool, nn.Module or Distillation
        What the network learns from beside the loss: True for the network given as it was, which takes the
        time of its forward pass; see :class:`Distillation`.
    validate : callable, optional
        How good a network is, the larger the better, such as its accuracy on a validation set; it gets it in
        evaluation mode, without gradients, before, after the cut and after each epoch of the recovery. The
        best epoch is what is returned. Never the test set: it chooses.
    patience : int, optional
        With `validate`: after so many epochs that were no better it ends.
    optimizer : callable, optional
        From the parameters of the smaller network to what trains it, ``lambda p: SGD(p, 0.1, momentum=0.9)``;
        its learning rates are the highest; with noise it is Adam at `lr` in any case. By default AdamW
        without decay, by which `lr` is found, too.
    folder : str or path-like, optional
        Where it keeps how far it is, after the noise and after each epoch: called again with the same
        arguments it goes on there, to the bit where the minibatches come from torch's, NumPy's or Python's
        generator, and in the end returns at once.
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
    BudgetError
        If the budget is out of reach.
    ValueError
        If there is no minibatch, the number of samples can't be told, or a number is out of range; if the
        loss doesn't depend on the noise or is or becomes not finite; before any step, if the network can't
        take the example; if `folder` holds a run with other settings; and as :func:`insert_noise`,
        :func:`prune` and :func:`fold` do.
    TypeError
        For a model, a loss or minibatches of another kind.

    Warns
    -----
    UserWarning
        If nothing was pruned, or next to nothing of a layer is left: with the figures that tell why.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from bmrs_torch import Budget, prune_trained
    >>> trained = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    >>> batches = [(torch.randn(16, 4), torch.zeros(16, dtype=torch.long)) for _ in range(4)]
    >>> result = prune_trained(
    ...     trained, batches, lambda net, batch: nn.functional.cross_entropy(net(batch[0]), batch[1]),
    ...     num_samples=64, epochs=10, budget=Budget(parameters=0.75),
    ... )
    >>> result.model[0]
    Linear(in_features=4, out_features=5, bias=True)
    """
    check_arguments(model, batches, loss, teacher, optimizer, validate=validate, patience=patience)
    check_numbers(steps, epochs, lr, noise_lr)
    check_switch("fixed_weights", fixed_weights)
    rule = {**rule_options, "budget": budget}
    check_rule(criterion, rule)
    total = number_of_samples(batches) if num_samples is None else num_samples
    weight = default_kl_weight(total) if kl_weight is None else kl_weight
    first = next(iter(batches), _NOTHING)
    if first is _NOTHING:
        raise ValueError("batches holds no minibatch, so there is nothing to learn the noise from")
    inputs = inputs_of(model, first, example_inputs)
    noisy = with_noise(model, inputs)
    check_rule(criterion, rule, noisy, inputs)
    settings = {
        "epochs": epochs,
        "steps": steps,
        "minibatches": len(batches),
        "lr": lr,
        "noise_lr": noise_lr,
        "num_samples": total,
        "kl_weight": weight,
        "budget": None if budget is None else str(as_budget(budget)),
        "fixed_weights": fixed_weights,
        "teacher": teacher if isinstance(teacher, bool) else type(teacher).__name__,
        "patience": patience,
        "criterion": criterion,
        **{name: repr(value) for name, value in rule_options.items()},
    }
    taught = _taught(loss, model, teacher)
    kept = None if folder is None else RunFolder(folder, settings)
    state = None if kept is None else kept.load()
    if lr is None and fixed_weights and epochs == 0:
        lr = FASTEST_NOISE  # no weight learns
    elif lr is None:
        lr = range_test(model, batches, loss) if state is None else state["lr"]
    effort = usual_effort(
        len(batches), lr=lr, epochs=epochs, noise_steps=steps, noise_lr=noise_lr, to_budget=budget is not None
    )
    run = _Run(noisy, batches, taught, effort, inputs, lambda network: loss(network, first), kept, state)
    before = None if validate is None else validated(model, validate)
    run.decide(
        budget=budget,
        fixed_weights=fixed_weights,
        num_samples=total,
        kl_weight=weight,
        criterion=criterion,
        **rule_options,
    )
    make = _adam(effort.lr) if optimizer is None else optimizer
    recovery = Recovery(
        run.smaller,
        batches,
        taught,
        effort.steps - effort.noise_steps,
        make(run.smaller.parameters()),
        validate,
        patience,
        before=0 if fixed_weights else effort.noise_steps,
    )
    return run.recover(recovery, before)


class _Run:
    """The two parts, and what is kept of them in a folder."""

    def __init__(
        self,
        noisy: nn.Module,
        batches: Batches,
        loss: Loss,
        effort: Effort,
        inputs: Any,
        training_step: Callable[[nn.Module], Tensor],
        folder: RunFolder | None,
        state: Mapping[str, Any] | None,
    ) -> None:
        self._noisy, self._batches, self._loss = noisy, batches, loss
        self._effort, self._inputs, self._step, self._folder = effort, inputs, training_step, folder
        self._kept = state

    def decide(self, *, budget: Any, **options: Any) -> None:
        """Learn the noise, prune and cut, or take up what was decided."""
        if self._kept is not None:
            self._noisy.load_state_dict(self._kept["noisy"])
            self._losses = self._kept["losses"]
            self._decision = from_numbers(self._kept["decision"], budget)
            self._smaller = fold(
                compact(self._noisy, self._inputs, **self._surgery), self._inputs, **self._surgery
            )
            return
        number = self._effort.noise_steps
        with Progress(number, "noise") as progress:
            pruner, self._losses, reports = learn_and_prune(
                self._noisy,
                self._batches,
                self._loss,
                effort=self._effort,
                progress=progress,
                budget=budget,
                schedule=pruning_dates(number, gradually=budget is not None),
                example_inputs=self._inputs,
                **self._surgery,
                **options,
            )
        self._decision = altogether(reports)
        self._smaller = pruner.finish()

    @property
    def _surgery(self) -> dict[str, Any]:
        return {"training_step": self._step}

    def recover(self, recovery: Recovery, score_before: float | None) -> PostTrainingResult:
        """Train what is left, or go on with that."""
        if self._kept is not None:
            recovery.load_state_dict(self._kept["recovery"])
        else:
            recovery.begin()
            self._keep(recovery)
        modes = [(module, module.training) for module in recovery.model.modules()]
        with Progress(recovery.total, "recovery") as progress:
            progress.advance(recovery.steps)
            while not recovery.is_done:
                recovery.epoch(progress)
                self._keep(recovery)
        for module, training in modes:
            module.training = training
        score = recovery.finish()
        return PostTrainingResult(
            recovery.model,
            self._noisy,
            self._decision,
            len(self._losses),
            tuple(self._losses),
            tuple(recovery.history),
            score_before,
            score,
        )

    @property
    def smaller(self) -> nn.Module:
        """What is left, an ordinary network."""
        return self._smaller

    def _keep(self, recovery: Recovery) -> None:
        if self._folder is not None:
            self._folder.save(
                {
                    "lr": self._effort.lr,
                    "noisy": self._noisy.state_dict(),
                    "losses": list(self._losses),
                    "decision": to_numbers(self._decision),
                    "recovery": recovery.state_dict(),
                }
            )


def _adam(lr: float) -> MakeOptimizer:
    def make(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.AdamW(parameters, lr=lr, weight_decay=0.0)

    return make


def _taught(loss: Loss, model: nn.Module, teacher: bool | nn.Module | Distillation) -> Loss:
    if isinstance(teacher, Distillation):
        return teacher.of(loss)
    if isinstance(teacher, nn.Module):
        return Distillation(teacher).of(loss)
    return Distillation(model).of(loss) if teacher else loss
