"""Where the demonstration finds its images, and what it says of files that aren't what they should be."""

from __future__ import annotations

import gzip
import io
import struct
import urllib.error
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.demo import data
from benchmarks.demo.data import DataError, load_images, read_idx


def idx(values: np.ndarray) -> bytes:
    return struct.pack(f">4B{values.ndim}I", 0, 0, 8, values.ndim, *values.shape) + values.tobytes()


def write_set(folder: Path, *, zipped: bool, number: int = 12) -> Path:
    generator = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    for name in data.FILES:
        shape = (number, 28, 28) if "images" in name else (number,)
        content = idx(generator.integers(0, 256 if "images" in name else 10, shape, dtype=np.uint8))
        path = folder / (f"{name}.gz" if zipped else name)
        path.write_bytes(gzip.compress(content) if zipped else content)
    return folder


@pytest.fixture(autouse=True)
def nothing_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("BMRS_DATA", raising=False)
    monkeypatch.setattr(data, "DEBIAN_FOLDER", tmp_path / "not-installed")

    def no_network(*_: Any, **__: Any) -> Any:
        raise urllib.error.URLError("no network")

    monkeypatch.setattr("urllib.request.urlopen", no_network)


@pytest.mark.parametrize("shape", [(5,), (3, 4), (2, 3, 4)])
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_idx_files_are_read_as_written(tmp_path: Path, shape: tuple[int, ...], suffix: str) -> None:
    values = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    path = tmp_path / f"file{suffix}"
    path.write_bytes(gzip.compress(idx(values)) if suffix else idx(values))
    assert np.array_equal(read_idx(path), values)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a", b"", "must begin with 00 00 08, got"),
        ("a", b"\x00\x00\x0d\x01\x00\x00\x00\x00", "got 00 00 0d"),
        ("a", idx(np.zeros((2, 3), np.uint8))[:-1], r"states the shape \(2, 3\), but holds 5 bytes"),
        ("a", idx(np.zeros((2, 3), np.uint8))[:9], "ends before it has stated its 2 dim"),
        ("a.gz", b"not gzip", "not a whole gzip file"),
        ("a.gz", gzip.compress(idx(np.zeros(300, np.uint8)))[:-12], "not a whole gzip file"),
    ],
)
def test_damaged_files_are_errors_that_name_them(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=f"{name}.*{message}"):
        read_idx(tmp_path / name)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_named_folder_is_used(tmp_path: Path, zipped: bool) -> None:
    folder = write_set(tmp_path / "mine", zipped=zipped)
    images = load_images(str(folder), download_to=tmp_path / "download")
    assert images.source == str(folder)
    assert images.train_images.shape == (12, 1, 28, 28)
    assert abs(float(images.train_images.mean())) < 1e-5  # float32 mean of 9,408 values of size 1
    assert images.train_labels.shape == (12,)


def test_the_environment_names_a_folder_and_the_argument_overrides_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = write_set(tmp_path / "first", zipped=True), write_set(tmp_path / "second", zipped=True)
    monkeypatch.setenv("BMRS_DATA", str(first))
    assert load_images(None, download_to=tmp_path).source == str(first)
    assert load_images(str(second), download_to=tmp_path).source == str(second)


def test_the_package_of_the_system_comes_before_an_earlier_download(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    download = write_set(tmp_path / "download", zipped=True)
    assert load_images(None, download_to=download).source == str(download)
    installed = write_set(tmp_path / "installed", zipped=True)
    monkeypatch.setattr(data, "DEBIAN_FOLDER", installed)
    assert load_images(None, download_to=download).source == str(installed)


def test_a_named_folder_without_the_files_is_an_error(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "mine", zipped=True)
    (folder / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(DataError, match=r"lacks t10k-labels-idx1-ubyte"):
        load_images(str(folder), download_to=tmp_path)


def test_images_of_another_size_are_an_error(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "mine", zipped=False)
    (folder / "train-images-idx3-ubyte").write_bytes(idx(np.zeros((12, 32, 32), np.uint8)))
    with pytest.raises(DataError, match=r"must hold 28×28 images"):
        load_images(str(folder), download_to=tmp_path)


def test_without_data_and_network_the_digits_are_used_and_it_is_said_why(tmp_path: Path) -> None:
    images = load_images(None, download_to=tmp_path / "download")
    assert images.name == "scikit-learn's digits"
    assert "no network" in images.source
    assert len(images.train_labels) + len(images.test_labels) == 1797
    assert images.test_images.shape[1:] == (1, 28, 28)


def test_a_damaged_download_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("urllib.request.urlopen", lambda *_, **__: io.BytesIO(b"<html>"))
    images = load_images(None, download_to=tmp_path / "download")
    assert images.name == "scikit-learn's digits"
    assert "damaged" in images.source


def test_a_whole_download_is_used_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import hashlib

    origin, kept = write_set(tmp_path / "origin", zipped=True), tmp_path / "kept"
    sums = {name: hashlib.md5((origin / f"{name}.gz").read_bytes()).hexdigest() for name in data.FILES}
    monkeypatch.setattr(data, "FILES", sums)
    monkeypatch.setattr(
        "urllib.request.urlopen", lambda address, **_: io.BytesIO((origin / Path(address).name).read_bytes())
    )
    assert load_images(None, download_to=kept).name == "Fashion-MNIST"
    assert all((kept / f"{name}.gz").is_file() for name in data.FILES)
