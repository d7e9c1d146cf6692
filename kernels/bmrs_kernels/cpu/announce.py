"""Say so when a kernel is being compiled and the user waits for it."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from bmrs_core.backends.disk_cache import is_kept

__all__ = ["announcing"]

PATIENCE = 1.0
"""Seconds after which a compilation is announced."""


@contextmanager
def announcing(what: str) -> Iterator[None]:
    """Write a line to standard error if the block takes longer than `PATIENCE`."""
    timer = threading.Timer(PATIENCE, _announce, (what,))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _announce(what: str) -> None:
    once = ", once: the result is kept in Numba's disk cache" if is_kept() else ""
    sys.stderr.write(f"bmrs_kernels: compiling {what} for this CPU{once}\n")
