"""Algorithm 1 for a training loop of one's own: what to add to the loss, when to prune, what to save."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from bmrs_torch.channels.calling import TrainingStep
from bmrs_torch.deciding.budget import Budget, as_budget
from bmrs_torch.deciding.criteria import find_criterion
from bmrs_torch.deciding.prune import PruneReport, check_rule, prune
from bmrs_torch.distributed.sharding import put_back
from bmrs_torch.layer import noise_layers
from bmrs_torch.objective import KlScale, default_kl_weight, elbo_loss
from bmrs_torch.operation.arguments import check_model
from bmrs_torch.shipping.layout import Layout, check_fit, resize
from bmrs_torch.surgery.compact import compact
from bmrs_torch.surgery.optimizer_state import check_optimizer
from bmrs_torch.surgery.plan_compaction import plan_compaction
from bmrs_torch.surgery.replacement import become, hand_over
from bmrs_torch.surgery.unreached import Unreached, check_unreached
from bmrs_torch.training.approach import Approach
from bmrs_torch.training.averages import Averages, unsaved_buffers
from bmrs_torch.training.checks import (
    check_counts,
    check_example,
    check_log,
    check_options,
    check_state,
    refuse_early_state,
    say_if_noise_is_not_trained,
)
from bmrs_torch.training.diagnosis import (
    Course,
    Seen,
    collapsed,
    explain_collapse,
    explain_nothing,
    noise_rate,
)
from bmrs_torch.training.history import Entry, Observer, When, scalars_of
from bmrs_torch.training.on_ranks import OnRanks
from bmrs_torch.training.schedule import Schedule
from bmrs_torch.training.telling import where_it_stands
from bmrs_torch.wrapping import unwrapped, whole

Phase = Literal["pruning", "finetuning"]


class Pruner:
    """Prunes a model on schedule while it trains; the training loop stays the user's own.

    Call :meth:`loss` on the misfit of each minibatch and :meth:`end_epoch` after each epoch; in the end
    :meth:`finish` gives the smaller, plain network. A schedule in steps, ``Schedule(unit="step")``, needs
    :meth:`step` after each ``optimizer.step()`` too: without it nothing is ever due. One in epochs doesn't;
    there it does no more than count `steps`.

    Parameters
    ----------
    model : nn.Module
        A model with noise layers (:func:`insert_noise`). It stays the same object throughout. Where several
        processes train it, give it as it is wrapped, by DistributedDataParallel, on all of them: see Notes.
    optimizer : torch.optim.Optimizer, optional
        What trains it, :func:`parameter_groups` say with which rates. Needed with `shrink`.
    num_samples : int
        Size N of the training set.
    schedule : Schedule
        When to prune, by default after every epoch: see :class:`Schedule`.
    criterion : str
        See :func:`prune`, which also takes what is given as `rule_options`: tolerance, amount, …
    budget : Budget or mapping, optional
        Instead of a rule: what the network may cost in the end, a fraction of what `model` costs when the
        pruner is made, also after it has shrunk. Where the schedule says when fine-tuning begins, each
        pruning until then takes the costs down by an equal ratio, and the last meets it; else the first does.
    kl_weight : float, optional
        *The* dial between accuracy and compression; by default :func:`default_kl_weight`.
    kl_scale : {"elbo", "published"}
        See :func:`elbo_loss`. ``"published"`` counts the structures that `model` has when the pruner is made,
        also after the model has shrunk: shrinking changes the speed of the training, not what it presses for.
    layer_weights : mapping of str to float, optional
        See :func:`elbo_loss`: those of :func:`cost_weights` press more what costs more.
    shrink : bool
        Make the model smaller each time something was pruned, so that the rest of the training is faster. The
        state of the optimizer shrinks with it.
    example_inputs : Tensor, tuple, list or dict, optional
        A minibatch to trace the model with; needed with `shrink`, `coupling` and `budget`.
    others : sequence of nn.Module
        Averages of the model's weights, such as ``torch.optim.swa_utils.AveragedModel(model)``, or other
        copies of it. What is pruned in the model is masked in them, they shrink with it, and :meth:`finish`
        makes them small and plain in place. What updates them stays the user's.
    wrapper : nn.Module, optional
        What runs the model on several processes, where `model` is but a part of what that wraps, as in
        frameworks. By default `model` itself.
    training_step, unreached
        As of :func:`compact` and :func:`fold`: what training computes, where that needs more than
        `example_inputs`, so that surgery follows it too; and what to do about parameters that the example
        never reaches.
    log : callable, optional
        Called with :meth:`scalars` and a number of steps (of epochs, where no steps are counted) each time
        that the history grows. For W&B it is ``lambda values, step: wandb.log(values, step=step)``, for
        TensorBoard ``lambda values, step: [writer.add_scalar(k, v, step) for k, v in values.items()]``.
    **rule_options
        Further options of :func:`prune`.

    Attributes
    ----------
    model : nn.Module
        The model, without what wraps it.
    steps, epochs : int
        How many are done.
    kl_weight : float
        Weight of the divergence, without the warm-up.
    budget : Budget or None
        What the network may cost in the end.
    num_structures : dict of str to int
        Structures of each noise layer at the beginning.
    history : list of dict
        One entry for every epoch and, where the schedule counts steps, one for every time that it pruned; of
        plain numbers, which JSON takes, and None where there is nothing to tell:

        - "when": what the entry is of, "epoch" or "step"; "epoch", "step": how many were done;
        - "phase": the one that the epoch was in;
        - "due": whether it was time to prune; "pruned": how many structures went; "kept": how many are left,
          by layer; "num_kept": in all;
        - "costs": when a budget decided, the fractions that are left of those that it limits;
        - "kl": divergence of all that is kept, in nats; "kl_weight": its weight at last, warm-up included;
          "misfit": mean of what :meth:`loss` was given in the epoch;
        - "delta_f": 5, 25, 50, 75 and 95 % quantiles of ΔF over what is kept, in nats, as "q05" to "q95"; for
          ``"snr"`` and ``"mean"`` theirs, under their name;
        - "nearest": how far the nearest structure is from the rule, in nats for ΔF, at or below 0 if it would
          go now; "near": how many are "within_1" nat and "within_10". The best of each layer, which stays in
          any case, isn't counted;
        - "next": the first five that would go, each with its "layer", "structure" and "score";
        - "moved": mean and largest change of μ and log σ of what is kept, since the entry before.

        Criteria of weights, of gradients or of chance are judged only when they are due: those entries hold
        nothing about scores.
    last_report : PruneReport or None
        What the last pruning in this process did, scores included.

    Raises
    ------
    ValueError, TypeError
        For options that :func:`prune`, :func:`elbo_loss` or the schedule don't take, or that lack another; an
        optimizer of another model, others of another structure, an example that the model can't take.
    BudgetError
        A ValueError: if the budget is out of reach, whatever the evidence.
    RanksDisagreeError
        A ValueError, on all ranks: if they aren't given the same, or when it is time to prune and their noise
        has come apart. It names what differs, and on which ranks.

    Warns
    -----
    UserWarning
        If the optimizer doesn't train the noise, as one made before it was inserted: `parameter_groups` make
        one that does. Noise whose parameters require no gradient is meant to stay as it is.

    Notes
    -----
    Of a model in DistributedDataParallel each rank makes a pruner and calls the same methods at the same
    times; making it, a pruning, :meth:`end_epoch` and :meth:`finish` wait for all ranks. Every rank adds the
    divergence to its own loss, and averaging the gradients leaves it counted once. Rank 0 decides what to
    prune, after it was checked that all ranks have the same noise, and tells the others. When parameters
    shrink or the noise ceases to learn the wrapper is made anew in place, by its own arguments, with the
    weights of rank 0. :meth:`finish` gives the same network, that of rank 0, on every rank. The misfit in the
    history is the mean over all ranks; `log` is called on rank 0 alone.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from bmrs_torch import Pruner, insert_noise, parameter_groups
    >>> x, y = torch.ones(8, 4), torch.zeros(8, dtype=torch.long)
    >>> model = insert_noise(nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)), x)
    >>> optimizer = torch.optim.Adam(parameter_groups(model, lr=0.01))
    >>> pruner = Pruner(model, optimizer, num_samples=8, criterion="l2", amount=0.34)
    >>> for epoch in range(2):
    ...     optimizer.zero_grad()
    ...     pruner.loss(nn.functional.cross_entropy(model(x), y)).backward()
    ...     optimizer.step()
    ...     report = pruner.end_epoch()
    >>> pruner.finish(x)[0]
    Linear(in_features=4, out_features=2, bias=True)
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer | None = None,
        *,
        num_samples: int,
        schedule: Schedule | None = None,
        criterion: str = "bmrs_n",
        budget: Budget | Mapping[str, Any] | None = None,
        kl_weight: float | None = None,
        kl_scale: KlScale = "elbo",
        layer_weights: Mapping[str, float] | None = None,
        shrink: bool = False,
        example_inputs: Any = None,
        others: Sequence[nn.Module] = (),
        wrapper: nn.Module | None = None,
        training_step: TrainingStep | None = None,
        unreached: Unreached = "error",
        log: Callable[[dict[str, float], int], object] | None = None,
        **rule_options: Any,
    ) -> None:
        check_model(model)
        self._on_ranks = OnRanks(unwrapped(model), model if wrapper is None else wrapper)
        model = unwrapped(model)
        self._on_ranks.refuse_what_is_divided(shrink=shrink, others=others)
        self._on_ranks.check_begin(
            {
                "num_samples": num_samples,
                "schedule": str(schedule),
                "criterion": criterion,
                "options of the rule": str({**rule_options, "budget": budget}),
                "kl_weight": str((kl_weight, kl_scale, layer_weights)),
                "shrink": shrink,
                "noise layers": {name: layer.num_structures for name, layer in noise_layers(model).items()},
            },
            example_inputs,
            changes=shrink or getattr(schedule, "finetune_from", None) is not None,
        )
        check_options(model, optimizer, schedule, shrink=shrink, example_inputs=example_inputs)
        check_log(log)
        layers = noise_layers(model)
        check_rule(criterion, {**rule_options, "budget": budget}, model, example_inputs)
        elbo_loss(
            torch.zeros(()),
            model,
            num_samples=num_samples,
            kl_scale=kl_scale,
            kl_weight=kl_weight,
            layer_weights=layer_weights,
        )  # raises what is wrong with them now, not after the first minibatch
        self._averages = Averages(model, others)
        if example_inputs is not None:
            check_example(model, example_inputs)
            put_back(model)
        if optimizer is not None:
            say_if_noise_is_not_trained(model, optimizer)
        self.model, self.optimizer = model, optimizer
        self.num_samples, self.kl_scale = num_samples, kl_scale
        self.layer_weights = None if layer_weights is None else dict(layer_weights)
        self.kl_weight = default_kl_weight(num_samples, kl_scale) if kl_weight is None else kl_weight
        self.num_structures = {name: layer.num_structures for name, layer in layers.items()}
        self.schedule = Schedule() if schedule is None else schedule
        self.criterion, self.rule_options = criterion, rule_options
        self.shrink, self.example_inputs = shrink, example_inputs
        self.steps = self.epochs = 0
        self.history: list[Entry] = []
        self.log = log
        self.last_report: PruneReport | None = None
        check_unreached(unreached)
        self._surgery: dict[str, Any] = {"training_step": training_step, "unreached": unreached}
        self._seen = Seen()
        self._rule = {**rule_options, "budget": budget}
        self._observer = Observer(model, criterion, self._rule, example_inputs)
        self.budget = None if budget is None else as_budget(budget)
        self._approach: Approach | None = None
        if self.budget is not None:
            self._approach = Approach(model, self.budget, example_inputs, self.schedule, training_step)

    @property
    def done(self) -> int:
        """Epochs or steps done, whichever the schedule counts."""
        return self.epochs if self.schedule.unit == "epoch" else self.steps

    @property
    def phase(self) -> Phase:
        """Whether it still prunes, or the noise is fixed and the weights alone learn."""
        return "finetuning" if self.schedule.finetunes(self.done) else "pruning"

    def loss(self, nll_mean: Tensor) -> Tensor:
        """The loss of a minibatch: its mean negative log-likelihood plus the weighted divergence as of now.

        Parameters
        ----------
        nll_mean : Tensor, scalar
            For instance the cross-entropy.

        Returns
        -------
        Tensor, scalar
            `nll_mean` itself when fine-tuning.
        """
        if self.phase == "finetuning":
            self._seen.add(nll_mean)
            return nll_mean
        loss = self._objective(nll_mean)
        self._seen.note(nll_mean)
        self._seen.add(nll_mean)
        return loss

    def penalty(self) -> Tensor | None:
        """What :meth:`loss` adds, for loops whose loss is made elsewhere; None when fine-tuning."""
        if self.phase == "finetuning":
            return None
        self._seen.note(None)
        return self._objective(torch.zeros((), device=next(self.model.parameters()).device))

    def step(self) -> PruneReport | None:
        """Count a step of the optimizer, and prune if it is due.

        Call it after each ``optimizer.step()`` if the schedule counts steps. Where it counts epochs, the call
        may be left out; `steps` and the history then count none.

        Returns
        -------
        PruneReport or None
            What was pruned, if it was due.

        Raises
        ------
        ValueError
            With `shrink`, before anything is pruned, if the optimizer can't go on with fewer parameters.

        Warns
        -----
        UserWarning
            If next to nothing of a layer is left, with the figures that tell why.
        """
        self.steps += 1
        report = self._prune_if_due("step")
        if report is not None:
            self._take_down("step", report)
        return report

    def end_epoch(self) -> PruneReport | None:
        """Count an epoch, prune if it is due, and take down where it stands: see `history`.

        Returns
        -------
        PruneReport or None
            What was pruned, if it was due.

        Warns
        -----
        UserWarning
            If the schedule counts steps and :meth:`step` was never called; as for :meth:`step`.
        """
        self.epochs += 1
        if self._waits_for_steps():
            warnings.warn(_NO_STEP, stacklevel=2)
        report = self._prune_if_due("epoch")
        self._take_down("epoch", report)
        return report

    def scalars(self) -> dict[str, float]:
        """The last entry of the history as loggers take it, flat and of plain floats.

        Returns
        -------
        dict of str to float
            ``"bmrs/kl"``, ``"bmrs/delta_f/q50"``, ``"bmrs/kept"`` (in all), ``"bmrs/moved/mu_max"`` and so
            on; what isn't known is left out. Empty before the first epoch.
        """
        return scalars_of(self.history[-1]) if self.history else {}

    def finish(self, example_inputs: Any = None) -> nn.Module:
        """Return the smaller network, with the noise folded into its weights; `model` is left as it is.

        Parameters
        ----------
        example_inputs : Tensor, tuple, list or dict, optional
            A minibatch to trace the model with, if none was given before.

        Returns
        -------
        nn.Module
            A plain network; train it further with an optimizer of its own. The models given as `others` are
            as small and plain then, in place, and stand to it as they stood to `model`.

        Warns
        -----
        UserWarning
            If nothing was pruned, so that it isn't smaller, with the figures that tell why, or the schedule
            counts steps and :meth:`step` was never called.
        """
        inputs = self.example_inputs if example_inputs is None else example_inputs
        if inputs is None:
            raise ValueError("example_inputs are needed to trace the model with; a minibatch will do")
        if self._waits_for_steps():
            warnings.warn(_NO_STEP, stacklevel=2)
        elif not self._has_pruned():
            due = f"It is by {self.schedule}, after {self.epochs} epochs and {self.steps} counted steps"
            warnings.warn(explain_nothing(self.last_report, self._course(), due), stacklevel=2)
        self._on_ranks.check_example(inputs)
        finished = self._averages.finish(whole(self.model), inputs, **self._surgery)
        return self._on_ranks.made_alike(finished, self._averages.parts)

    def state_dict(self) -> dict[str, Any]:
        """All that decides how it goes on: numbers, names, lists, and buffers that no state_dict holds.

        Save it beside the states of model and optimizer (and averages) and ``torch.get_rng_state()``. To
        resume, make model, optimizer and pruner as before, load the pruner's state first (it gives the model
        its shapes), then the others: the run goes on to the bit as it would have.

        Returns
        -------
        dict
        """
        return {
            "steps": self.steps,
            "epochs": self.epochs,
            "history": [dict(entry) for entry in self.history],
            "num_structures": dict(self.num_structures),
            "layout": Layout.of(self.model).to_json(),
            "buffers": {name: value.clone() for name, value in unsaved_buffers(self.model).items()},
            "others": self._averages.unsaved_buffers(),
            "noise": self._observer.state_dict(),
            "misfits": self._seen.misfits,
            "budget": None if self._approach is None else self._approach.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what :meth:`state_dict` gave: the model, and with it the optimizer, takes on its shapes.

        Parameters
        ----------
        state : mapping
            From a pruner of the same network.

        Raises
        ------
        LayoutError
            If the model isn't that network; nothing is changed.
        ValueError
            If it isn't what :meth:`state_dict` gave, or the optimizer's state was loaded before it, which
            would be lost; nothing is changed.
        """
        check_state(state)
        layout = Layout.from_json(state["layout"])
        check_fit(self.model, layout)
        self._averages.check_fit(layout)
        if self.optimizer is not None:
            refuse_early_state(self.optimizer, self.model, layout)
        before = dict(self.model.named_parameters())
        resize(self.model, layout)
        for name, buffer in unsaved_buffers(self.model).items():
            buffer.copy_(state["buffers"][name])
        self._averages.resize(layout, state.get("others", ()))
        if self.optimizer is not None:
            hand_over(self.optimizer, before, self.model)
        self.history = [dict(entry) for entry in state["history"]]
        self.num_structures = dict(state["num_structures"])
        if self._approach is not None and state.get("budget") is not None:
            self._approach.load_state_dict(state["budget"])
        self.resume_at(epochs=state["epochs"], steps=state["steps"])
        self._observer.load_state_dict(state.get("noise"))
        self._seen.misfits = state.get("misfits")

    def resume_at(self, *, epochs: int, steps: int) -> None:
        """Take up a run of which so many epochs and steps are done, with a model loaded by other means.

        Parameters
        ----------
        epochs, steps : int
            How many are done, at least 0. What was pruned by then is in the model's masks.
        """
        check_counts(epochs=epochs, steps=steps)
        put_back(self.model)
        self.epochs, self.steps = epochs, steps
        if epochs or steps:
            self._observer.forget()
        self._fix_noise()
        self._on_ranks.tell_wrapper()

    def _prune_if_due(self, unit: str) -> PruneReport | None:
        if unit != self.schedule.unit or not self.schedule.is_due(self.done):
            return None
        if self.shrink and self.optimizer is not None:
            check_optimizer(self.optimizer, self.model)
        report = self._on_ranks.decided(self._pruned, by_noise=self._judges_by_noise())
        self._averages.take_masks(self.model)
        self.last_report = report
        if self.shrink and report.pruned_now and plan_compaction(self.model, self.example_inputs).removed:
            self._observer.measure_movement()
            options = {"optimizer": self.optimizer, "others": self._averages.parts, **self._surgery}
            become(self.model, compact(self.model, self.example_inputs, **options))
            self._observer.forget_coupling()
        self._fix_noise()
        self._on_ranks.tell_wrapper()
        return report

    def _take_down(self, when: When, report: PruneReport | None) -> None:
        """Add an entry to the history, tell the logger, and warn if next to nothing is left."""
        before = max(self.done - 1, 0)  # what the last minibatch was trained as
        finetuned = self.schedule.finetunes(before)
        self.history.append(
            {
                "when": when,
                "epoch": self.epochs,
                "step": self.steps,
                "phase": "finetuning" if finetuned else "pruning",
                "due": report is not None,
                "pruned": 0 if report is None else report.pruned_now,
                "costs": None if report is None or report.spending is None else report.spending.fractions,
                "kl_weight": 0.0 if finetuned else self.kl_weight * self.schedule.kl_factor(before),
                "misfit": self._seen.mean_misfit(self._on_ranks.ranks),
                **self._observer.entry(finetuning=self.phase == "finetuning"),
            }
        )
        if when == "epoch":
            self._seen.misfits = None
        if self.log is not None and self._on_ranks.ranks.is_first:
            self.log(self.scalars(), self.steps or self.epochs)
        if report is not None and self._on_ranks.ranks.is_first:
            self._warn_of_collapse(report)

    def __repr__(self) -> str:
        return where_it_stands(
            self.model,
            self.history,
            self.schedule,
            criterion=self.criterion,
            options=self._rule,
            epochs=self.epochs,
            steps=self.steps,
            kl_weight=self.kl_weight,
            num_structures=sum(self.num_structures.values()),
        )

    def _pruned(self, model: nn.Module) -> PruneReport:
        if self._approach is not None:
            return self._approach.prune(model, self.criterion, self.done, self.rule_options)
        return prune(model, self.criterion, example_inputs=self.example_inputs, **self.rule_options)

    def _judges_by_noise(self) -> bool:
        """Whether the noise is all of the model that a decision looks at."""
        alone = self.budget is None and self.rule_options.get("coupling") is None
        return alone and find_criterion(self.criterion).source in ("noise", "nothing")

    def _objective(self, nll_mean: Tensor) -> Tensor:
        return elbo_loss(
            nll_mean,
            self.model,
            num_samples=self.num_samples,
            kl_scale=self.kl_scale,
            layer_weights=self.layer_weights,
            kl_weight=self.kl_weight * self.schedule.kl_factor(self.done),
            num_structures=self.num_structures,
        )

    def _warn_of_collapse(self, report: PruneReport) -> None:
        layers = [layer for layer in collapsed(report) if layer.name not in self._seen.collapsed]
        if layers:
            self._seen.collapsed.update(layer.name for layer in layers)
            warnings.warn(explain_collapse(layers, report, self._course()), stacklevel=4)

    def _course(self) -> Course:
        steps = max(self._seen.minibatches, self.steps)
        with torch.no_grad():
            penalty = None if self.phase == "finetuning" else self._objective(torch.zeros(())).item()
        return Course(
            self.model,
            steps,
            f"{self.epochs} epochs and {steps} minibatches" if self.epochs else f"{steps} minibatches",
            self.kl_weight,
            default_kl_weight(self.num_samples, self.kl_scale),
            noise_rate(self.optimizer, self.model),
            penalty,
            None if self._seen.misfit is None else self._seen.misfit.item(),
            self._seen.detached,
        )

    def _waits_for_steps(self) -> bool:
        return self.schedule.unit == "step" and self.steps == 0

    def _fix_noise(self) -> None:
        if self.phase == "finetuning":
            for layer in noise_layers(self.model).values():
                layer.fix()

    def _has_pruned(self) -> bool:
        return any(entry["pruned"] for entry in self.history) or not all(
            bool(layer.kept().all()) for layer in noise_layers(self.model).values()
        )


_NO_STEP = (
    "the schedule counts steps and none was counted, so that nothing is ever due: call pruner.step() after "
    "each optimizer.step(), or count epochs by Schedule(unit='epoch')"
)
