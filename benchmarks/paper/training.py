"""Training of one network: epochs, what is kept to go on with, how well it does."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.paper.data import Part, Split
from benchmarks.paper.networks import LARGE, build
from bmrs_torch import elbo_loss, noise_layers
from bmrs_torch.operation.divergence import divergence_of

Snapshot = dict[str, Any]
_SMALL_EVALUATION, _LARGE_EVALUATION = 1000, 64


class Training:
    """A network, its optimizer and torch's generator: all that the next epoch depends on.

    Parameters
    ----------
    settings : mapping
        Of the run.
    split : Split
        Its images.
    weights : Path, optional
        A file that a large network starts from.
    """

    def __init__(self, settings: Mapping[str, Any], split: Split, weights: Path | None = None) -> None:
        torch.manual_seed(settings["seed"])
        self.settings, self.split = settings, split
        self.model = build(settings, split.image, split.classes, weights)
        if settings["network"] in LARGE and torch.cuda.is_available():
            self.model.cuda()
        # Of the released code's AdamW for the ViT no weight decay is left to tell it from Adam (App. C).
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=settings["lr"], fused=True)
        self.noisy = settings["method"] != "none"

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next(self.model.parameters()).device

    def epoch(self, number: int = 0, of: int = 1, *, shuffled: bool = True) -> None:
        """Train for one epoch.

        Parameters
        ----------
        number, of : int
            Of a phase of `of` epochs, the one with this number, from 0 on: a rate that falls depends on it.
        shuffled : bool
            Whether the images come in random order.
        """
        batches = self._batches(shuffled)
        objective = self._objective()
        self.model.train()
        for step, chosen in enumerate(batches, number * len(batches)):
            inputs, labels = (t.to(self.device) for t in self.split.train.batch(chosen))
            self._set_rate(step, of * len(batches))
            self.optimizer.zero_grad()
            objective(F.cross_entropy(self.model(inputs), labels)).backward()
            self.optimizer.step()

    def _batches(self, shuffled: bool) -> list[Tensor]:
        """The minibatches of an epoch; a small data set may be gone through several times in one."""
        number, batch = len(self.split.train), self.settings["batch"]
        make = torch.randperm if shuffled else torch.arange
        passes = [make(number).split(batch) for _ in range(self.settings.get("passes", 1))]
        return [chosen for batches in passes for chosen in batches]

    def _set_rate(self, step: int, of: int) -> None:
        """Let the rate rise for the first steps and then fall to 0, where the settings say so."""
        rising = self.settings.get("warm_up_steps")
        if rising is None:
            return
        factor = step / rising if step < rising else (of - step) / max(1, of - rising)
        for group in self.optimizer.param_groups:
            group["lr"] = self.settings["lr"] * factor

    def _objective(self) -> Callable[[Tensor], Tensor]:
        settings, number = self.settings, len(self.split.train)
        if not self.noisy:
            return lambda misfit: misfit
        if settings["decisions"] == "anew":
            return lambda misfit: misfit + settings["kl_weight"] * _with_pruned(self.model).to(misfit.dtype)
        return lambda misfit: elbo_loss(
            misfit,
            self.model,
            num_samples=number,
            kl_scale=settings["kl_scale"],
            kl_weight=settings["kl_weight"],
        )

    def snapshot(self) -> Snapshot:
        """All that the next epoch depends on, to be saved or restored; a copy."""
        return {
            "model": {name: value.clone() for name, value in self.model.state_dict().items()},
            "optimizer": _copied(self.optimizer.state_dict()),
            "generator": torch.get_rng_state(),
            "cuda_generator": torch.cuda.get_rng_state() if self.device.type == "cuda" else None,
        }

    def restore(self, snapshot: Snapshot) -> None:
        """Go back to a snapshot."""
        self.model.load_state_dict(snapshot["model"])
        self.optimizer.load_state_dict(_copied(snapshot["optimizer"]))
        torch.set_rng_state(snapshot["generator"].cpu())
        if self.device.type == "cuda":
            torch.cuda.set_rng_state(snapshot["cuda_generator"].cpu())


def _copied(of: Any) -> Any:
    """A deep copy of a nest of tensors: loading one adopts what it is given, and steps then change it."""
    if isinstance(of, Tensor):
        return of.clone()
    if isinstance(of, dict):
        return {key: _copied(value) for key, value in of.items()}
    return [_copied(value) for value in of] if isinstance(of, list) else of


def _with_pruned(model: nn.Module) -> Tensor:
    """The mean over layers of the mean divergence of all structures, of pruned ones, too: they may return."""
    layers = noise_layers(model)
    parameters = [(n.mu, n.log_sigma, torch.ones_like(n.mask)) for n in layers.values()]
    bounds = [(n.log_a, n.log_b) for n in layers.values()]
    sums = divergence_of(list(layers), parameters, bounds).values
    numbers = torch.tensor([n.num_structures for n in layers.values()], device=sums.device)
    return (sums / numbers).mean()


@torch.no_grad()
def evaluate(model: nn.Module, part: Part) -> dict[str, float]:
    """Top-1 and top-5 accuracy in per cent and mean negative log-likelihood in nats."""
    model.eval()
    right = right5 = misfit = 0.0
    batch = _SMALL_EVALUATION if part.prepare is None else _LARGE_EVALUATION
    device = next(model.parameters()).device
    for start in range(0, len(part), batch):
        inputs, labels = (t.to(device) for t in part.batch(slice(start, start + batch)))
        logits = model(inputs)
        best = logits.topk(min(5, logits.shape[1])).indices == labels[:, None]
        right += float(best[:, 0].sum())
        right5 += float(best.sum())
        misfit += float(F.cross_entropy(logits, labels, reduction="sum"))
    number = len(part)
    return {"accuracy": 100 * right / number, "top5": 100 * right5 / number, "nll": misfit / number}
