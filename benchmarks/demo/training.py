"""The three phases of the demonstration: a plain baseline, training with noise and pruning, fine-tuning."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.demo.data import ImageData
from benchmarks.demo.network import LeNet5, example_images, lenet_parameters
from bmrs_torch import Pruner, insert_noise, parameter_groups

PHASES = ("baseline", "prune", "finetune", "done")
_EVALUATION_BATCH = 1000
_EXAMPLES_TO_COMPARE = 64


@dataclass(frozen=True)
class DemoSettings:
    """What decides the result: data aside, all of it."""

    epochs: int
    finetune_epochs: int
    batch_size: int = 128
    lr: float = 2e-3
    kl_weight: float = 30.0
    seed: int = 0

    def epochs_of(self, phase: str) -> int:
        """Epochs of a phase; the baseline trains as long as the other two together."""
        return {
            "baseline": self.epochs + self.finetune_epochs,
            "prune": self.epochs,
            "finetune": self.finetune_epochs,
        }[phase]


@dataclass
class EpochRecord:
    """What one epoch led to. `widths` are the structures kept after it."""

    phase: str
    epoch: int
    accuracy: float
    widths: tuple[int, ...]

    @property
    def parameters(self) -> int:
        """Number of weights and biases of the network shrunk to `widths`."""
        return lenet_parameters(self.widths)


@dataclass
class Run:
    """Everything that changes while the demonstration runs."""

    settings: DemoSettings
    model: nn.Module
    optimizer: torch.optim.Optimizer
    pruner: Pruner | None = None
    phase: str = "baseline"
    epoch: int = 0
    baseline: LeNet5 | None = None
    history: list[EpochRecord] = field(default_factory=list)
    pruned_scores: list[float] = field(default_factory=list)
    kept_scores: list[float] = field(default_factory=list)


Report = Callable[[int, int, str], None]
"""Called after each step with the steps done and to do in this epoch, and what to show."""


def start(settings: DemoSettings) -> Run:
    """Set the seed and begin with the baseline."""
    torch.manual_seed(settings.seed)
    model = LeNet5()
    return Run(settings, model, plain_optimizer(model, settings))


def plain_optimizer(model: nn.Module, settings: DemoSettings) -> torch.optim.Optimizer:
    """Adam for a network without noise."""
    return torch.optim.Adam(model.parameters(), lr=settings.lr)


def noisy_network() -> nn.Module:
    """A whole LeNet-5 with noise."""
    return insert_noise(LeNet5(), example_images())


def noise_optimizer(model: nn.Module, settings: DemoSettings) -> torch.optim.Optimizer:
    """Adam for a network with noise, which learns faster than the weights."""
    return torch.optim.Adam(parameter_groups(model, settings.lr))


def make_pruner(
    model: nn.Module, optimizer: torch.optim.Optimizer, settings: DemoSettings, data: ImageData
) -> Pruner:
    """Algorithm 1: after each epoch, take out for good what the evidence speaks against."""
    return Pruner(
        model,
        optimizer,
        num_samples=len(data.train_labels),
        kl_weight=settings.kl_weight,
        shrink=True,
        example_inputs=data.train_images[:_EXAMPLES_TO_COMPARE],
    )


def run_epoch(run: Run, data: ImageData, report: Report) -> EpochRecord:
    """Train for one epoch, prune and shrink in the phase for it, and begin the next phase after the last.

    Parameters
    ----------
    run : Run
        Changed in place.
    data : ImageData
        The images.
    report : callable
        Told about each step.

    Returns
    -------
    EpochRecord
        Also appended to the history.
    """
    _train(run, data, report)
    run.epoch += 1
    if run.phase == "prune":
        _prune(run)
    accuracy = evaluate(run.model, data)
    record = EpochRecord(run.phase, run.epoch, accuracy, widths_of(run.model))
    run.history.append(record)
    while run.phase != "done" and run.epoch >= run.settings.epochs_of(run.phase):
        _next_phase(run, data)
    return record


def _train(run: Run, data: ImageData, report: Report) -> None:
    settings, number = run.settings, len(data.train_labels)
    order = torch.randperm(number)
    steps = math.ceil(number / settings.batch_size)
    run.model.train()
    for step in range(steps):
        chosen = order[step * settings.batch_size : (step + 1) * settings.batch_size]
        if run.phase != "prune":
            _cool(run, (run.epoch + step / steps) / settings.epochs_of(run.phase))
        loss = F.cross_entropy(run.model(data.train_images[chosen]), data.train_labels[chosen])
        report(step + 1, steps, f"cross-entropy {loss.item():.3f}")
        if run.pruner is not None:
            loss = run.pruner.loss(loss)
        run.optimizer.zero_grad()
        loss.backward()
        run.optimizer.step()


def _cool(run: Run, progress: float) -> None:
    """Lower the learning rate along a cosine to 0 at the end of the phase."""
    for group in run.optimizer.param_groups:
        group["lr"] = run.settings.lr * 0.5 * (1.0 + math.cos(math.pi * progress))


def _prune(run: Run) -> None:
    assert run.pruner is not None
    report = run.pruner.end_epoch()
    assert report is not None
    run.kept_scores = [float(s) for layer in report.layers for s in layer.scores[layer.kept]]
    run.pruned_scores += [float(s) for layer in report.layers for s in layer.scores[~layer.kept]]


def _next_phase(run: Run, data: ImageData) -> None:
    finished = run.phase
    run.phase, run.epoch = PHASES[PHASES.index(finished) + 1], 0
    if finished == "baseline":
        assert isinstance(run.model, LeNet5)
        run.baseline = run.model.eval()
        torch.manual_seed(run.settings.seed)
        run.model = noisy_network()
        run.optimizer = noise_optimizer(run.model, run.settings)
        run.pruner = make_pruner(run.model, run.optimizer, run.settings, data)
    elif finished == "prune":
        assert run.pruner is not None
        run.model, run.pruner = run.pruner.finish(), None
        run.optimizer = plain_optimizer(run.model, run.settings)


def widths_of(model: nn.Module) -> tuple[int, ...]:
    """Structures of a LeNet-5, with or without noise."""
    assert isinstance(model, LeNet5)
    return model.widths()


@torch.no_grad()
def evaluate(model: nn.Module, data: ImageData) -> float:
    """Share of the test images that a network gets right."""
    model.eval()
    batches = zip(
        data.test_images.split(_EVALUATION_BATCH), data.test_labels.split(_EVALUATION_BATCH), strict=True
    )
    correct = sum(int((model(images).argmax(1) == labels).sum()) for images, labels in batches)
    return correct / len(data.test_labels)
