"""Where noise can be put: its places, and how they are told to people."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Placement:
    """Noise at a layer.

    Attributes
    ----------
    name : str
        Name of the layer.
    num_structures : int
        Structures that get noise.
    axis : int
        Of the layer's output (or input) that counts them; once its blocks lie on two axes, where it has such.
    before : bool
        Whether it lies on the layer's input instead of its output.
    block : int
        Entries of that axis that belong to one structure: the size of a head or of a group of a GroupNorm,
        else 1.
    stream : str
        Layers with the same name here share one noise layer; none for "".
    state : bool
        Whether it lies on the state of a recurrent layer, which takes that itself.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from bmrs_torch import plan_insertion
    >>> plan = plan_insertion(nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)), torch.ones(2, 4))
    >>> place = plan.placements[0]
    >>> place.name, place.num_structures, place.axis
    ('0', 3, -1)
    """

    name: str
    num_structures: int
    axis: int
    before: bool = False
    block: int = 1
    stream: str = ""
    state: bool = False

    @property
    def axis_of_tensor(self) -> int:
        """The axis on which the entries of all structures lie one after another."""
        return self.axis + 1 if self.block > 1 and self.axis < 0 else self.axis

    def __str__(self) -> str:
        text = f"{self.name}: noise on {self.num_structures} structures"
        if self.block > 1:
            text += f" of {self.block}"
        place = " of its state" if self.state else " of its input" if self.before else ""
        text += f" (axis {self.axis}{place})"
        return text + (f", the same as on {self.stream}" if self.stream not in ("", self.name) else "")


def axis_of_structures(axis: int, block: int) -> int:
    """Where an axis of structures lies once the entries of each, if several, have an axis after it."""
    return axis - 1 if block > 1 and axis < 0 else axis


@dataclass(frozen=True)
class InsertionPlan:
    """Where :func:`insert_noise` puts noise, and which layers it passes over and why.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from bmrs_torch import plan_insertion
    >>> plan = plan_insertion(nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)), torch.ones(2, 4))
    >>> plan.passed_over
    (('2', "it is the model's output"),)
    """

    placements: tuple[Placement, ...]
    passed_over: tuple[tuple[str, str], ...]

    def __str__(self) -> str:
        lines = list(map(str, self.placements))
        return "\n".join(lines + [f"{name}: none, {reason}" for name, reason in self.passed_over])

    def without(self, reasons: Mapping[Placement, str]) -> InsertionPlan:
        """The plan without some places, with the reasons, and without those that share their noise.

        A layer that has noise at its other end still isn't passed over.
        """
        streams = {place.stream: reason for place, reason in reasons.items() if place.stream}
        gone = {
            place: reasons[place] if place in reasons else streams[place.stream]
            for place in self.placements
            if place in reasons or place.stream in streams
        }
        left = tuple(place for place in self.placements if place not in gone)
        kept = {place.name for place in left}
        passed_over = {place.name: reason for place, reason in gone.items() if place.name not in kept}
        return InsertionPlan(left, self.passed_over + tuple(passed_over.items()))
