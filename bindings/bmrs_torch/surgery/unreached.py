"""Parameters that the example never reached, and that might read what is cut or folded."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from typing import Literal, get_args

from torch import nn

from bmrs_torch.channels.network import FollowedNetwork
from bmrs_torch.channels.weights import is_weighted, weight_axes
from bmrs_torch.layer import MultiplicativeNoise
from bmrs_torch.surgery.verification import SurgeryError

__all__ = ["Unreached", "check_unreached", "report_unreached", "unreached_readers"]

Unreached = Literal["error", "warn"]


def check_unreached(unreached: Unreached) -> None:
    """Raise ValueError for an option that there isn't."""
    if unreached not in get_args(Unreached):
        raise ValueError(
            "unreached must be 'error' (parameters that the example never reached and that might read what "
            f"surgery changes are an error) or 'warn' (a warning), got {unreached!r}"
        )


def unreached_readers(model: nn.Module, network: FollowedNetwork, widths: Iterable[int]) -> list[str]:
    """What was never reached and takes inputs of one of these widths, or is of one where that isn't known.

    Parameters
    ----------
    model : nn.Module
        As it was followed.
    network : FollowedNetwork
        What was reached.
    widths : iterable of int
        Of what surgery changes.

    Returns
    -------
    list of str
        Names of modules and parameters.
    """
    wanted = set(widths)
    stored = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    reached = {id(stored[name]) for name in network.parameters}
    return [
        name
        for module_name, module in model.named_modules()
        for name, taken in _taken(module_name, module, reached)
        if wanted & set(taken)
    ]


def _taken(name: str, module: nn.Module, reached: set[int]) -> Iterator[tuple[str, list[int]]]:
    """What of a module's own was never reached, and what it may take."""
    own = {key: p for key, p in module._parameters.items() if p is not None and id(p) not in reached}
    weight = own.get("weight")
    if isinstance(module, MultiplicativeNoise):
        return
    if is_weighted(module) and weight is not None:
        axis = weight_axes(module)[1]
        assert axis is not None
        yield name, [getattr(module, "in_channels", weight.shape[axis])]
        return
    for key, parameter in own.items():
        if not (is_weighted(module) and key == "bias"):
            yield f"{name}.{key}".lstrip("."), list(parameter.shape)


def report_unreached(names: list[str], unreached: Unreached, what: str) -> None:
    """Raise SurgeryError or warn of what was never reached.

    Parameters
    ----------
    names : list of str
        What might read what surgery changes.
    unreached : {"error", "warn"}
    what : str
        What surgery does to what they read.
    """
    if not names:
        return
    text = (
        f"the example never reached {', '.join(map(repr, names))}, of the width of structures that are "
        f"{what}: if these are what it reads, it would be wrong afterwards. Give example_inputs, or a "
        "training_step, that reach it"
    )
    if unreached == "error":
        raise SurgeryError(f"{text}, or unreached='warn' to go on; the model was left as it was")
    warnings.warn(f"{text}.", stacklevel=3)
