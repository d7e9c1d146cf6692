"""Check that two models answer alike, as they must after surgery."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from bmrs_torch.channels.calling import TrainingStep, answers, call, mapped, tensors_of, training_copy
from bmrs_torch.channels.variants import Variant, another_batch, variants

RELATIVE_TOLERANCE = 1e-5
"""Of ‖difference‖ to ‖answer‖. float32 sums over other lengths differ by some 1e-7; a wrong channel by more
than 1e-3."""

_EPSILONS = 8.0
"""Tolerance in units of the answers' own eps where that is coarser (float16, bfloat16)."""


class SurgeryError(RuntimeError):
    """Surgery would have changed what the model computes; the model was left as it was.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from bmrs_torch import SurgeryError, insert_noise
    >>> class Whimsical(nn.Sequential):
    ...     def forward(self, x):
    ...         return super().forward(x) + torch.randn(())
    >>> try:
    ...     insert_noise(Whimsical(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)), torch.ones(2, 4))
    ... except SurgeryError as error:
    ...     print("refused")
    refused
    """


def relative_difference(model: nn.Module, other: nn.Module, example_inputs: Any) -> float:
    """‖other(x) − model(x)‖ / ‖model(x)‖ in evaluation mode, over all tensors the models return.

    Parameters
    ----------
    model, other : nn.Module
        Their training mode is restored afterwards.
    example_inputs : Tensor, tuple, list or dict
        One input, positional inputs, or keyword inputs.

    Returns
    -------
    float
        0 if both are equal, NaN if an answer isn't finite, inf if the answers' shapes differ.
    """
    return difference(answers(model, example_inputs), answers(other, example_inputs))


@dataclass(frozen=True)
class Comparison:
    """How another model compares with a reference.

    Attributes
    ----------
    difference : float
        The largest relative one, up to the first that is too large; infinite if the other model can't answer.
    alike : bool
        Whether none is too large.
    where : str
        On what the last was found.
    in_training : bool
        Whether that was in training mode.
    error : str
        Why the other model can't answer, or "".
    raised_in : str or None
        Name of the innermost of its modules that was running then.
    """

    difference: float
    alike: bool
    where: str
    in_training: bool
    error: str = ""
    raised_in: str | None = None


class _Trial(NamedTuple):
    """Something to compute with a model, and what came of it."""

    where: str
    run: Callable[[nn.Module, Any, int], list[Tensor]]
    inputs: Any
    answers: list[Tensor]
    in_training: bool = False


class Reference:
    """What a model answers, to compare smaller ones with.

    Parameters
    ----------
    model : nn.Module
        It is left as it is.
    example_inputs : Tensor, tuple, list or dict
        What to compare on; a real minibatch tells more than zeros.
    widely : bool
        Compare on other values, at another batch size and at another length or image size too, as far as the
        model runs on them, and in training mode.
    training_step : callable, optional
        What to compute in training mode, with the model; by default it is called on the example.

    Attributes
    ----------
    tolerance : float
        What the answers may differ by, relative.
    untrained : str
        Why nothing could be compared in training mode, or "".

    Raises
    ------
    SurgeryError
        If it answers with NaN or infinity or with something else each time, so that nothing can be compared.
    """

    def __init__(
        self,
        model: nn.Module,
        example_inputs: Any,
        *,
        widely: bool = False,
        training_step: TrainingStep | None = None,
    ) -> None:
        self._model, self.untrained = model, ""
        self._exact: dict[str, tuple[Any, list[Tensor]] | None] = {}
        found = answers(model, example_inputs)
        numbers = [t for t in found if not _is_exact(t)]
        if not numbers:
            raise SurgeryError(
                f"surgery on {type(model).__name__} can't be checked: what it answers on the example inputs "
                "holds no tensor of floating-point numbers to compare; the model was left as it was"
            )
        coarsest = max(torch.finfo(t.dtype).eps for t in numbers)
        self.tolerance = max(RELATIVE_TOLERANCE, _EPSILONS * coarsest)
        again = difference(found, answers(model, example_inputs))
        if not again <= self.tolerance:
            raise SurgeryError(
                f"surgery on {type(model).__name__} can't be checked: the model's own answers on the example "
                f"inputs differ by {again:.2g} from one evaluation to the next (NaN: they aren't finite), so "
                "the model was left as it was"
            )
        self._trials = [_Trial("on the example inputs", _evaluate, example_inputs, found)]
        if widely:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of the user's forward method, on inputs that aren't theirs
                self._trials += filter(None, map(self._on_one_of, variants(example_inputs)))
                trained = self._in_training(example_inputs, training_step)
            self._trials += [trained] if trained is not None else []

    def _on_one_of(self, group: list[Variant]) -> _Trial | None:
        """The first of these inputs that the model gives finite answers on."""
        for variant in group:
            try:
                found = answers(self._model, variant.inputs)
            except Exception:  # noqa: BLE001 - the user's forward method, on inputs that aren't theirs
                continue
            if difference(found, found) == 0:
                return _Trial(variant.text, _evaluate, variant.inputs, found)
        return None

    def _in_training(self, example_inputs: Any, step: TrainingStep | None) -> _Trial | None:
        """What is computed in training mode, at another batch size, of more than one, or on the example."""
        where = "in training mode"
        if step is not None:
            run = partial(_train_step, step)
            return _Trial(where, run, None, run(self._model, None), in_training=True)
        for inputs in (another_batch(example_inputs), example_inputs):  # BatchNorm wants more than one sample
            try:
                found = trained_answers(self._model, inputs)
            except Exception as error:  # noqa: BLE001 - the user's forward method, which may want targets
                self.untrained = self.untrained or f"{type(error).__name__}: {error}"
                continue
            self.untrained = "" if difference(found, found) == 0 else "its answers aren't finite there"
            return None if self.untrained else _Trial(where, trained_answers, inputs, found, in_training=True)
        return None

    def difference(self, other: nn.Module) -> float:
        """Relative difference of another model's answers, as :meth:`compare` finds it."""
        return self.compare(other).difference

    def compare(self, other: nn.Module) -> Comparison:
        """Compare another model's answers, up to the first that differ.

        Where rounding may be the cause, in float64: deep networks with arbitrary weights can magnify
        float32's rounding beyond the tolerance; in float64 what is left of the difference is the surgery's.
        """
        worst = 0.0
        for trial in self._trials:
            try:
                found = self._difference(trial, other)
            except Exception as error:  # noqa: BLE001 - the user's forward method, with another width
                why = f"{type(error).__name__}: {error}"
                place = _raised_in(error)
                return Comparison(float("inf"), False, trial.where, trial.in_training, why, place)
            worst = max(worst, found)
            if not found <= self.tolerance:
                return Comparison(found, False, trial.where, trial.in_training)
        return Comparison(worst, True, self._trials[-1].where, self._trials[-1].in_training)

    def _difference(self, trial: _Trial, other: nn.Module) -> float:
        with warnings.catch_warnings():
            if trial is not self._trials[0]:
                warnings.simplefilter("ignore")
            answered = trial.run(other, trial.inputs, 0)
            numbers, exact = _differences(trial.answers, answered)
            if max(numbers, exact) <= self.tolerance or numbers == float("inf"):
                return max(numbers, exact)
            if trial.in_training and self._is_random(trial):
                return 0.0  # the shapes are the same
            if trial.inputs is None:  # a step with inputs of its own can't be had in float64
                return 0.0 if max(numbers, exact) < _OF_A_STEP else max(numbers, exact)
            if not numbers < _ROUNDING:
                return max(numbers, exact)
            exact_answers = self._exactly(trial)
            if exact_answers is None:
                return max(numbers, exact)
            inputs, wanted = exact_answers
            return difference(wanted, trial.run(copy.deepcopy(other).double(), inputs, 0))

    def _exactly(self, trial: _Trial) -> tuple[Any, list[Tensor]] | None:
        """The inputs and the model's answers in float64, if it isn't made for one dtype only."""
        if trial.where not in self._exact:
            model, inputs = doubled(self._model, trial.inputs)
            is_double = all(p.dtype == torch.float64 for p in model.parameters() if p.is_floating_point())
            self._exact[trial.where] = (inputs, trial.run(model, inputs, 0)) if is_double else None
        return self._exact[trial.where]

    def _is_random(self, trial: _Trial) -> bool:
        """Whether the model itself draws something in training, so that only shapes can be compared."""
        return difference(trial.answers, trial.run(self._model, trial.inputs, 1)) > self.tolerance

    def verify(self, other: nn.Module, what: str) -> None:
        """Raise SurgeryError unless the other model answers alike.

        Parameters
        ----------
        other : nn.Module
            The model after surgery.
        what : str
            What was done, for the message.

        Raises
        ------
        SurgeryError
            If the answers differ by more than :data:`RELATIVE_TOLERANCE` (8 eps of the answers' dtype if that
            is more).
        """
        found = self.compare(other)
        if not found.alike:
            how = f"by {found.difference:.2g} relative (allowed: {self.tolerance:.2g})"
            if found.error:
                how = f"to an error ({found.error})"
            raise SurgeryError(
                f"{what} would change the model's answer {found.where} {how}, so the model was left as it was"
            )


def warn_untrained(why: str) -> None:
    """Say that nothing was followed or verified in training mode."""
    warnings.warn(
        f"the model can't be run on the example in training mode ({why}), so what only training runs was "
        "neither followed nor verified; training_step=lambda model: ... says what to compute there",
        stacklevel=3,
    )


def _raised_in(error: Exception) -> str | None:
    """Name of the innermost module whose method an error came through."""
    modules = []
    step = error.__traceback__
    while step is not None:
        code = step.tb_frame.f_code
        first = step.tb_frame.f_locals.get(code.co_varnames[0]) if code.co_argcount else None
        modules += [first] if isinstance(first, nn.Module) else []
        step = step.tb_next
    names = {id(module): name for name, module in modules[0].named_modules()} if modules else {}
    return names.get(id(modules[-1])) if modules else None


def _evaluate(model: nn.Module, inputs: Any, _seed: int) -> list[Tensor]:
    return answers(model, inputs)


def trained_answers(model: nn.Module, inputs: Any, seed: int = 0) -> list[Tensor]:
    """What a copy of a model answers in training mode, without noise and dropout."""
    return _train_step(lambda copied: call(copied, inputs), model, None, seed)


@torch.no_grad()
def _train_step(step: TrainingStep, model: nn.Module, _inputs: Any, seed: int = 0) -> list[Tensor]:
    """What a step computes on a copy of a model in training mode."""
    devices = {p.device for p in model.parameters() if p.is_cuda}
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        return tensors_of(step(training_copy(model)))


_ROUNDING = 0.05
"""Differences beyond this are not worth a second look in float64."""


_OF_A_STEP = 1e-3
"""What float32 may make of a step of training, where BatchNorm divides by what it measures; a wrong channel
makes more."""


def doubled(model: nn.Module, example_inputs: Any) -> tuple[nn.Module, Any]:
    """A copy of a model in float64, and its inputs; as they are where it was made for one dtype only."""
    inputs = mapped(example_inputs, lambda x: x.double() if x.is_floating_point() else x)
    other = copy.deepcopy(model).double()
    try:
        answers(other, inputs)
    except (RuntimeError, TypeError, ValueError):
        return copy.deepcopy(model), example_inputs
    return other, inputs


class _Dtypes(TorchDispatchMode):
    """Notes in which floating dtypes something is computed."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen: set[torch.dtype] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.seen |= {t.dtype for t in tree_leaves(result) if isinstance(t, Tensor) and t.is_floating_point()}
        return result


def rounds_to_float32(model: nn.Module, example_inputs: Any) -> bool:
    """Whether something in a model is computed more coarsely than in float64, as norms of some are."""
    with _Dtypes() as dtypes:
        answers(model, example_inputs)
    return bool(dtypes.seen - {torch.float64})


def difference(first: list[Tensor], second: list[Tensor]) -> float:
    """‖second − first‖ / ‖first‖ over all tensors; of whole numbers and truth values the share that differs.

    The larger of the two; inf if their shapes or kinds differ, NaN if one isn't finite.
    """
    numbers, exact = _differences(first, second)
    return max(numbers, exact)


def _differences(first: list[Tensor], second: list[Tensor]) -> tuple[float, float]:
    """Those of floating-point numbers, and of whole ones."""
    if [(t.shape, _is_exact(t)) for t in first] != [(t.shape, _is_exact(t)) for t in second]:
        return float("inf"), float("inf")
    pairs = [(_flat(a), _flat(b)) for a, b in zip(first, second, strict=True) if not _is_exact(a)]
    same = [a == b for a, b in zip(first, second, strict=True) if _is_exact(a) and a.numel()]
    exact = float((~torch.cat([s.flatten() for s in same])).double().mean()) if same else 0.0
    if not pairs:
        return 0.0, exact
    a, b = (torch.cat(parts) for parts in zip(*pairs, strict=True))
    # The same infinity in both is no difference: masked scores are −∞.
    off = torch.where(a == b, 0.0, b - a).norm()
    return 0.0 if off == 0 else float(off / a[a.isfinite()].norm()), exact


def _is_exact(tensor: Tensor) -> bool:
    return not (tensor.is_floating_point() or tensor.is_complex())


def _flat(tensor: Tensor) -> Tensor:
    """Its numbers in float64, one after another."""
    if tensor.is_nested:
        tensor = torch.cat([part.flatten() for part in tensor.unbind()])
    elif tensor.layout != torch.strided:
        tensor = tensor.to_dense()
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor.resolve_conj())
    return tensor.double().flatten()
