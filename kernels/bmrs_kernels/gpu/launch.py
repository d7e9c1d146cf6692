"""Launches of Triton kernels, which can be recorded instead of made."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

__all__ = ["OPTIONS", "Launch", "launch", "recorded"]

OPTIONS: dict[str, Any] = {"num_warps": 4, "enable_fp_fusion": True}
"""What every kernel is compiled with. Fused multiply-adds are said aloud: Triton's default is changing."""


class Launch(NamedTuple):
    """A kernel, how many programs of it, and what it is called with."""

    kernel: Any
    programs: tuple[int, ...]
    arguments: tuple[Any, ...]
    constants: dict[str, Any]


_recording: list[Launch] | None = None


def launch(kernel: Any, programs: tuple[int, ...], *arguments: Any, **constants: Any) -> None:
    """Queue a kernel on the current device and stream."""
    if _recording is not None:
        _recording.append(Launch(kernel, programs, arguments, constants))
        return
    kernel[programs](*arguments, **constants, **OPTIONS)


@contextmanager
def recorded() -> Iterator[list[Launch]]:
    """Collect the launches of the block and make none of them, so that tensors may be without memory.

    For compiling ahead of time what would be launched; not for several threads at once.
    """
    global _recording  # noqa: PLW0603 the one switch there is, looked at by every launch
    launches: list[Launch] = []
    _recording = launches
    try:
        yield launches
    finally:
        _recording = None
