"""Trained networks kept in a scratch folder between runs, and processes that keep out of each other's way."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import nn


@contextlib.contextmanager
def claimed(path: Path, *, wait: bool) -> Iterator[bool]:
    """Hold a file for this process until the block ends; whoever dies lets go of it.

    Parameters
    ----------
    path : Path
        The file; it is made.
    wait : bool
        Whether to wait for another process that holds it.

    Yields
    ------
    bool
        Whether it is held; without waiting, False if another process holds it.
    """
    import fcntl  # nowhere but on POSIX; the rest of the benchmarks is imported elsewhere, too

    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        yield True  # closing the file ends it


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
