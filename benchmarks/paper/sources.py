"""Where the data sets come from: files in the formats in which they are published."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch

from benchmarks.demo.data import DEBIAN_FOLDER, FILES, DataError, read_idx
from benchmarks.paper.data import Images

DATA_VARIABLE = "BMRS_DATA"


def load(dataset: str, folder: Path | None) -> Images:
    """Load a data set.

    Parameters
    ----------
    dataset : str
        ``"fashion_mnist"``, ``"mnist"``.
    folder : Path, optional
        Where its files lie, or a folder of that name in it; by default the folder that BMRS_DATA names.

    Raises
    ------
    DataError
        If it isn't there, with where to put it.
    """
    named = folder or (Path(os.environ[DATA_VARIABLE]) if DATA_VARIABLE in os.environ else None)
    places = [] if named is None else [named / dataset, named]
    if dataset == "fashion_mnist":
        places.append(DEBIAN_FOLDER)
    for place in places:
        if all(_idx(place, name) for name in FILES):
            return _from_idx(place, "Fashion-MNIST" if dataset == "fashion_mnist" else "MNIST")
    raise DataError(
        f"no {dataset} here: put {', '.join(FILES)} (or the same with .gz) into a folder {dataset} in the "
        f"one that --data or {DATA_VARIABLE} names"
    )


def _idx(folder: Path, name: str) -> Path | None:
    return next((path for path in (folder / name, folder / f"{name}.gz") if path.is_file()), None)


def _from_idx(folder: Path, name: str) -> Images:
    parts = [torch.from_numpy(np.array(read_idx(path))) for path in (_idx(folder, n) for n in FILES) if path]
    train_images, train_labels, test_images, test_labels = parts
    return Images(
        name,
        train_images.unsqueeze(1),
        train_labels.long(),
        test_images.unsqueeze(1),
        test_labels.long(),
        int(train_labels.max()) + 1,
    )
