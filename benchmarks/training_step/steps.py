"""One training step of a network: without noise, with the package's, free noise, the naive layer's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.noise.variant import WrongResultError
from benchmarks.training_step.free_layer import free_loss, insert_free_noise
from benchmarks.training_step.insertion import insert_ours
from benchmarks.training_step.naive_layer import insert_naive_noise, naive_loss
from benchmarks.training_step.networks import Network, draw_batch
from bmrs_torch import elbo_loss, parameter_groups

WITHOUT, OURS, FREE, NAIVE = "without noise", "bmrs_torch", "free draws", "naive"
TRAINING_SET = 50_000
LEARNING_RATE = 1e-3

GRAPH = ", graph"
"""What the names of steps that a CUDA graph replays end with."""

WARM_UP = 3
"""Steps before a capture, as torch asks for: they compile, and allocate what stays."""

Loss = Callable[[Tensor, nn.Module], Tensor]


@dataclass(frozen=True)
class Adam:
    """The optimizer's settings, the same for all: torch's defaults unless said otherwise.

    Attributes
    ----------
    fused : bool
        One kernel for all parameters.
    groups : bool
        With the package's noise, weights and noise in groups of their own, as `parameter_groups` makes them
        and the package recommends.
    capturable : bool
        Counting its steps on the device, as a captured graph must.
    """

    fused: bool = False
    groups: bool = True
    capturable: bool = False


class Step:
    """A network that trains on one batch over and over.

    Parameters
    ----------
    model : nn.Module
        With its noise, if it has any.
    loss : callable
        Makes the loss of the mean cross-entropy and the model.
    batch : tuple of Tensor
        Images and labels.
    optimizer : torch.optim.Optimizer
        Of the model's parameters.

    Attributes
    ----------
    kl_is_mean : bool
        Whether the loss has the mean of the KL over structures, not its sum over N.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Loss,
        batch: tuple[Tensor, Tensor],
        optimizer: torch.optim.Optimizer,
    ) -> None:
        self.model, self._loss, self._optimizer = model, loss, optimizer
        self.kl_is_mean = loss is naive_loss
        self._images, self._labels = batch

    def forward(self) -> Tensor:
        """Zero the gradients, compute the loss."""
        self._optimizer.zero_grad()
        nll_mean = functional.cross_entropy(self.model(self._images), self._labels)
        return self._loss(nll_mean, self.model)

    def backward(self, loss: Tensor) -> None:
        """Compute the gradients, update the parameters."""
        loss.backward()
        self._optimizer.step()


class GraphedStep:
    """A step that a CUDA graph replays whole: its `forward` is everything, its `backward` nothing.

    Parameters
    ----------
    step : Step
        On a CUDA device, with an optimizer that is capturable; it trains a few steps on the way.

    Raises
    ------
    WrongResultError
        If the loss of a replay is not finite.
    """

    def __init__(self, step: Step) -> None:
        self.model = step.model
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_UP):
                step.backward(step.forward())
        torch.cuda.current_stream().wait_stream(side)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._loss = step.forward()
            step.backward(self._loss)
        if not bool(self.forward().isfinite()):
            raise WrongResultError("the loss of its captured graph is not finite")

    def forward(self) -> Tensor:
        """Replay the step; the loss that it computed."""
        self._graph.replay()
        return self._loss

    def backward(self, loss: Tensor) -> None:
        """Do nothing: it is done."""


def _ours(nll_mean: Tensor, model: nn.Module) -> Tensor:
    return elbo_loss(nll_mean, model, num_samples=TRAINING_SET, kl_weight=1.0)


VARIANTS: dict[str, tuple[Callable[[nn.Module, Tensor], nn.Module], Loss]] = {
    WITHOUT: (lambda model, _: model, lambda nll_mean, _: nll_mean),
    OURS: (insert_ours, _ours),
    FREE: (insert_free_noise, lambda nll_mean, model: free_loss(nll_mean, model, TRAINING_SET)),
    NAIVE: (insert_naive_noise, naive_loss),
}


def make_step(name: str, network: Network, adam: Adam, seed: int, device: torch.device) -> Step:
    """Make one variant's step; all start from the same weights."""
    insert, loss = VARIANTS[name]
    torch.manual_seed(seed)
    model = insert(network.build(), network.blank_images()).to(device).train()
    groups = parameter_groups(model, LEARNING_RATE) if adam.groups and name == OURS else None
    if adam.groups and name == FREE:
        noise = [p for key, p in model.named_parameters() if key.endswith(("mu", "log_sigma"))]
        weights = [p for p in model.parameters() if all(p is not other for other in noise)]
        groups = [{"params": weights}, {"params": noise, "fused": True}]
    optimizer = torch.optim.Adam(
        groups or model.parameters(), lr=LEARNING_RATE, fused=adam.fused or None, capturable=adam.capturable
    )
    return Step(model, loss, draw_batch(network, seed, device), optimizer)
