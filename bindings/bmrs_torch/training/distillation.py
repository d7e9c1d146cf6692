"""A network as the teacher of another: its answers, beside the labels, are what the other learns."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bmrs_torch.channels.calling import in_mode, tensors_of
from bmrs_torch.operation.arguments import check_model, check_real, described

Loss = Callable[[nn.Module, Any], Tensor]
Compare = Callable[[Tensor, Tensor], Tensor]


class Distillation:
    """Knowledge distillation (Hinton, Vinyals and Dean, 2015): a loss that knows a teacher's answers.

    The loss becomes (1 − w) · loss + w · T² · KL(teacher ‖ student), the divergence between the softmax of
    both logits divided by the temperature T, a mean over all but the axis of the classes.

    Parameters
    ----------
    teacher : nn.Module
        A network that takes what the student takes, such as the network before anything was pruned. It is run
        in evaluation mode, without gradients, and left as it is.
    weight : float
        w, in (0, 1]. By default the labels count as much as the teacher.
    temperature : float
        T, positive: a larger one tells more of the classes that the teacher holds to be unlikely.
    compare : callable, optional
        Instead of that divergence: from the student's and the teacher's answer to a scalar, for networks that
        don't classify: ``torch.nn.functional.mse_loss``.

    Raises
    ------
    ValueError
        For a weight or a temperature out of range.
    TypeError
        For a teacher that is no network, or numbers that are none.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from bmrs_torch import Distillation
    >>> teacher, student = nn.Linear(4, 3), nn.Linear(4, 3)
    >>> def misfit(net, batch):
    ...     return nn.functional.cross_entropy(net(batch[0]), batch[1])
    >>> loss = Distillation(teacher).of(misfit)
    >>> loss(student, (torch.ones(2, 4), torch.tensor([0, 2]))).shape
    torch.Size([])
    """

    def __init__(
        self,
        teacher: nn.Module,
        *,
        weight: float = 0.5,
        temperature: float = 2.0,
        compare: Compare | None = None,
    ) -> None:
        check_model(teacher)
        check_real("weight", weight)
        check_real("temperature", temperature)
        if not 0 < weight <= 1:
            raise ValueError(f"weight must be in (0, 1], got {weight}: the rest is what the labels count")
        if not (math.isfinite(temperature) and temperature > 0):
            raise ValueError(f"temperature must be positive and finite, got {temperature}")
        self.teacher, self.weight, self.temperature = teacher, float(weight), float(temperature)
        self._compare = self._divergence if compare is None else compare

    def of(self, loss: Loss) -> Loss:
        """The loss of a network and a minibatch with the teacher's part added.

        Parameters
        ----------
        loss : callable
            From a network and a minibatch to a scalar. What it gives the network, the teacher is given too.

        Returns
        -------
        callable
            Likewise.
        """

        def taught(student: nn.Module, batch: Any) -> Tensor:
            with _listening(student) as calls:
                misfit = loss(student, batch)
            if not calls:
                raise ValueError(
                    "the loss never called the network that it was given, so that there is no answer to "
                    "compare with the teacher's: call the first argument of loss"
                )
            parts = [self.penalty(output, *args, **kwargs) for args, kwargs, output in calls]
            return (1 - self.weight) * misfit + self.weight * sum(parts[1:], parts[0]) / len(parts)

        return taught

    def penalty(self, output: Any, *args: Any, **kwargs: Any) -> Tensor:
        """How far an answer is from the teacher's, for loops of one's own; without the weight.

        Parameters
        ----------
        output : Tensor, or a container with one
            The student's answer; of several tensors the one called ``logits``, else the first.
        *args, **kwargs
            What the student was called with.

        Returns
        -------
        Tensor, scalar
        """
        with torch.no_grad(), in_mode(self.teacher, training=False):
            told = self.teacher(*args, **kwargs)
        return self._compare(_logits(output), _logits(told))

    def _divergence(self, student: Tensor, teacher: Tensor) -> Tensor:
        if student.shape != teacher.shape:
            raise ValueError(
                f"student and teacher must answer alike, got shapes {tuple(student.shape)} and "
                f"{tuple(teacher.shape)}"
            )
        # Tokens × vocabulary have the classes last, images after the samples.
        axis = -1 if student.ndim in (1, 3) else 1
        if student.shape[axis] < 2:
            raise ValueError(
                f"the divergence is between the probabilities of classes, and axis {axis} of the answers, of "
                f"shape {tuple(student.shape)}, has only one; for a regression give "
                "compare=torch.nn.functional.mse_loss"
            )
        own, told = (F.log_softmax(x.float() / self.temperature, axis) for x in (student, teacher))
        return self.temperature**2 * F.kl_div(own, told, log_target=True, reduction="none").sum(axis).mean()


@contextmanager
def _listening(student: nn.Module) -> Iterator[list[tuple[tuple[Any, ...], dict[str, Any], Any]]]:
    """What a network is called with, and answers, while the block runs."""
    calls: list[tuple[tuple[Any, ...], dict[str, Any], Any]] = []

    def note(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        calls.append((args, kwargs, output))

    handle = student.register_forward_hook(note, with_kwargs=True)
    try:
        yield calls
    finally:
        handle.remove()


def _logits(answer: Any) -> Tensor:
    named = getattr(answer, "logits", None)
    if isinstance(named, Tensor):
        return named
    found = [tensor for tensor in tensors_of(answer) if tensor.is_floating_point()]
    if not found:
        raise TypeError(f"an answer to be compared must hold a tensor of floats, got {described(answer)}")
    return found[0]
