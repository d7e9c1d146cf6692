"""The one list of architectures, for the record and for the tests."""

from __future__ import annotations

from benchmarks.zoo.architecture import Architecture
from benchmarks.zoo.in_torch import IN_TORCH
from benchmarks.zoo.of_timm import OF_TIMM
from benchmarks.zoo.of_torchvision import OF_TORCHVISION
from benchmarks.zoo.of_transformers import OF_TRANSFORMERS

SOURCES = {
    "torchvision": OF_TORCHVISION,
    "timm": OF_TIMM,
    "transformers": OF_TRANSFORMERS,
    "torch": IN_TORCH,
}
"""By the library that they are of; "torch": written out in the zoo itself."""

ARCHITECTURES: dict[str, Architecture] = {
    name: one for source in SOURCES.values() for name, one in source.items()
}
"""By name, in the order of the record."""


def source_of(name: str) -> str:
    """Which library an architecture is of."""
    return next(source for source, named in SOURCES.items() if name in named)
