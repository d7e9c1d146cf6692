"""Say so when a kernel is being compiled and the user waits for it."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["announcing"]

PATIENCE = 1.0
"""Seconds after which a compilation is announced."""


@contextmanager
def announcing(what: str) -> Iterator[None]:
    """Write a line to standard error if the block takes longer than `PATIENCE`."""
    message = f"bmrs_kernels: compiling {what} for this CPU, once; the result is kept in Numba's disk cache"
    timer = threading.Timer(PATIENCE, sys.stderr.write, (message + "\n",))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
