"""Parameters that the example never reached, and that might read what is cut or folded."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterator
from typing import Literal, get_args

from torch import nn

from bmrs_torch.channels.network import FollowedNetwork
from bmrs_torch.channels.reached import unreached as missing
from bmrs_torch.channels.weights import is_weighted, weight_axes
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


def unreached_readers(model: nn.Module, network: FollowedNetwork, widths: Collection[int]) -> list[str]:
    """What was never reached and takes or gives channels of these widths, or has parameters of them.

    Of what it takes multiples count, as flattened pixels make them, and sums of two, as concatenation makes
    them.

    Parameters
    ----------
    model : nn.Module
        As it was followed.
    network : FollowedNetwork
        What was reached.
    widths : collection of int
        Of what surgery changes.

    Returns
    -------
    list of str
        Names of modules.
    """
    found = []
    for name, keys in missing(model, network.parameters).items():
        module = model.get_submodule(name)
        reads = any(_is_made_of(size, widths) for size in _sizes_taken(module, keys))
        if reads or any(size in widths for key in keys for size in module.get_parameter(key).shape):
            found.append(name)
    return found


def _sizes_taken(module: nn.Module, keys: list[str]) -> Iterator[int]:
    """How many inputs a layer takes, or how long any axis of these parameters is."""
    weight = module._parameters.get("weight")
    if is_weighted(module) and weight is not None:
        axis = weight_axes(module)[1]
        assert axis is not None
        yield getattr(module, "in_channels", weight.shape[axis])
    else:
        yield from (size for key in keys for size in module.get_parameter(key).shape)


def _is_made_of(size: int, widths: Collection[int]) -> bool:
    return any(size % width == 0 or size - width in widths for width in widths)


def report_unreached(names: Collection[str], unreached: Unreached, what: str) -> None:
    """Raise SurgeryError or warn of what was never reached.

    Parameters
    ----------
    names : collection of str
        Of modules that might read what surgery changes.
    unreached : {"error", "warn"}
    what : str
        What surgery does to what they read.
    """
    if not names:
        return
    text = (
        f"the example never reached {', '.join(map(repr, names))}, which by its width might read or give "
        f"structures that are {what}, and would be wrong afterwards. Give example_inputs, or a "
        "training_step, that reach it"
    )
    if unreached == "error":
        raise SurgeryError(f"{text}, or unreached='warn' to go on; the model was left as it was")
    warnings.warn(f"{text}.", stacklevel=3)
