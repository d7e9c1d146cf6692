"""The GPU kernels in Triton's interpreter, beyond the contract: the CPU's noise, whatever the tiles.

Run by `test_triton_interpreter`, in a process of its own.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

if os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("runs where TRITON_INTERPRET is 1", allow_module_level=True)

from bmrs_core import kl_divergence_grad, log_mean_grad, mean, philox
from bmrs_kernels.contract import SHARES, NoiseLayout
from bmrs_kernels.gpu import noise as noise_gpu
from bmrs_torch.operation import cpu, cuda
from tests.kernels.gpu.draw_probes import log_probe, word_probe
from tests.kernels.noise_tolerances import tolerances

EPS = 2.0**-23
SEED = torch.tensor([-1234567890123456789])
# Between them: rows and columns, both with and without aligned runs of four, each drawn or not.
SHAPES = [((6, 40), 1), ((5, 10), 1), ((3, 4, 6, 6), 1), ((3, 5, 7, 7), 1), ((2, 30, 12), 2), ((2, 9, 7), 2)]
WALKS = pytest.mark.parametrize(
    ("shape", "axis", "channels_last"),
    [*((shape, axis, False) for shape, axis in SHAPES), ((3, 8, 5, 5), 1, True)],
    ids=str,
)
EVERY_SHARE = pytest.mark.parametrize("share", SHARES)


@pytest.mark.parametrize("first", [0, 40, 2**33 - 8, 2**34 + 4])
@pytest.mark.parametrize(("run", "step"), [(4, 1), (1, 1), (1, 5)])
def test_words_are_those_of_the_cpu_bit_for_bit(first: int, run: int, step: int) -> None:
    rows, columns = 2, 16
    out = torch.empty(rows * columns, dtype=torch.int64)
    word_probe[(1,)](SEED, out, first, step, ROWS=rows, COLUMNS=columns, RUN=run)
    expected = philox.words(int(SEED), first, rows * columns * step)[::step]
    assert np.array_equal(out.numpy(), expected.astype(np.int64))


def test_the_logarithm_of_a_tail_is_within_an_eps() -> None:
    x = torch.exp2(torch.linspace(-34.0, -1.0, 1 << 14))
    out = torch.empty_like(x)
    log_probe[(1,)](x, out, BLOCK=1 << 14)
    # The polynomial is off by 3.7e-8 at most, and no value is below log 2 in magnitude: 0.45 eps.
    assert float((out.double() / x.double().log() - 1).abs().max()) <= EPS


def parameters(count: int) -> tuple[Tensor, Tensor, Tensor]:
    """In all three regimes, some of them pruned."""
    generator = torch.Generator().manual_seed(1)
    mu = torch.randn(count, generator=generator) * 6 - 2
    log_sigma = torch.randn(count, generator=generator) * 2 - 0.5
    mu[1::5], log_sigma[2::7] = 30.0, 5.0
    mask = torch.ones(count)
    mask[3::4] = 0
    return mu, log_sigma, mask


def values(shape: tuple[int, ...], channels_last: bool = False) -> tuple[Tensor, Tensor]:
    x, dy = torch.randn((2, *shape), generator=torch.Generator().manual_seed(2))
    if channels_last:
        x, dy = (each.contiguous(memory_format=torch.channels_last) for each in (x, dy))
    return x, dy


def both_passes(module: Any, x: Tensor, dy: Tensor, layout: NoiseLayout) -> tuple[Tensor, ...]:
    own = parameters(x.shape[layout.axis])
    return module.noise_forward(x, *own, SEED, layout), *module.noise_backward(
        dy, x, *own, SEED, layout, True
    )


@WALKS
@EVERY_SHARE
def test_a_seed_gives_the_noise_that_it_gives_on_the_cpu(
    shape: tuple[int, ...], axis: int, channels_last: bool, share: str
) -> None:
    x, dy = values(shape, channels_last)
    layout = NoiseLayout(axis, share, -20.0, 0.0)
    ours, theirs = (both_passes(module, x, dy, layout) for module in (cuda, cpu))
    mu, log_sigma, mask = parameters(shape[axis])
    bounds = tolerances(x, dy, (mu, log_sigma), mask, SEED, layout)
    for found, expected, bound in zip(ours, theirs, bounds, strict=True):
        # Each is within its bound of the exact result.
        assert bool(((found.double() - expected.double()).abs() <= 2 * bound).all())
    theta = (ours[0].double() / theirs[0].double())[theirs[0] != 0]
    assert float((theta - 1).abs().median()) <= 4 * EPS


@WALKS
@EVERY_SHARE
def test_the_size_of_tiles_changes_no_noise_and_no_sum_beyond_rounding(
    shape: tuple[int, ...], axis: int, channels_last: bool, share: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, dy = values(shape, channels_last)
    layout = NoiseLayout(axis, share, -20.0, 0.0)
    whole = both_passes(cuda, x, dy, layout)
    tiny = noise_gpu.Sizes(
        forward_bytes=256,
        backward_bytes=256,
        elements=128,
        table=64,
        walk=2,
        walk_drawn=2,
        widest=16,
        widest_drawn=16,
    )
    monkeypatch.setattr(noise_gpu, "SIZES", tiny)
    pieces = both_passes(cuda, x, dy, layout)
    assert torch.equal(whole[0], pieces[0])
    assert torch.equal(whole[1], pieces[1])
    for found, expected in zip(pieces[2:], whole[2:], strict=True):
        # The same terms in another order: at most a few hundred, whose rounding errors are eps each.
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))
    again = both_passes(cuda, x, dy, layout)
    assert all(torch.equal(a, b) for a, b in zip(pieces, again, strict=True))


def test_sums_of_many_parts_lose_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """In float32 one after the other, 2,000 terms of 1 after one of 2²⁴ would all be lost."""
    monkeypatch.setattr(noise_gpu, "SIZES", noise_gpu.SIZES._replace(table=64, walk=4))
    sums = torch.ones(2, 2001, 3)
    sums[0, 0] = 2.0**24
    sums[1, 5] = -(2.0**24)
    out = torch.empty(2, 3)
    noise_gpu._add_up(sums, out)
    assert out[0].tolist() == [2.0**24 + 2000] * 3
    assert out[1].tolist() == [-(2.0**24) + 2000] * 3


def test_the_divergence_of_layers_and_its_gradient() -> None:
    generator = torch.Generator().manual_seed(3)
    sizes, bounds = (5, 200, 1), ((-20.0, -10.0, -20.0), (0.0, -1.0, 0.5))
    mu = [torch.rand(size, generator=generator) * 30 - 25 for size in sizes]
    log_sigma = [torch.rand(size, generator=generator) * 10 - 6 for size in sizes]
    mask = [torch.ones(size) for size in sizes]
    mask[1][::3] = 0
    mu[1][3] = torch.nan  # pruned: nobody looks
    found, kept, gradients = cuda.divergence((mu, log_sigma, mask), bounds, True)
    assert kept.tolist() == [int(m.sum()) for m in mask]
    for layer, (by_mu, by_log_sigma) in enumerate(
        zip(gradients[0].split(sizes), gradients[1].split(sizes), strict=True)
    ):
        alive = mask[layer] != 0
        m, sigma = mu[layer][alive].double().numpy(), log_sigma[layer][alive].double().exp().numpy()
        value, d_mu, d_sigma = kl_divergence_grad(m, sigma, log_a=bounds[0][layer], log_b=bounds[1][layer])
        # Measured: 2e-7 of the sum; 2.2 eps of the derivative by mu in units of sigma, 6 eps by log sigma.
        assert abs(float(found[layer]) / value.sum() - 1) <= 16 * EPS
        for ours, exact in (
            (by_mu[alive].numpy() * sigma, d_mu * sigma),
            (by_log_sigma[alive].numpy(), d_sigma * sigma),
        ):
            assert np.max(np.abs(ours - exact) / np.maximum(1.0, np.abs(exact))) <= 16 * EPS
        assert not by_mu[~alive].any()
        assert not by_log_sigma[~alive].any()


@pytest.mark.parametrize(("mu", "log_sigma"), [(torch.nan, 0.0), (0.0, 81.0), (1e6, -40.0)])
def test_the_divergence_of_what_cannot_be_computed_is_nan(mu: float, log_sigma: float) -> None:
    mus, log_sigmas = torch.zeros(2, 3), torch.zeros(2, 3)
    mus[1, 2], log_sigmas[1, 2] = mu, log_sigma
    ones = torch.ones(2, 3)
    values, _, gradients = cuda.divergence(
        (list(mus), list(log_sigmas), list(ones)), ((-20.0,) * 2, (0.0,) * 2), True
    )
    assert values.isnan().tolist() == [False, True]
    assert gradients.isnan().any(0).tolist() == [False] * 5 + [True]


def test_each_layers_gradient_is_weighted_by_its_own() -> None:
    gradients = torch.arange(10.0).view(2, 5)
    found = cuda.weighted(gradients, torch.tensor([2.0, 3.0], dtype=torch.float64), (2, 3))
    assert torch.equal(found, gradients * torch.tensor([2.0, 2.0, 3.0, 3.0, 3.0]))


def test_the_mean_of_the_noise_and_its_gradient() -> None:
    generator = torch.Generator().manual_seed(4)
    mu = torch.rand(300, generator=generator) * 40 - 30
    log_sigma = torch.rand(300, generator=generator) * 20 - 10
    m, sigma = mu.double().numpy(), log_sigma.double().exp().numpy()
    exact = mean(m, sigma)
    found = cuda.noise_mean(mu, log_sigma, -20.0, 0.0, gradients=False)
    # Measured: 1.8e-6, exp and the position of log θ between -20 and 0 included.
    np.testing.assert_allclose(found.numpy(), exact, rtol=32 * EPS)
    _, d_mu, d_sigma = log_mean_grad(m, sigma)
    by_mu, by_log_sigma = cuda.noise_mean(mu, log_sigma, -20.0, 0.0, gradients=True).numpy()
    assert np.max(np.abs(by_mu / exact - d_mu)) <= 32 * EPS
    assert (
        np.max(np.abs(by_log_sigma / exact - d_sigma * sigma) / np.maximum(1.0, np.abs(d_sigma * sigma)))
        <= 32 * EPS
    )


def test_the_mean_of_unusable_parameters_is_nan() -> None:
    mu, log_sigma = torch.tensor([0.0, torch.inf, 0.0]), torch.tensor([0.0, 0.0, torch.nan])
    assert cuda.noise_mean(mu, log_sigma, -20.0, 0.0, gradients=False).isnan().tolist() == [False, True, True]
