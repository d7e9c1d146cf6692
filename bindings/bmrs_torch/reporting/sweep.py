"""Several settings of the dial from one trained network: what each costs and what it still can."""

from __future__ import annotations

import copy
import dataclasses
import math
import os
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from bmrs_torch.channels.calling import in_mode
from bmrs_torch.costs.counting import count_file_bytes, count_macs, count_parameters
from bmrs_torch.deciding.budget import as_budget
from bmrs_torch.layer import MultiplicativeNoise
from bmrs_torch.operation.arguments import check_model, check_real, check_whole, described
from bmrs_torch.reporting.sweep_folder import SweepFolder, described_setting, fingerprint
from bmrs_torch.reporting.sweep_result import UNPRUNED, Sweep, SweepRow
from bmrs_torch.surgery.fold import fold
from bmrs_torch.surgery.progress import Progress
from bmrs_torch.training.checks import check_example
from bmrs_torch.training.prune_trained import prune_trained

__all__ = ["sweep"]

_OF_A_SETTING = (ValueError, RuntimeError, ArithmeticError)
"""What one setting may end in and another not, such as a loss that is no longer finite."""

Metrics = Mapping[str, Callable[[nn.Module], float]]


def sweep(
    model: nn.Module,
    batches: Iterable[Any],
    loss: Callable[[nn.Module, Any], Tensor],
    *,
    metrics: Metrics,
    kl_weights: Sequence[float] | None = None,
    budgets: Sequence[Any] | None = None,
    example_inputs: Any = None,
    folder: str | os.PathLike[str] | None = None,
    seed: int = 0,
    recipe: Callable[..., Any] = prune_trained,
    **options: Any,
) -> Sweep:
    """Prune a trained network once for each setting of the dial, from the same start, and measure them all.

    Parameters
    ----------
    model : nn.Module
        A trained network, without noise, or with noise where it is wanted; it is left untouched, each setting
        gets a copy.
    batches : iterable
        Of minibatches, such as a DataLoader, which each setting goes through from the beginning.
    loss : callable
        From a network and a minibatch to the mean negative log-likelihood, as of :func:`prune_trained`.
    metrics : mapping of str to callable
        What to measure of each network, in evaluation mode. The first is what the others are weighed against:
        higher is better, such as the accuracy on validation data (not on test data, if one is chosen by it).
    kl_weights : sequence of float, optional
        Settings of `kl_weight`, each at least 0.
    budgets : sequence, optional
        Instead of them, settings of `budget`, each as of :class:`Budget`; a number is one of multiply-adds.
    example_inputs : Tensor, tuple, list or dict, optional
        On which multiply-adds are counted, of all samples in it. By default the first element of the first
        minibatch if that is a tuple or list, else the minibatch.
    folder : path-like, optional
        Where to keep each row that is finished, and its network as :func:`save_pruned` does. A second call
        with the same settings takes them from there, adds what is new, and tries again what failed. Of
        functions the names are compared, of `batches` the sizes, of the network all it holds.
    seed : int
        Of torch's generators at the beginning of each row, so that no row depends on which came before; the
        generators are put back. What `batches` draws from a generator of its own stays its own.
    recipe : callable
        What prunes: called with a copy of `model`, `batches`, `loss`, the setting as ``kl_weight=`` or
        ``budget=`` and all `options`; its answer is a network, or has one as its attribute `model`.
    **options
        Of the recipe.

    Returns
    -------
    Sweep
        Print it, save it, draw it with :func:`draw_sweep`. A setting that failed is a row with the reason;
        what was warned of, such as a collapse, is a note in its row.

    Raises
    ------
    TypeError
        For arguments of another kind, or if it isn't one of `kl_weights` and `budgets` that is given.
    ValueError
        For settings that are none, twice or out of range; an example that the network can't take; if `folder`
        holds a sweep with other settings: it is said what differs. What the last setting failed of, if all
        failed.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from bmrs_torch import sweep
    >>> trained = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    >>> batches = [(torch.randn(16, 4), torch.zeros(16, dtype=torch.long)) for _ in range(4)]
    >>> found = sweep(
    ...     trained, batches, lambda net, batch: nn.functional.cross_entropy(net(batch[0]), batch[1]),
    ...     metrics={"accuracy": lambda net: 0.5}, kl_weights=[1.0, 10.0],
    ...     num_samples=64, steps=20, criterion="snr", amount=0.25,
    ... )
    >>> [(row.label, row.parameters) for row in found.rows]
    [('unpruned', 58), ('1', 44), ('10', 44)]
    """
    dial, values = _settings_of(kl_weights, budgets, options)
    _check(model, batches, metrics, recipe, seed)
    devices = _devices(model)
    with torch.random.fork_rng(devices):  # a DataLoader draws when it begins
        inputs = _example_of(batches) if example_inputs is None else example_inputs
    check_example(model, inputs)
    passed = options if example_inputs is None else {**options, "example_inputs": example_inputs}
    settings = _conditions(model, batches, inputs, metrics, seed, recipe, options)
    whole = fold(model, inputs) if any(map(_is_noise, model.modules())) else model
    kept = None if folder is None else SweepFolder(folder, dial, settings)
    errors: list[Exception] = []

    def found(label: str, value: Any) -> SweepRow:
        row = None if kept is None else kept.row(label, whole)
        if row is not None:
            return row
        if label == UNPRUNED:
            row = _measured(SweepRow(label, None), whole, inputs, metrics)
        else:
            prune = _prepared(recipe, model, batches, loss, {dial: value, **passed})
            row = _run(
                SweepRow(label, described_setting(value)), prune, inputs, metrics, devices, seed, errors
            )
        if kept is not None:
            kept.keep(row)
        return row

    rows = [found(UNPRUNED, None)]
    with Progress(len(values), "sweep") as progress:
        for label, value in values.items():
            rows.append(found(label, value))
            progress.advance(1)
    if len(errors) == len(values):
        raise errors[-1]
    return Sweep(dial, tuple(rows), settings)


def _conditions(
    model: nn.Module, batches: Any, inputs: Any, metrics: Metrics, seed: int, recipe: Any, options: Any
) -> dict[str, Any]:
    """What decides the result beside the dial, in plain values."""
    return {
        "network": f"{type(model).__name__} {fingerprint(model)}",
        "example": _shapes_of(inputs),
        "batches": _sizes_of(batches),
        "metrics": list(metrics),
        "seed": int(seed),
        "recipe": described_setting(recipe),
        "options": described_setting(options),
    }


def _prepared(
    recipe: Callable[..., Any], model: nn.Module, batches: Any, loss: Any, options: Mapping[str, Any]
) -> Callable[[], nn.Module]:
    def prune() -> nn.Module:
        answer = recipe(copy.deepcopy(model), batches, loss, **options)
        network = answer if isinstance(answer, nn.Module) else getattr(answer, "model", None)
        if not isinstance(network, nn.Module):
            raise TypeError(
                "recipe must answer with a network, or with something whose attribute model is one, got "
                f"{described(answer)}"
            )
        return network

    return prune


def _run(
    row: SweepRow,
    prune: Callable[[], nn.Module],
    example_inputs: Any,
    metrics: Metrics,
    devices: list[torch.device],
    seed: int,
    errors: list[Exception],
) -> SweepRow:
    """Prune and measure; what a setting ends in is taken down, and what else was warned of is said again."""
    started = time.perf_counter()
    with warnings.catch_warnings(record=True) as caught, torch.random.fork_rng(devices):
        warnings.simplefilter("always")
        torch.manual_seed(seed)
        try:
            network = prune()
        except _OF_A_SETTING as error:
            errors.append(error)
            row = dataclasses.replace(row, failed=f"{type(error).__name__}: {error}")
        row = dataclasses.replace(row, seconds=time.perf_counter() - started)
        if row.failed is None:
            row = _measured(row, network, example_inputs, metrics)
    for warning in caught:
        if not issubclass(warning.category, UserWarning):
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    said = [str(warning.message) for warning in caught if issubclass(warning.category, UserWarning)]
    return dataclasses.replace(row, notes=tuple(dict.fromkeys(said)))


def _measured(row: SweepRow, network: nn.Module, example_inputs: Any, metrics: Metrics) -> SweepRow:
    with in_mode(network, training=False):
        macs = count_macs(network, example_inputs)[""]
        measured = {name: float(measure(network)) for name, measure in metrics.items()}
    wrong = [f"{name} is {value}" for name, value in measured.items() if not math.isfinite(value)]
    if wrong and row.label == UNPRUNED:
        raise ValueError(f"metrics of the unpruned network must be finite: {', '.join(wrong)}")
    if wrong:
        return dataclasses.replace(row, failed=", ".join(wrong))
    return dataclasses.replace(
        row,
        parameters=count_parameters(network),
        macs=macs,
        file_bytes=count_file_bytes(network),
        metrics=measured,
        model=network,
    )


def _settings_of(
    kl_weights: Sequence[float] | None, budgets: Sequence[Any] | None, options: Mapping[str, Any]
) -> tuple[str, dict[str, Any]]:
    """The dial and its settings by label."""
    if (kl_weights is None) == (budgets is None):
        raise TypeError("a sweep turns one dial: give kl_weights or budgets, and not both")
    dial, given = ("kl_weight", kl_weights) if kl_weights is not None else ("budget", budgets)
    if not isinstance(given, Iterable) or isinstance(given, (str, Mapping)):
        raise TypeError(f"{dial}s must be a list of settings, got {described(given)}")
    if dial in options:
        raise TypeError(f"{dial} is what the sweep turns: give its settings as {dial}s=[...]")
    values: dict[str, Any] = {}
    for value in given:
        if dial == "kl_weight":
            check_real("each of kl_weights", value)
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"each of kl_weights must be finite and at least 0, got {value}")
        setting = {"macs": value} if dial == "budget" and isinstance(value, (int, float)) else value
        if dial == "budget":
            as_budget(setting)
        label = _label(setting)
        if label in values:
            raise ValueError(f"{dial}s must differ from one another, got {label} twice")
        values[label] = setting
    if not values:
        raise ValueError(f"{dial}s must hold at least one setting, got none")
    return dial, values


def _label(setting: Any) -> str:
    if dataclasses.is_dataclass(setting) and not isinstance(setting, type):
        setting = {each.name: getattr(setting, each.name) for each in dataclasses.fields(setting)}
    if isinstance(setting, Mapping):
        return ", ".join(f"{name}={value}" for name, value in setting.items() if value is not None)
    return f"{setting:.10g}" if isinstance(setting, (int, float)) else str(setting)


def _check(model: Any, batches: Any, metrics: Any, recipe: Any, seed: Any) -> None:
    check_model(model)
    check_whole("seed", seed, "a seed of torch's generators", 0)
    if not isinstance(metrics, Mapping) or not metrics or not all(map(callable, metrics.values())):
        raise TypeError(
            "metrics must be functions of a network by name, at least one, such as {'accuracy': f}, got "
            f"{described(metrics)}"
        )
    if not callable(recipe):
        raise TypeError(f"recipe must be a function such as prune_trained, got {described(recipe)}")
    if not isinstance(batches, Iterable) or isinstance(batches, Iterator):
        raise TypeError(
            "batches must be minibatches that can be gone through again for each setting, such as a "
            f"DataLoader or a list, got {described(batches)}"
        )


def _example_of(batches: Iterable[Any]) -> Any:
    first = next(iter(batches), None)
    if first is None:
        raise ValueError("batches holds no minibatch, so there is nothing to learn the noise from")
    return first[0] if isinstance(first, (tuple, list)) and first else first


def _shapes_of(inputs: Any) -> list[str]:
    """Of the example what counts for its cost: which samples come first, a loader may shuffle."""
    tensors = [leaf for leaf in tree_leaves(inputs) if isinstance(leaf, Tensor)]
    return [f"{tensor.dtype} {tuple(tensor.shape)}" for tensor in tensors]


def _sizes_of(batches: Any) -> dict[str, int]:
    """How many minibatches and samples there are, as far as they tell."""
    parts = {"minibatches": batches, "samples": getattr(batches, "dataset", None)}
    return {name: len(part) for name, part in parts.items() if isinstance(part, Sized)}


def _is_noise(module: nn.Module) -> bool:
    return isinstance(module, MultiplicativeNoise)


def _devices(model: nn.Module) -> list[torch.device]:
    return list({parameter.device for parameter in model.parameters() if parameter.device.type == "cuda"})
