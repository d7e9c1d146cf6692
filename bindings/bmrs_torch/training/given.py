"""What `prune_trained` is given: refused before any step where it can't be worked with."""

from __future__ import annotations

import copy
import math
from typing import Any

from torch import nn

from bmrs_torch.insertion import insert_noise
from bmrs_torch.layer import MultiplicativeNoise
from bmrs_torch.operation.arguments import check_model, check_real, check_whole, described
from bmrs_torch.surgery.compact import compact
from bmrs_torch.surgery.fold import fold
from bmrs_torch.training.batches import Batches
from bmrs_torch.training.checks import check_example
from bmrs_torch.training.distillation import Distillation

__all__ = ["check_arguments", "check_numbers", "inputs_of", "number_of_samples", "with_noise"]


def check_arguments(
    model: object, batches: object, loss: object, teacher: object, optimizer: object, **of_validation: object
) -> None:
    """Raise TypeError or ValueError for what :func:`prune_trained` can't work with."""
    check_model(model)
    if not (hasattr(batches, "__iter__") or hasattr(batches, "__getitem__")):
        raise TypeError(
            f"batches must be minibatches to go through, such as a DataLoader, got {batches!r:.80}"
        )
    if not hasattr(batches, "__len__"):
        raise TypeError(
            "batches must have a length, by which the learning rate is scheduled, and be gone through as "
            f"often as there are epochs, such as a DataLoader or a list, got a {type(batches).__name__}"
        )
    if not callable(loss) or isinstance(loss, nn.modules.loss._Loss):
        raise TypeError(
            "loss must be a function of a network and a minibatch, such as lambda model, batch: "
            f"cross_entropy(model(batch[0]), batch[1]), got {loss!r:.80}"
        )
    if not isinstance(teacher, (bool, nn.Module, Distillation)):
        raise TypeError(
            "teacher must be True (the network given, as it was), a network, a Distillation or False, got "
            f"{described(teacher)}"
        )
    if optimizer is not None and not callable(optimizer):
        raise TypeError(
            "optimizer must be a function that makes one of the parameters of the smaller network, such as "
            f"lambda p: SGD(p, 0.1), got {described(optimizer)}: those of the network given aren't its"
        )
    validate, patience = of_validation["validate"], of_validation["patience"]
    if validate is not None and not callable(validate):
        raise TypeError(f"validate must be a function of a network, got {described(validate)}")
    if patience is not None:
        check_whole("patience", patience, "a number of epochs", 1)
        if validate is None:
            raise ValueError(
                "patience waits for a better network, and needs validate to tell which is better"
            )


def check_numbers(steps: int | None, epochs: float | None, lr: float | None, noise_lr: float | None) -> None:
    """Raise TypeError or ValueError for numbers out of range or of another kind."""
    if steps is not None:
        check_whole("steps", steps, "the number of steps", 1)
    for name, value in (("epochs", epochs), ("lr", lr), ("noise_lr", noise_lr)):
        if value is not None:
            check_real(name, value)
            if not (math.isfinite(value) and (value > 0 or (name == "epochs" and value == 0))):
                least = "at least 0" if name == "epochs" else "positive"
                raise ValueError(f"{name} must be {least} and finite, got {value}")


def number_of_samples(batches: Batches) -> int:
    """Size of the data set that minibatches come from."""
    dataset = getattr(batches, "dataset", None)
    try:
        return len(dataset)  # type: ignore[arg-type]
    except TypeError as error:
        raise ValueError(
            "num_samples, the size of the training set, must be given: batches is no DataLoader of a data "
            f"set with a length, but a {type(batches).__name__}"
        ) from error


def with_noise(model: nn.Module, example_inputs: Any) -> nn.Module:
    """A copy with noise; what can't be folded is said before any step."""
    noisy = copy.deepcopy(model)
    if not any(isinstance(module, MultiplicativeNoise) for module in noisy.modules()):
        return insert_noise(noisy, example_inputs)
    fold(compact(noisy, example_inputs), example_inputs)
    return noisy


def inputs_of(model: nn.Module, batch: Any, given: Any) -> Any:
    """What the network takes: what was given, else what the first minibatch holds."""
    if given is not None:
        check_example(model, given)
        return given
    inputs = batch[0] if isinstance(batch, (tuple, list)) and batch else batch
    try:
        check_example(model, inputs)
    except ValueError as error:
        raise ValueError(
            "the first minibatch doesn't say what the network takes (its first element, or the whole of "
            f"it, is tried): give example_inputs=. {error}"
        ) from error
    return inputs
