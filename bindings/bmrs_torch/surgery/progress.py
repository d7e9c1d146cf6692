"""A bar that shows how far a long search is, where tqdm is installed."""

from __future__ import annotations

import importlib
from types import TracebackType
from typing import Any

__all__ = ["Progress"]

_SECONDS = 2.0
"""What takes less shows nothing."""


class Progress:
    """A bar on the terminal.

    Parameters
    ----------
    number : int
        Of parts that will be done.
    what : str
        What is done, in a word or two.
    """

    def __init__(self, number: int, what: str) -> None:
        self._bar: Any = None
        try:
            tqdm = importlib.import_module("tqdm").tqdm
        except ImportError:
            return
        # None: only on a terminal.
        self._bar = tqdm(total=number, desc=what, delay=_SECONDS, disable=None, leave=False)

    def advance(self, number: int) -> None:
        """Tell that so many parts are done."""
        if self._bar is not None:
            self._bar.update(number)

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()
