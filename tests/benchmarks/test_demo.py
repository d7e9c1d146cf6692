"""The demonstration, on the digits: it walks the whole path, and goes on after an interruption."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.demo import __main__ as demo
from benchmarks.demo import training
from benchmarks.demo.checkpoint import ResumeError, load_checkpoint
from benchmarks.demo.data import load_images
from benchmarks.demo.network import FULL_WIDTHS, LeNet5, lenet_parameters, load_network
from benchmarks.demo.training import EpochRecord, Run, evaluate, run_epoch
from bmrs_torch import Pruner, save_pruned

QUICK = ["--data", "digits", "--epochs", "2", "--finetune-epochs", "1"]


@pytest.fixture(scope="module", autouse=True)
def pruning_from_the_first_epoch() -> Iterator[None]:
    """Prune a fixed share: the evidence needs more epochs than a test should take."""
    with pytest.MonkeyPatch.context() as patch:

        def by_amount(*arguments: Any, **options: Any) -> Pruner:
            return Pruner(*arguments, **options, criterion="l2", amount=0.3)

        patch.setattr(training, "Pruner", by_amount)
        patch.setattr(demo, "SECONDS", 0.05)
        yield


def run_quickly(out: Path, *more: str) -> int:
    return demo.main([*QUICK, "--out", str(out), *more])


def size_of(network: LeNet5) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def shrunk(out: Path) -> LeNet5:
    return load_network(out / "lenet5-shrunk.safetensors")


@pytest.fixture(scope="module")
def output() -> io.StringIO:
    return io.StringIO()


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, output: io.StringIO) -> Path:
    out = tmp_path_factory.mktemp("demo")
    with contextlib.redirect_stdout(output):
        assert run_quickly(out) == 0
    return out


def test_it_leaves_a_smaller_network_that_works_and_a_figure(finished: Path) -> None:
    network = shrunk(finished)
    assert size_of(network) == lenet_parameters(network.widths()) < lenet_parameters(FULL_WIDTHS)
    assert evaluate(network, load_images("digits", download_to=finished)) > 0.2  # guessing reaches 0.1
    assert (finished / "demo.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.usefixtures("finished")
@pytest.mark.parametrize(
    "words",
    [
        "scikit-learn's digits",
        "parameters",
        "multiply-accumulates",
        "file, kB",
        "test accuracy",
        "conv1",
        "the same.",
    ],
)
def test_it_prints_its_tables_and_its_verdict(output: io.StringIO, words: str) -> None:
    assert words in output.getvalue()


class Interruption:
    """Stands for the user's Ctrl-C in one epoch."""

    def __init__(self, phase: str, epoch: int) -> None:
        self.moment = (phase, epoch)

    def __call__(self, run: Run, *arguments: Any) -> EpochRecord:
        if (run.phase, run.epoch) == self.moment:
            torch.rand(3)  # random numbers that the lost part of the epoch used up
            raise KeyboardInterrupt
        return run_epoch(run, *arguments)


def test_an_interrupted_run_ends_as_an_uninterrupted_one(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    resume: tuple[str, ...] = ()
    for phase, epoch in (("baseline", 1), ("prune", 1), ("finetune", 0)):
        monkeypatch.setattr(demo, "run_epoch", Interruption(phase, epoch))
        assert run_quickly(tmp_path, *resume) == 130
        assert "python -m benchmarks.demo --resume --out" in capsys.readouterr().out
        resume = ("--resume",)
    monkeypatch.setattr(demo, "run_epoch", run_epoch)
    assert run_quickly(tmp_path, *resume) == 0
    expected, resumed = shrunk(finished).state_dict(), shrunk(tmp_path).state_dict()
    assert all(torch.equal(expected[name], value) for name, value in resumed.items())


def test_resuming_nothing_or_other_data_is_refused(finished: Path, tmp_path: Path) -> None:
    digits = load_images("digits", download_to=tmp_path)
    with pytest.raises(ResumeError, match="no checkpoint"):
        load_checkpoint(tmp_path / "checkpoint.pt", digits)
    with pytest.raises(ResumeError, match="begun on scikit-learn's digits"):
        load_checkpoint(finished / "checkpoint.pt", replace(digits, name="Fashion-MNIST"))
    assert run_quickly(tmp_path, "--resume") == 2


@pytest.mark.parametrize("option", [["--epochs", "0"], ["--finetune-epochs", "-1"]])
def test_impossible_numbers_of_epochs_are_refused(option: list[str]) -> None:
    with pytest.raises(SystemExit):
        demo.main(option)


@pytest.mark.parametrize("widths", [FULL_WIDTHS, (1, 1, 1, 1), (3, 2, 5, 4)])
def test_sizes_are_counted_rightly(widths: tuple[int, ...]) -> None:
    network = LeNet5(widths)
    assert network.widths() == widths
    assert size_of(network) == lenet_parameters(widths)


def test_a_saved_network_answers_as_before(tmp_path: Path) -> None:
    network, images = LeNet5((3, 2, 5, 4)).eval(), torch.randn(2, 1, 28, 28)
    save_pruned(network, tmp_path / "network.safetensors")
    assert torch.equal(load_network(tmp_path / "network.safetensors")(images), network(images))


def test_images_are_found_again_by_their_place(tmp_path: Path) -> None:
    digits = load_images("digits", download_to=tmp_path)
    again = load_images(digits.place, download_to=tmp_path)
    assert torch.equal(digits.test_images, again.test_images)


def test_the_network_is_tested_again_on_the_data_it_was_trained_on(
    finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digits = load_images("digits", download_to=finished)
    # What would be looked through, were the place not told.
    monkeypatch.setenv("BMRS_DATA", str(finished))
    right = demo._reload(finished / "lenet5-shrunk.safetensors", digits)
    assert right == round(evaluate(shrunk(finished), digits) * len(digits.test_labels))
