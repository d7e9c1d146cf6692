"""The objective: negative log-likelihood plus weighted KL divergence of the noise (paper, Eq. 3)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor, nn

from bmrs_torch.layer import MultiplicativeNoise, noise_layers
from bmrs_torch.operation.arguments import check_real, check_whole
from bmrs_torch.operation.together import divergence

KlScale = Literal["elbo", "published"]

SAMPLES_PER_KL_WEIGHT = 2000
"""By default the divergence of Eq. 3 counts at least one part in so many beside the mean misfit."""


def kl_divergence(model: nn.Module) -> Tensor:
    """KL divergence of all the noise of a model from its prior, in nats.

    Parameters
    ----------
    model : nn.Module
        A model with :class:`MultiplicativeNoise` layers.

    Returns
    -------
    Tensor of float64, scalar
        Sum over layers and kept structures; a pruned structure adds nothing. Differentiable in `mu` and
        `log_sigma`.

    Raises
    ------
    ValueError
        If the model has no noise layer, or a layer's parameters are not finite (it is named).

    Examples
    --------
    >>> from bmrs_torch import MultiplicativeNoise, kl_divergence
    >>> round(kl_divergence(MultiplicativeNoise(2)).item(), 2)
    14.54
    """
    return divergence(noise_layers(model)).total


def default_kl_weight(num_samples: int, kl_scale: KlScale = "elbo") -> float:
    """Weight of the divergence where none is given: the same in all that takes a `kl_weight`.

    Parameters
    ----------
    num_samples : int
        Size N of the whole training set.
    kl_scale : {"elbo", "published"}
        See :func:`elbo_loss`.

    Returns
    -------
    float
        ``max(1, N / 2000)`` for ``"elbo"``, where the divergence then counts 1/2000 beside the mean misfit,
        or 1/N if that is more; 1 for ``"published"``, as in the authors' code.

    Raises
    ------
    ValueError
        For an unknown `kl_scale` or a number of samples below 1.

    Notes
    -----
    The evidence lower bound itself, a weight of 1, divides the divergence by N: on a large set it prunes
    next to nothing, and one weight for all sets is wrong on some. Of LeNet-5 on Fashion-MNIST (N = 60,000)
    a weight of 30 removed five sixths without loss, and 100 more at a price of 2 or 3 points of accuracy; on
    1,400 images of digits 30 brought the accuracy down to 9.8 %, and 1 left 96 %. In the two that lost
    nothing the divergence counts about the same beside the misfit, 1/2000 and 1/1400. It is a start, not an
    optimum: larger weights compress more.

    Examples
    --------
    >>> from bmrs_torch import default_kl_weight
    >>> default_kl_weight(60_000), default_kl_weight(1400), default_kl_weight(60_000, "published")
    (30.0, 1.0, 1.0)
    """
    _check_scale(num_samples, kl_scale)
    return max(1.0, num_samples / SAMPLES_PER_KL_WEIGHT) if kl_scale == "elbo" else 1.0


def elbo_loss(
    nll_mean: Tensor,
    model: nn.Module,
    *,
    num_samples: int,
    kl_scale: KlScale = "elbo",
    kl_weight: float | None = None,
    num_structures: Mapping[str, int] | None = None,
    layer_weights: Mapping[str, float] | None = None,
) -> Tensor:
    """Loss of one minibatch: mean negative log-likelihood plus the weighted KL divergence of the noise.

    `kl_weight` is *the* dial between accuracy and compression: 1 is the evidence lower bound itself, more
    compresses more. It works best with the noise learning ten times faster than the weights: see
    :func:`parameter_groups`.

    Parameters
    ----------
    nll_mean : Tensor, scalar
        Negative log-likelihood (cross-entropy) of the minibatch, averaged over its samples.
    model : nn.Module
        The model with its noise layers.
    num_samples : int
        Size N of the whole training set, not of the minibatch.
    kl_scale : {"elbo", "published"}
        ``"elbo"``: Σ KL / N, which makes the loss Eq. 3 divided by N. ``"published"``: the mean over layers
        of the mean over all their structures, of which the pruned ones add 0, whatever N is: the objective of
        the published results (Table 1). It weighs a structure the more the fewer its layer has, which the
        default doesn't.
    kl_weight : float, optional
        Multiple of that term, at least 0. By default :func:`default_kl_weight`.
    num_structures : mapping of str to int, optional
        For ``"published"``, the structures of each layer, by its name in the model, as they were before
        :func:`compact` made it smaller. By default those that the layers have now. :class:`Pruner` keeps
        these numbers itself.
    layer_weights : mapping of str to float, optional
        What the divergence of each layer counts beside that of the others, by its name in the model, at least
        0; by default all count 1. :func:`cost_weights` gives those by which what costs more is pressed more.

    Returns
    -------
    Tensor, scalar
        In the dtype of `nll_mean`.

    Raises
    ------
    TypeError
        If `nll_mean` is not a tensor.
    ValueError
        For an unknown `kl_scale`, a number of samples below 1, a negative or non-finite weight, an
        `nll_mean` that is not a scalar, a model without noise layers, a `num_structures` that leaves out
        a layer or names fewer structures than it has, or `layer_weights` that leave one out.

    Notes
    -----
    A mean over the structures that are left would press each of them the harder the fewer there are, until
    one is left. Shrinking a network while it trains does just that unless the numbers from before are given.

    Examples
    --------
    >>> import torch
    >>> from bmrs_torch import MultiplicativeNoise, elbo_loss
    >>> round(elbo_loss(torch.tensor(0.5), MultiplicativeNoise(2), num_samples=100).item(), 4)
    0.6454
    """
    weight = default_kl_weight(num_samples, kl_scale) if kl_weight is None else kl_weight
    _check_scale(num_samples, kl_scale)
    _check_terms(nll_mean, weight)
    layers = noise_layers(model)
    kl = divergence(layers)
    if kl_scale == "elbo" and layer_weights is None:
        return torch.add(nll_mean, kl.total.to(nll_mean.dtype), alpha=weight / num_samples)
    factors = (1.0 / num_samples,) * len(layers)
    if kl_scale == "published":
        counts = _counts(layers, num_structures)
        factors = tuple(1.0 / (len(counts) * count) for count in counts)
    if layer_weights is not None:
        pairs = zip(factors, _weights(layers, layer_weights), strict=True)
        factors = tuple(factor * own for factor, own in pairs)
    # Inside a compiled graph it is a constant anyway.
    on_device = (_as_tensor if torch.compiler.is_compiling() else _kept_on)(factors, kl.values.device)
    return torch.add(nll_mean, (kl.values * on_device).sum().to(nll_mean.dtype), alpha=weight)


def _check_scale(num_samples: int, kl_scale: str) -> None:
    if kl_scale not in ("elbo", "published"):
        raise ValueError(
            f"kl_scale must be 'elbo' (Σ KL / N) or 'published' (mean of means), got {kl_scale!r}"
        )
    check_whole("num_samples", num_samples, "the size of the training set", 1)


def _check_terms(nll_mean: Tensor, kl_weight: float) -> None:
    check_real("kl_weight", kl_weight)
    if not (math.isfinite(kl_weight) and kl_weight >= 0):
        raise ValueError(f"kl_weight must be finite and at least 0, got {kl_weight}")
    if not isinstance(nll_mean, Tensor):
        raise TypeError(
            f"nll_mean must be a tensor, the mean over the minibatch, got {type(nll_mean).__name__}"
        )
    if nll_mean.ndim != 0:
        raise ValueError(
            f"nll_mean must be a scalar, the mean over the minibatch, got shape {tuple(nll_mean.shape)}"
        )


def _counts(layers: Mapping[str, MultiplicativeNoise], before: Mapping[str, int] | None) -> tuple[int, ...]:
    """Structures of each layer, the pruned ones included, and those that surgery has taken out."""
    now = {name: layer.num_structures for name, layer in layers.items()}
    if before is None:
        return tuple(now.values())
    for name, number in now.items():
        if before.get(name, 0) < number:
            raise ValueError(
                f"num_structures must give each layer's structures before it was made smaller, at least the "
                f"{number} that {name!r} has now, got {before.get(name)}: the mean is over all of them"
            )
    return tuple(before[name] for name in now)


def _weights(layers: Mapping[str, MultiplicativeNoise], given: Mapping[str, float]) -> tuple[float, ...]:
    for name in layers:
        value = given.get(name)
        if value is None:
            raise ValueError(
                f"layer_weights must give a weight for every noise layer, and {name!r} has none, got those "
                f"of {', '.join(map(repr, given)) or 'no layer'}"
            )
        check_real(f"layer_weights[{name!r}]", value)
        if not (math.isfinite(value) and value >= 0):
            raise ValueError(f"layer_weights[{name!r}] must be finite and at least 0, got {value}")
    return tuple(float(given[name]) for name in layers)


def _as_tensor(factors: tuple[float, ...], device: torch.device) -> Tensor:
    """What the divergence of each layer is multiplied by."""
    return torch.tensor(factors, dtype=torch.float64, device=device)


@lru_cache(maxsize=64)
def _kept_on(factors: tuple[float, ...], device: torch.device) -> Tensor:
    """The same, copied to the device once: a copy in each step would be waited for."""
    # Were it first asked for in inference, no later step could save it for its backward pass.
    with torch.inference_mode(False):
        return _as_tensor(factors, device)
