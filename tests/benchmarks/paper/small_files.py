"""Data sets of a few images, in files of the true format."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.demo.data import FILES

if TYPE_CHECKING:
    from numpy.typing import NDArray


def images(*shape: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def write_idx(folder: Path, *, zipped: bool, sizes: tuple[int, int] = (10, 4)) -> dict[str, NDArray[Any]]:
    """Write images whose brightness tells their class, and the classes, as MNIST's are."""
    folder.mkdir(parents=True)
    written = {}
    for name in FILES:
        number = sizes["t10k" in name]
        labels = np.arange(number) % 10
        pictures = (images(number, 28, 28, seed=number) // 4 + (15 * labels)[:, None, None]).astype(np.uint8)
        values = pictures if "images" in name else labels.astype(np.uint8)
        raw = b"\x00\x00\x08" + bytes([values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape)
        raw += values.tobytes()
        (folder / (name + ".gz" * zipped)).write_bytes(gzip.compress(raw) if zipped else raw)
        written[name] = values
    return written
