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
    """

    name: str
    num_structures: int
    axis: int
    before: bool = False
    block: int = 1
    stream: str = ""

    @property
    def axis_of_tensor(self) -> int:
        """The axis on which the entries of all structures lie one after another."""
        return self.axis + 1 if self.block > 1 and self.axis < 0 else self.axis

    def __str__(self) -> str:
        text = f"{self.name}: noise on {self.num_structures} structures"
        if self.block > 1:
            text += f" of {self.block}"
        text += f" (axis {self.axis}{' of its input' if self.before else ''})"
        return text + (f", the same as on {self.stream}" if self.stream not in ("", self.name) else "")


def axis_of_structures(axis: int, block: int) -> int:
    """Where an axis of structures lies once the entries of each, if several, have an axis after it."""
    return axis - 1 if block > 1 and axis < 0 else axis


@dataclass(frozen=True)
class InsertionPlan:
    """Where :func:`insert_noise` puts noise, and which layers it passes over and why."""

    placements: tuple[Placement, ...]
    passed_over: tuple[tuple[str, str], ...]

    def __str__(self) -> str:
        lines = list(map(str, self.placements))
        return "\n".join(lines + [f"{name}: none, {reason}" for name, reason in self.passed_over])

    def without(self, reasons: Mapping[str, str]) -> InsertionPlan:
        """The plan without some layers, by name and reason, and without those that share their noise."""
        streams = {p.stream: p.name for p in self.placements if p.name in reasons and p.stream}
        gone = {
            p.name: reasons.get(p.name) or reasons[streams[p.stream]]
            for p in self.placements
            if p.name in reasons or p.stream in streams
        }
        left = tuple(p for p in self.placements if p.name not in gone)
        return InsertionPlan(left, self.passed_over + tuple(gone.items()))
