"""BMRS as a rival of others: the one place where this benchmark calls it."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from benchmarks.rivals.errors import PruningError
from benchmarks.rivals.images import Part
from benchmarks.rivals.learning import misfit, train
from bmrs_torch import MultiplicativeNoise, compact, elbo_loss, fold, insert_noise, noise_layers, scores
from bmrs_torch.costs.counting import count_macs

PROCEDURE = (
    "noise and weights together for one of the further epochs (KL ×100, weights at 1e-3, noise at 1e-2), "
    "structures in the order of ΔF per multiply-add of the first of their layer until the budget is met; "
    "then the rest of the further epochs, one cycle of Adam"
)
"""What is done. It is part of the key of each run: whoever changes the one changes the other."""

_KL_WEIGHT, _WEIGHT_LR, _NOISE_LR = 100.0, 1e-3, 1e-2
_EXAMPLES = 4


def smaller(
    model: nn.Module,
    part: Part,
    *,
    macs: float,
    epochs: int,
    lr: float,
    batch: int,
    where: str,
    channels_last: bool,
    teacher: Tensor | None,
) -> nn.Module:
    """Make a trained network smaller, and train it further.

    Parameters
    ----------
    model : nn.Module
        The trained network; it is left as it is.
    part : Part
        The training images.
    macs : float
        The budget: that part of the network's multiply-adds.
    epochs : int
        Of all that is done here together.
    lr : float
        The highest learning rate of the training at the end.
    batch : int
        Images in a minibatch.
    where : str
        As for :func:`insert_noise`.
    channels_last : bool
        Whether it is trained in that format.
    teacher : Tensor, optional
        Logits of the network as it was for each training image, (N, classes), from which it learns, too.

    Returns
    -------
    nn.Module
        The smaller network, in plain layers.

    Raises
    ------
    PruningError
        If the budget can't be met.
    """
    model = copy.deepcopy(model).to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    limit = macs * count_macs(model.eval(), part.images[:1])[""]
    noisy = insert_noise(model, torch.zeros_like(part.images[:2]), where=where)
    _learn(noisy, part, batch, teacher)
    _mask(noisy, part.images[:_EXAMPLES], limit)
    plain = _plain(noisy, part.images[:_EXAMPLES])
    return train(
        plain, part, epochs=epochs - 1, lr=lr, batch=batch, channels_last=channels_last, teacher=teacher
    )


def _learn(noisy: nn.Module, part: Part, batch: int, teacher: Tensor | None) -> None:
    noise = [p for layer in noise_layers(noisy).values() for p in (layer.mu, layer.log_sigma)]
    chosen = {id(p) for p in noise}
    weights = [p for p in noisy.parameters() if id(p) not in chosen]
    groups = [{"params": noise, "lr": _NOISE_LR}, {"params": weights, "lr": _WEIGHT_LR}]
    optimizer = torch.optim.Adam(groups)
    noisy.train()
    for some in torch.randperm(len(part.labels)).split(batch):
        taught = None if teacher is None else teacher[some]
        loss = misfit(noisy(part.images[some]), part.labels[some], taught)
        optimizer.zero_grad()
        elbo_loss(loss, noisy, num_samples=len(part.labels), kl_weight=_KL_WEIGHT).backward()
        optimizer.step()


def _mask(noisy: nn.Module, x: Tensor, limit: float) -> None:
    """Mask structures in the order of evidence per multiply-add, the fewest that meet the budget."""
    layers = noise_layers(noisy)
    evidence = scores(noisy, "bmrs_n")
    whole = _macs(noisy, x)
    order: list[tuple[float, str, int]] = []
    for name, layer in layers.items():
        layer.mask[0] = 0
        saved = max(whole - _macs(noisy, x), 1)
        layer.mask[0] = 1
        lost = [-float(value) for value in evidence[name]]
        order += [(v / saved if v > 0 else v * saved, name, i) for i, v in enumerate(lost)]
    order.sort()
    few, many = 0, len(order)
    while few < many:
        number = (few + many) // 2
        _close(layers, order[:number])
        few, many = (few, number) if _macs(noisy, x) <= limit else (number + 1, many)
    _close(layers, order[:few])
    if _macs(noisy, x) > limit:
        raise PruningError(f"BMRS stops at {_macs(noisy, x)} multiply-adds, the budget is {limit:.0f}")


def _close(layers: dict[str, MultiplicativeNoise], order: list[tuple[float, str, int]]) -> None:
    for layer in layers.values():
        layer.mask.fill_(1)
    for _, name, index in order:
        if layers[name].mask.sum() > 1:
            layers[name].mask[index] = 0


def _macs(noisy: nn.Module, x: Tensor) -> int:
    return count_macs(_plain(noisy, x).eval(), x[:1])[""]


def _plain(noisy: nn.Module, x: Tensor) -> nn.Module:
    return fold(compact(noisy, x), x)
