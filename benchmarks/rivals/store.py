"""Trained networks kept in a scratch folder between runs, and processes that keep out of each other's way."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from benchmarks.measuring.keeping import claimed


class Store:
    """A folder of networks, each made once.

    The files are pickles, to be read by the program that wrote them only: nobody else's belong there.

    Parameters
    ----------
    folder : Path
        It is made.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def get(self, name: str, make: Callable[[], nn.Module]) -> nn.Module:
        """The network of this name, read or made; a second process that wants it waits for the first."""
        path = self.folder / f"{name}.pt"
        with claimed(self.folder / f"{name}.claim", wait=True):
            if not path.exists():
                part = path.with_suffix(".part")
                torch.save(make(), part)
                part.replace(path)
        model: nn.Module = torch.load(path, weights_only=False)
        return model

    def claim(self, name: str) -> contextlib.AbstractContextManager[bool]:
        """Claim a run, unless another process has it."""
        return claimed(self.folder / f"{name}.claim", wait=False)
