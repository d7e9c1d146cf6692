"""The operation y = x·θ of Eq. 1: arguments checked, seed drawn, work handed to an implementation."""

from __future__ import annotations

import torch
from torch import Tensor

from bmrs_kernels.contract import NoiseLayout, Share
from bmrs_torch.distributed.seeds import of_this_rank
from bmrs_torch.operation.checks import (
    check_bounds,
    check_dense,
    check_device,
    check_input,
    check_mask,
    check_parameter_shapes,
    check_seed,
    check_share,
    structure_axis,
)
from bmrs_torch.operation.operators import apply_noise

SEEDS = -(2**63), 2**63 - 1
"""From where to before where seeds lie."""


def multiplicative_noise(
    x: Tensor,
    mu: Tensor,
    log_sigma: Tensor,
    *,
    axis: int = 1,
    share: Share = "sample",
    log_a: float = -20.0,
    log_b: float = 0.0,
    mask: Tensor | None = None,
    seed: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Multiply each structure of `x` by noise θ, log θ ~ N(mu, exp(log_sigma)²) truncated to [log_a, log_b].

    Paper, Eq. 1 and 7. Differentiable once in `x`, `mu` and `log_sigma`.

    Parameters
    ----------
    x : Tensor of float32, float64, bfloat16 or float16
        Activations, with the samples on axis 0 and the structures (neurons, filters) on `axis`. A vector with
        ``axis=-1`` is one sample without a batch axis.
    mu, log_sigma : floating Tensor, shape (structures,)
        Mean and log standard deviation of the normal before truncation, of log θ.
    axis : int
        Axis of the structures; negative counts from the back. By default that of the channels of a
        convolution on a minibatch and of the neurons of a linear layer on vectors.
    share : {"sample", "batch", "element"}
        One θ per sample and structure, shared by all positions (Eq. 1); one per structure; or one per
        element, as in the released code: where that and the paper differ, the paper is the default.
    log_a, log_b : float
        Bounds of log θ, by default those of the paper, from as good as switched off to unchanged.
    mask : bool or floating Tensor, shape (structures,), optional
        Multiplied onto θ: 0 for a pruned structure, else 1. No gradient flows to it.
    seed : int64 Tensor of one element, optional
        The noise is a pure function of it: Philox4x32-10 keyed by the seed and counted by (sample,
        structure), structure or element; the same on every device, up to rounding. By default drawn from
        torch's generator of the device of `x`; rank r of several processes takes what it drew ⊕ r·⌊2⁶⁴/φ⌋, so
        that ranks seeded alike draw different noise.
    generator : torch.Generator, optional
        Where the seed is drawn from; on any device, but one of another device is waited for. It is used as
        it is drawn, on every rank.

    Returns
    -------
    Tensor
        Shape and dtype of `x`. θ is computed in float32, for a float64 `x` in float64.

    Raises
    ------
    ValueError
        For tensors on several devices; for an axis outside `x` or of another length than `mu`; an unknown
        `share`; bounds out of order; a mask of another shape; both a seed and a generator. For parameters
        that are not finite, or a log_sigma beyond ±80 (±700 for float64), on the CPU; on a GPU, which nobody
        waits for, the results of such a structure are NaN.
    TypeError
        For another dtype of `x`, the parameters, the mask or the seed; for a sparse or nested `x`.

    Examples
    --------
    >>> import torch
    >>> from bmrs_torch import multiplicative_noise
    >>> x, mu, log_sigma = torch.ones(3, 2), torch.zeros(2), torch.full((2,), -5.0)
    >>> y = multiplicative_noise(x, mu, log_sigma, seed=torch.tensor([7]))
    >>> bool(((y > 0.95) & (y < 1)).all())
    True
    """
    check_share(share)
    check_bounds(log_a, log_b)
    check_dense(x)
    front = structure_axis(x, axis, share)
    check_parameter_shapes(mu, log_sigma)
    check_input(x, mu, front)
    if mask is None:
        mask = torch.ones_like(mu, requires_grad=False)
    check_mask(mask, mu)
    check_device(x, mu=mu, log_sigma=log_sigma, mask=mask)
    if seed is None:
        seed = draw_seed(generator, x.device)
    elif generator is not None:
        raise ValueError("give a seed or a generator to draw it from, not both")
    check_seed(seed)
    layout = NoiseLayout(front, share, float(log_a), float(log_b))
    return apply_noise(x, mu, log_sigma, mask, seed, layout)


def draw_seed(generator: torch.Generator | None = None, device: torch.device | None = None) -> Tensor:
    """Draw a 64-bit seed from torch's generator, so that torch.manual_seed governs the noise.

    Of a job of several processes, rank r takes the drawn seed ⊕ r·⌊2⁶⁴/φ⌋ (mod 2⁶⁴): ranks that were seeded
    alike, so that their networks begin alike, draw different noise, and the same again when the job is
    started anew with as many ranks. Rank 0, or a process alone, takes it as it is.

    Parameters
    ----------
    generator : torch.Generator, optional
        torch's default generator of the device if left out.
    device : torch.device, optional
        Where the noise is wanted, if no generator says where to draw: a GPU draws its own seed, so that
        nothing is copied or waited for and a captured graph draws anew at each replay. The CPU if left out,
        and for devices other than GPUs.

    Returns
    -------
    Tensor of int64, shape (1,)

    Examples
    --------
    >>> import torch
    >>> from bmrs_torch.operation.multiplicative_noise import draw_seed
    >>> draw_seed(torch.Generator().manual_seed(0)).equal(draw_seed(torch.Generator().manual_seed(0)))
    True
    """
    if generator is not None:
        return torch.randint(*SEEDS, (1,), dtype=torch.int64, device=generator.device, generator=generator)
    if device is None or device.type != "cuda":
        device = torch.device("cpu")
    return of_this_rank(torch.randint(*SEEDS, (1,), dtype=torch.int64, device=device))
