"""Two networks side by side: what each costs, and what became of each layer."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from bmrs_torch.channels.calling import in_mode
from bmrs_torch.costs.counting import count_file_bytes, count_macs, count_parameters
from bmrs_torch.costs.measuring import median_ratio, peak_bytes, take_times
from bmrs_torch.operation.arguments import check_model, check_real, described
from bmrs_torch.reporting.comparison import Comparison, Cost, LayerChange
from bmrs_torch.wrapping import data_parallel_of, unwrapped

DEFAULT_SECONDS = 2.0


def report(
    before: nn.Module,
    after: nn.Module,
    example_inputs: Any,
    *,
    metrics: Mapping[str, Callable[[nn.Module], float]] | None = None,
    seconds: float = DEFAULT_SECONDS,
) -> Comparison:
    """Measure two networks side by side: size, work, time and memory, in total and by layer.

    Parameters
    ----------
    before, after : nn.Module
        For instance the network as it was trained and the pruned one. They are measured in evaluation mode
        and left as they are; of one in DistributedDataParallel what is inside, so that no rank waits for
        another.
    example_inputs : Tensor, tuple, list or dict
        One input, positional inputs, or keyword inputs; a batch of the size that matters.
    metrics : mapping of str to callable, optional
        What else to measure of each network, such as its accuracy.
    seconds : float
        How long to time them, positive. The networks take turns, and at least five rounds are run.

    Returns
    -------
    Comparison
        Print it, save it as JSON, or draw it with :func:`draw_layers`.

    Raises
    ------
    ValueError
        If `seconds` isn't positive.
    TypeError
        For networks, example inputs, metrics or seconds of another kind.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from bmrs_torch import report
    >>> found = report(nn.Linear(8, 4), nn.Linear(8, 2), torch.ones(16, 8), seconds=0.01)
    >>> found.before.parameters, found.after.macs, found.layers[0].shape_after
    (36, 256, (2, 8))
    """
    check_model(before)
    check_model(after)
    check_real("seconds", seconds)
    if not seconds > 0:
        raise ValueError(f"seconds must be positive, got {seconds}")
    if not isinstance(metrics or {}, Mapping) or not all(map(callable, (metrics or {}).values())):
        raise TypeError(
            f"metrics must be functions of a network by name, such as {{'accuracy': f}}, got "
            f"{described(metrics)}"
        )
    networks = tuple(unwrapped(m) if data_parallel_of(m) is not None else m for m in (before, after))
    with in_mode(before, training=False), in_mode(after, training=False):
        macs = [count_macs(unwrapped(model), example_inputs) for model in networks]
        peaks = [peak_bytes(model, example_inputs) for model in networks]
        times = take_times(networks, example_inputs, seconds=seconds)
        costs = [
            Cost(
                count_parameters(model),
                own_macs[""],
                count_file_bytes(model),
                1e3 * statistics.median(own_times),
                peak,
                {name: float(measure(model)) for name, measure in (metrics or {}).items()},
            )
            for model, own_macs, own_times, peak in zip(networks, macs, times, peaks, strict=True)
        ]
    layers = _layer_changes(unwrapped(before), unwrapped(after), *macs)
    return Comparison(costs[0], costs[1], median_ratio(*times), len(times[0]), layers)


def _layer_changes(
    before: nn.Module, after: nn.Module, macs_before: dict[str, int], macs_after: dict[str, int]
) -> tuple[LayerChange, ...]:
    first, second = _layers(before), _layers(after)
    changes = []
    for name in dict.fromkeys([*first, *second]):
        old, new = first.get(name), second.get(name)
        changes.append(
            LayerChange(
                name,
                type(old or new).__name__,
                _shape(old),
                _shape(new),
                _own_parameters(old),
                _own_parameters(new),
                _own_macs(name, old, macs_before),
                _own_macs(name, new, macs_after),
            )
        )
    return tuple(changes)


def _layers(model: nn.Module) -> dict[str, nn.Module]:
    """Layers with parameters of their own, by name."""
    return {
        name: module
        for name, module in model.named_modules()
        if next(module.parameters(recurse=False), None) is not None
    }


def _shape(layer: nn.Module | None) -> tuple[int, ...] | None:
    if layer is None:
        return None
    own = dict(layer.named_parameters(recurse=False))
    return tuple(own.get("weight", next(iter(own.values()))).shape)


def _own_macs(path: str, layer: nn.Module | None, macs: dict[str, int]) -> int:
    """Those of a layer without those of the layers inside it, which have rows of their own."""
    if layer is None:
        return 0
    children = (f"{path}.{name}".lstrip(".") for name, _ in layer.named_children())
    return macs.get(path, 0) - sum(macs.get(child, 0) for child in children)


def _own_parameters(layer: nn.Module | None) -> int:
    return 0 if layer is None else sum(p.numel() for p in layer.parameters(recurse=False))
