"""How results are kept: whole files, by one process at a time."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path


def replace(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)


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
