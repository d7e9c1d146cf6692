"""Run a plan's tasks, on threads where there are several and it pays.

Numba's own threading layers die on fork (omp) or abort under concurrent Python threads (workqueue), and
data loaders do both. Here the kernels are serial, release the interpreter lock, and run on a plain pool of
threads that is made when first needed and forgotten in a forked child.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait

__all__ = ["run_tasks"]

_lock = threading.Lock()
_pools: dict[tuple[int, int], ThreadPoolExecutor] = {}


def _pool(threads: int) -> ThreadPoolExecutor:
    key = (os.getpid(), threads)
    with _lock:
        if key not in _pools:
            _pools[key] = ThreadPoolExecutor(threads, thread_name_prefix="bmrs_kernels")
        return _pools[key]


if hasattr(os, "register_at_fork"):
    # Another thread may hold the lock at the moment of a fork, and would never give it back in the child.
    os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release)


def run_tasks(task: Callable[[int], int], count: int, threads: int) -> int:
    """Run ``task(0), …, task(count - 1)`` on at most `threads` threads, the caller's included.

    Returns
    -------
    int
        The first non-negative result by task number, or -1: no task failed.
    """
    helpers = min(threads, count) - 1
    pool = _pool(threads)
    share = helpers + 1
    futures = [pool.submit(_stride, task, i, count, share) for i in range(1, share)]
    try:
        own = _stride(task, 0, count, share)
    finally:
        wait(futures)  # an interrupted caller frees the memory that they write to
    results = [own, *(future.result() for future in futures)]
    failed = [result for result in results if result >= 0]
    return min(failed) if failed else -1


def _stride(task: Callable[[int], int], first: int, count: int, step: int) -> int:
    worst = -1
    for i in range(first, count, step):
        result = task(i)
        if result >= 0 and worst < 0:
            worst = result
    return worst
