"""The objective: negative log-likelihood plus weighted KL divergence of the noise (paper, Eq. 3)."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from bmrs_torch.layer import noise_layers
from bmrs_torch.operation.together import divergence

KlScale = Literal["elbo", "published"]

KL_WEIGHT_WITHOUT_LOSS = 30.0
"""Multiple of the KL of Eq. 3 at which LeNet-5 on Fashion-MNIST lost no accuracy, a sixth of it kept."""

KL_WEIGHT_STRONG = 100.0
"""Multiple of the KL of Eq. 3 for strong compression of small networks, at a price of 2 or 3 points."""


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


def elbo_loss(
    nll_mean: Tensor,
    model: nn.Module,
    *,
    num_samples: int,
    kl_scale: KlScale = "elbo",
    kl_weight: float = 1.0,
) -> Tensor:
    """Loss of one minibatch: mean negative log-likelihood plus the weighted KL divergence of the noise.

    `kl_weight` is *the* dial between accuracy and compression. 1 is the evidence lower bound itself, which
    on small networks prunes next to nothing; 30 (:data:`KL_WEIGHT_WITHOUT_LOSS`) compressed LeNet-5 sixfold
    without loss, 100 (:data:`KL_WEIGHT_STRONG`) presses harder. It works best with the noise learning ten
    times faster than the weights: see :func:`parameter_groups`.

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
        of the mean over their kept structures, whatever N is, as in the authors' code; it weighs a structure
        the more the fewer its layer has.
    kl_weight : float
        Multiple of that term, at least 0.

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
        `nll_mean` that is not a scalar, or a model without noise layers.

    Examples
    --------
    >>> import torch
    >>> from bmrs_torch import MultiplicativeNoise, elbo_loss
    >>> round(elbo_loss(torch.tensor(0.5), MultiplicativeNoise(2), num_samples=100).item(), 4)
    0.6454
    """
    if kl_scale not in ("elbo", "published"):
        raise ValueError(
            f"kl_scale must be 'elbo' (Σ KL / N) or 'published' (mean of means), got {kl_scale!r}"
        )
    if num_samples < 1:
        raise ValueError(f"num_samples must be the size of the training set, at least 1, got {num_samples}")
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
    kl = divergence(noise_layers(model))
    if kl_scale == "elbo":
        return torch.add(nll_mean, kl.total.to(nll_mean.dtype), alpha=kl_weight / num_samples)
    # Of the layers that keep any; counted without looking, which on a GPU would be waiting.
    some = kl.kept > 0
    mean_of_means = torch.where(some, kl.values / kl.kept.clamp_min(1), 0.0).sum() / some.sum()
    return torch.add(nll_mean, mean_of_means.to(nll_mean.dtype), alpha=kl_weight)
