"""Training of one network: epochs, what is kept to go on with, how well it does."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.paper.data import Part, Split
from benchmarks.paper.networks import build
from bmrs_torch import elbo_loss, noise_layers
from bmrs_torch.operation.divergence import divergence_of

Snapshot = dict[str, Any]
_EVALUATION_BATCH = 1000


class Training:
    """A network, its optimizer and torch's generator: all that the next epoch depends on.

    Parameters
    ----------
    settings : mapping
        Of the run.
    split : Split
        Its images.
    """

    def __init__(self, settings: Mapping[str, Any], split: Split) -> None:
        torch.manual_seed(settings["seed"])
        self.settings, self.split = settings, split
        self.model = build(settings, split.image, split.classes)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=settings["lr"], fused=True)
        self.noisy = settings["method"] != "none"

    def epoch(self, *, shuffled: bool = True) -> None:
        """Train for one epoch."""
        part, batch = self.split.train, self.settings["batch"]
        order = torch.randperm(len(part)) if shuffled else torch.arange(len(part))
        objective = self._objective()
        self.model.train()
        for chosen in order.split(batch):
            inputs, labels = part.batch(chosen)
            self.optimizer.zero_grad()
            objective(F.cross_entropy(self.model(inputs), labels)).backward()
            self.optimizer.step()

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
        }

    def restore(self, snapshot: Snapshot) -> None:
        """Go back to a snapshot."""
        self.model.load_state_dict(snapshot["model"])
        self.optimizer.load_state_dict(_copied(snapshot["optimizer"]))
        torch.set_rng_state(snapshot["generator"])


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
    numbers = torch.tensor([n.num_structures for n in layers.values()])
    return (sums / numbers).mean()


@torch.no_grad()
def evaluate(model: nn.Module, part: Part) -> dict[str, float]:
    """Top-1 and top-5 accuracy in per cent and mean negative log-likelihood in nats."""
    model.eval()
    right = right5 = misfit = 0.0
    for start in range(0, len(part), _EVALUATION_BATCH):
        inputs, labels = part.batch(slice(start, start + _EVALUATION_BATCH))
        logits = model(inputs)
        best = logits.topk(min(5, logits.shape[1])).indices == labels[:, None]
        right += float(best[:, 0].sum())
        right5 += float(best.sum())
        misfit += float(F.cross_entropy(logits, labels, reduction="sum"))
    number = len(part)
    return {"accuracy": 100 * right / number, "top5": 100 * right5 / number, "nll": misfit / number}
