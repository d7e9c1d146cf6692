"""A folder that keeps how far a run is, so that one that was cut off goes on."""

from __future__ import annotations

import os
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

__all__ = ["RunFolder"]

_NAME = "run.pt"


class RunFolder:
    """Keeps one state, and what it was made with.

    Parameters
    ----------
    path : str or path-like
        It is made if it doesn't exist.
    settings : mapping of str
        What decides the run, as numbers, text and None: one that was made with others isn't taken up.
    """

    def __init__(self, path: str | os.PathLike[str], settings: Mapping[str, Any]) -> None:
        self._file = Path(path) / _NAME
        self._settings = dict(settings)

    def load(self) -> dict[str, Any] | None:
        """The state that was kept last, None if there is none; random numbers go on as they would have.

        Raises
        ------
        ValueError
            If it was made with other settings, which are named, or can't be read.
        """
        if not self._file.exists():
            return None
        try:
            content = torch.load(self._file, weights_only=True)
            kept, state, numbers = content["settings"], content["state"], content["random"]
        except Exception as error:  # a damaged file may raise anything
            raise ValueError(
                f"{self._file} can't be read as the state of a run ({type(error).__name__}: {error}); remove "
                "it to begin anew"
            ) from error
        different = [
            f"{name}={kept.get(name)!r}, now {self._settings.get(name)!r}"
            for name in sorted(kept.keys() | self._settings.keys())
            if kept.get(name) != self._settings.get(name)
        ]
        if different:
            raise ValueError(
                f"{self._file} holds a run with other settings: {'; '.join(different)}. Give those, or "
                "another folder"
            )
        _set_random_state(numbers)
        return dict(state)

    def save(self, state: Mapping[str, Any]) -> None:
        """Keep a state instead of the last one; a run that is cut off meanwhile leaves the last one."""
        self._file.parent.mkdir(parents=True, exist_ok=True)
        beside = self._file.with_name(f"{_NAME}.{os.getpid()}")
        try:
            torch.save({"settings": self._settings, "state": dict(state), "random": _random_state()}, beside)
            beside.replace(self._file)
        finally:
            beside.unlink(missing_ok=True)


def _random_state() -> dict[str, Any]:
    """Of all generators that a data loader or a layer may draw from."""
    name, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)  # noqa: NPY002 - the global one
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "python": random.getstate(),
        "numpy": (name, torch.from_numpy(np.asarray(keys, dtype=np.int64)), position, has_gauss, gauss),
    }


def _set_random_state(state: Mapping[str, Any]) -> None:
    torch.set_rng_state(state["torch"])
    if torch.cuda.is_available() and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))  # noqa: NPY002 - the global one
