"""Whether freed memory is kept or given back to the system: on the CPU it can cost more than a kernel.

A page that comes from the system is cleared and mapped when it is first touched. For a fresh output of 25 MB
that takes several times as long as the arithmetic that fills it, and glibc asks the system anew for every
block above 32 MiB, for smaller ones by its history. So both ends are measured: "kept", where no memory goes
back to the system, and "fresh", where all free memory goes back before each call.

NumPy asks the system for huge pages under its large arrays. What is freed and kept stays so marked, and who
gets it next would have a 30th of the page faults; so NumPy is told not to, for as long as memory is kept.
"""

from __future__ import annotations

import contextlib
import ctypes
import platform
from collections.abc import Iterator

from numpy._core import multiarray

# <malloc.h>
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
_GLIBC_TRIM_THRESHOLD, _GLIBC_MMAP_MAX = 128 * 1024, 65536
_NEVER = 2**31 - 1


def obeys() -> bool:
    """Whether the allocator can be told what to do with freed memory: it can on glibc."""
    return platform.libc_ver()[0] == "glibc" and hasattr(ctypes.CDLL(None), "mallopt")


def give_back() -> None:
    """Give all free memory back to the system; its pages are fresh when next used."""
    ctypes.CDLL(None).malloc_trim(0)


@contextlib.contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Keep what is freed, and take large blocks from it, until the end of the block."""
    if not obeys():
        yield
        return
    libc = ctypes.CDLL(None)
    libc.mallopt(_M_MMAP_MAX, 0)
    libc.mallopt(_M_TRIM_THRESHOLD, _NEVER)
    asked = _numpy_asks_for_huge_pages(False)
    try:
        yield
    finally:
        libc.mallopt(_M_MMAP_MAX, _GLIBC_MMAP_MAX)
        libc.mallopt(_M_TRIM_THRESHOLD, _GLIBC_TRIM_THRESHOLD)
        give_back()
        _numpy_asks_for_huge_pages(asked)


def _numpy_asks_for_huge_pages(wanted: bool) -> bool:
    """Set it, return what it was. NumPy's public switch is an environment variable, read at import only."""
    switch = getattr(multiarray, "_set_madvise_hugepage", None)
    return wanted if switch is None else bool(switch(wanted))


def page_faults() -> int:
    """Pages that this process was given so far; 0 where the system does not tell."""
    try:
        import resource
    except ImportError:  # Windows
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
