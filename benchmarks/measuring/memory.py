"""The most memory that a call held at any moment, whoever allocated it: torch, NumPy or compiled code.

On the CPU this is the process's own high-water mark of resident memory, which Linux resets on request. All
free memory is given back first, so that whatever the call touches raises the mark.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.measuring import allocator

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_RESET_HIGH_WATER_MARK = "5"
CPU_RESOLUTION = 2**20
"""Bytes below which the mark says nothing: the interpreter's own comings and goings."""


def peak_bytes(call: Callable[[], Any], device: torch.device) -> tuple[Any, int | None]:
    """Run `call`; return its result and the bytes it held at most beyond what was there, None if unknown."""
    return _on_cuda(call, device) if device.type == "cuda" else _on_cpu(call)


def _on_cuda(call: Callable[[], Any], device: torch.device) -> tuple[Any, int]:
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    result = call()
    torch.cuda.synchronize(device)
    return result, torch.cuda.max_memory_allocated(device) - before


def _on_cpu(call: Callable[[], Any]) -> tuple[Any, int | None]:
    before = None
    if allocator.obeys():
        allocator.give_back()
        with contextlib.suppress(OSError):  # not Linux, or /proc is not ours to write
            _CLEAR.write_text(_RESET_HIGH_WATER_MARK)
            before = _status("VmRSS")
    result = call()
    return result, None if before is None else max(0, _status("VmHWM") - before)


def _status(field: str) -> int:
    """One of the process's own figures, in bytes."""
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith(field))
    return 1024 * int(line.split()[1])
