"""Images to train on: Fashion-MNIST where it can be found or fetched, else scikit-learn's embedded digits."""

from __future__ import annotations

import gzip
import hashlib
import math
import os
import struct
import urllib.error
import urllib.request
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from numpy.typing import NDArray

IMAGE_SIZE = 28
NUM_CLASSES = 10
DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")
"""Where the Debian and Ubuntu package dataset-fashion-mnist installs its files."""

DIGITS = "digits"
DIGITS_NAME = "scikit-learn's digits"
ADDRESS = "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/"
TIMEOUT_SECONDS = 5.0
FILES = {
    "train-images-idx3-ubyte": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
    "train-labels-idx1-ubyte": "25c81989df183df01b3e8a0aad5dffbe",
    "t10k-images-idx3-ubyte": "bef4ecab320f06d8554ea6380940ec79",
    "t10k-labels-idx1-ubyte": "bb300cfdad3c16e7a12a480ee83cd310",
}
"""IDX files, and the MD5 sums of their gzipped form that the README of Fashion-MNIST states."""


class DataError(ValueError):
    """A data file is missing or isn't what it should be."""


@dataclass(frozen=True)
class ImageData:
    """Images scaled to mean 0 and deviation 1, (N, 1, 28, 28) float32, and their labels, (N,) int64."""

    name: str
    source: str
    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor

    @property
    def place(self) -> str:
        """What :func:`load_images` has to be given to find the same images."""
        return DIGITS if self.name == DIGITS_NAME else self.source


def load_images(place: str | None, *, download_to: Path) -> ImageData:
    """Load Fashion-MNIST from the first place that has it, or the digits.

    The places: `place`; the folder named by the environment variable BMRS_DATA; the Debian package's folder;
    an earlier download; a download. A folder that the user named must have the files.

    Parameters
    ----------
    place : str or None
        A folder with the four IDX files, gzipped or not, of Fashion-MNIST or of MNIST; or ``"digits"``.
    download_to : Path
        Where a download is kept.

    Returns
    -------
    ImageData

    Raises
    ------
    DataError
        If a folder that the user named lacks a file, or a file isn't a proper IDX file.
    """
    named = place or os.environ.get("BMRS_DATA")
    if named == DIGITS:
        return _digits("as asked for")
    if named:
        return _from_folder(Path(named), f"the IDX images in {Path(named).name}")
    for folder in (DEBIAN_FOLDER, download_to):
        if all(_find(folder, name) for name in FILES):
            return _from_folder(folder, "Fashion-MNIST")
    failure = _download(download_to)
    if failure is None:
        return _from_folder(download_to, "Fashion-MNIST")
    return _digits(f"no Fashion-MNIST in {DEBIAN_FOLDER} and {failure}")


def read_idx(path: Path) -> NDArray[np.uint8]:
    """Read an IDX file of unsigned bytes, gzipped or not (the format of MNIST).

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    ndarray of uint8
        Of the shape that the file states.

    Raises
    ------
    DataError
        If it isn't such a file, or has more or fewer bytes than it states.
    """
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{path} is not a whole gzip file: {error}") from error
    if len(raw) < 4 or raw[:3] != b"\x00\x00\x08":
        raise DataError(
            f"{path} is not an IDX file of unsigned bytes: it must begin with 00 00 08, got "
            f"{raw[:3].hex(' ')}"
        )
    start = 4 + 4 * raw[3]
    if len(raw) < start:
        raise DataError(f"{path} ends before it has stated its {raw[3]} dimensions")
    shape = struct.unpack(f">{raw[3]}I", raw[4:start])
    if len(raw) - start != math.prod(shape):
        raise DataError(f"{path} states the shape {shape}, but holds {len(raw) - start} bytes")
    return np.frombuffer(raw, dtype=np.uint8, offset=start).reshape(shape)


def _find(folder: Path, name: str) -> Path | None:
    return next((path for path in (folder / name, folder / f"{name}.gz") if path.is_file()), None)


def _from_folder(folder: Path, name: str) -> ImageData:
    paths = {file: _find(folder, file) for file in FILES}
    missing = [file for file, path in paths.items() if path is None]
    if missing:
        raise DataError(
            f"{folder} must hold {', '.join(FILES)} (or the same with .gz), but lacks {', '.join(missing)}"
        )
    arrays = [read_idx(path) for path in paths.values() if path is not None]
    for images, labels in (arrays[:2], arrays[2:]):
        if (
            images.shape[1:] != (IMAGE_SIZE, IMAGE_SIZE)
            or labels.shape != images.shape[:1]
            or labels.max() > 9
        ):
            raise DataError(
                f"{folder} must hold 28×28 images with one label of 0 to 9 each, got images {images.shape} "
                f"and labels {labels.shape} up to {labels.max()}"
            )
    train_images, train_labels, test_images, test_labels = (torch.from_numpy(a.copy()) for a in arrays)
    return _standardised(
        name, str(folder), train_images.unsqueeze(1), train_labels, test_images.unsqueeze(1), test_labels
    )


def _download(folder: Path) -> str | None:
    """Fetch the four files and check their sums; return why it failed, or None."""
    try:
        for name, checksum in FILES.items():
            with urllib.request.urlopen(f"{ADDRESS}{name}.gz", timeout=TIMEOUT_SECONDS) as answer:
                content = answer.read()
            if hashlib.md5(content, usedforsecurity=False).hexdigest() != checksum:
                return f"the download of {name}.gz is damaged"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{name}.gz").write_bytes(content)
    except (urllib.error.URLError, OSError) as error:
        return f"it can't be downloaded ({getattr(error, 'reason', error)})"
    return None


def _digits(why: str) -> ImageData:
    """scikit-learn's 1,797 digits of 8×8 pixels, every fifth for testing, enlarged to 28×28."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = torch.from_numpy(digits.images).float().unsqueeze(1) * (255.0 / 16.0)
    images = torch.nn.functional.interpolate(images, size=(IMAGE_SIZE, IMAGE_SIZE), mode="bilinear")
    labels = torch.from_numpy(digits.target)
    test = torch.arange(len(labels)) % 5 == 4
    return _standardised(
        DIGITS_NAME,
        f"embedded in the package; {why}",
        images[~test],
        labels[~test],
        images[test],
        labels[test],
    )


def _standardised(
    name: str,
    source: str,
    train_images: Tensor,
    train_labels: Tensor,
    test_images: Tensor,
    test_labels: Tensor,
) -> ImageData:
    mean, deviation = train_images.float().mean(), train_images.float().std()
    train_images, test_images = (
        (images.float() - mean) / deviation for images in (train_images, test_images)
    )
    return ImageData(name, source, train_images, train_labels.long(), test_images, test_labels.long())
