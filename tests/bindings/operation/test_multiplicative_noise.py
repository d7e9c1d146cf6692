"""The noise operation: its values, its gradients, its randomness, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_args

import numpy as np
import pytest
import torch
from torch import Tensor

from bmrs_core import log_quantile_grad, mean, philox, variance
from bmrs_kernels.contract import Share
from bmrs_torch import multiplicative_noise
from bmrs_torch.operation.multiplicative_noise import draw_seed

SEED = torch.tensor([-1234567890123456789])


def parameters(number: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(number)
    mu = torch.randn(number, generator=generator, dtype=dtype) - 1.0
    log_sigma = torch.randn(number, generator=generator, dtype=dtype) * 0.5 - 0.5
    return mu.requires_grad_(), log_sigma.requires_grad_()


def plain(
    x: Tensor, mu: Tensor, log_sigma: Tensor, axis: int, share: Share, mask: Tensor, seed: int
) -> Tensor:
    """The operation composed of torch functions that autograd differentiates, element by element."""
    axis %= x.ndim
    samples = x.shape[0] if x.ndim > 1 else 1
    view = [-1 if i == axis else 1 for i in range(x.ndim)]
    if share == "element":
        u = torch.from_numpy(philox.uniform(seed, 0, x.numel())).view(x.shape)
    elif share == "sample" and x.ndim > 1:
        u = torch.from_numpy(philox.uniform(seed, 0, samples * len(mu)))
        u = u.view([samples if i == 0 else len(mu) if i == axis else 1 for i in range(x.ndim)])
    else:
        u = torch.from_numpy(philox.uniform(seed, 0, len(mu))).view(view)
    sigma = log_sigma.exp()
    low, high = (torch.special.ndtr((bound - mu) / sigma).view(view) for bound in (-20.0, 0.0))
    normal = torch.special.ndtri(low + u * (high - low))
    theta = (mu.view(view) + sigma.view(view) * normal).exp()
    product: Tensor = x * theta * mask.view(view)
    return product


CASES = [
    ((5, 3), 1, "sample"),
    ((5, 3), -1, "batch"),
    ((5, 3), 0, "batch"),
    ((5, 3), 0, "element"),
    ((4, 3, 2, 5), 1, "sample"),
    ((4, 3, 2, 5), 1, "batch"),
    ((4, 3, 2, 5), -3, "element"),
    ((4, 6, 3), -1, "sample"),
    ((4, 6, 3), 2, "element"),
    ((1, 3), 1, "sample"),
    ((1, 1, 1, 1), 1, "sample"),
    ((4, 1), 1, "sample"),
    ((4, 3, 1, 1), 1, "sample"),
    ((3,), -1, "sample"),
    ((3,), 0, "batch"),
    ((3,), 0, "element"),
]


@pytest.mark.parametrize(("shape", "axis", "share"), CASES)
def test_values_and_gradients_equal_a_plain_composition(
    shape: tuple[int, ...], axis: int, share: Share
) -> None:
    x = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()
    mu, log_sigma = parameters(shape[axis])
    mask = torch.ones(shape[axis], dtype=torch.float64)
    mask[0] = float(shape[axis] == 1)
    options: dict[str, Any] = {"axis": axis, "share": share, "mask": mask, "seed": SEED}
    ours = multiplicative_noise(x, mu, log_sigma, **options)
    theirs = plain(x, mu, log_sigma, axis, share, mask, int(SEED))
    dy = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    gradients = torch.autograd.grad(ours, (x, mu, log_sigma), dy)
    expected = torch.autograd.grad(theirs, (x, mu, log_sigma), dy)
    # The composition loses a few digits where Φ is near 1: 1e-10 leaves room for that.
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(gradients, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("share", get_args(Share))
def test_gradients_equal_finite_differences(share: Share) -> None:
    x = torch.randn(4, 3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(3)).requires_grad_()
    mu, log_sigma = parameters(3)
    mask = torch.tensor([1.0, 0.0, 1.0])

    def with_fixed_noise(x: Tensor, mu: Tensor, log_sigma: Tensor) -> Tensor:
        return multiplicative_noise(x, mu, log_sigma, share=share, mask=mask, seed=SEED)

    assert torch.autograd.gradcheck(with_fixed_noise, (x, mu, log_sigma))


@pytest.mark.parametrize("mu", [-30.0, -19.0, 0.0, 3.0])
@pytest.mark.parametrize("log_sigma", [-10.0, -5.0, 1.0])
def test_gradients_stay_finite_where_training_can_go(mu: float, log_sigma: float) -> None:
    m, s = torch.full((4,), mu, requires_grad=True), torch.full((4,), log_sigma, requires_grad=True)
    x = torch.ones(64, 4, requires_grad=True)
    y = multiplicative_noise(x, m, s, seed=SEED)
    gradients = torch.autograd.grad(y.sum(), (x, m, s))
    assert bool(((y >= 0) & (y <= 1)).all())
    assert all(bool(g.isfinite().all()) for g in gradients)


@pytest.mark.parametrize(
    ("dtype", "relative"),
    # θ to 16 eps of float32 (tests/kernels/test_noise_accuracy.py) and half an eps of the format of x.
    [
        (torch.float32, 17 * 2.0**-23),
        (torch.bfloat16, 2.0**-8),
        (torch.float16, 2.0**-10),
        (torch.float64, 2.0**-52),
    ],
)
def test_every_dtype_rounds_the_same_noise(dtype: torch.dtype, relative: float) -> None:
    x = torch.randn(16, 3, generator=torch.Generator().manual_seed(4)).to(dtype).requires_grad_()
    mu, log_sigma = parameters(3)
    y = multiplicative_noise(x, mu, log_sigma, seed=SEED)
    exact = multiplicative_noise(x.double(), mu, log_sigma, seed=SEED)
    assert y.dtype == dtype
    torch.testing.assert_close(y.double(), exact, rtol=relative, atol=0.0)
    dx, d_mu, _ = torch.autograd.grad(y.sum(), (x, mu, log_sigma))
    assert dx.dtype == dtype
    assert d_mu.dtype == mu.dtype
    expected = torch.autograd.grad(exact.sum(), mu)[0]
    torch.testing.assert_close(d_mu, expected, rtol=1e-6, atol=1e-6)  # sums of 16 products in float32


def test_noise_is_counted_by_sample_and_structure() -> None:
    mu, log_sigma = (p.detach() for p in parameters(3))
    y = multiplicative_noise(torch.ones(4, 3, 2, 2, dtype=torch.float64), mu, log_sigma, seed=SEED)
    u = philox.uniform(int(SEED), 0, 12).reshape(4, 3)
    log_theta = log_quantile_grad(u, mu.numpy(), np.exp(log_sigma.numpy()))[0]
    theta = np.broadcast_to(np.exp(log_theta)[..., None, None], y.shape)
    # The same x = log θ through NumPy's and the kernels' exp, of 1 ulp each, x to 2 of its own (|x| < 2).
    np.testing.assert_array_max_ulp(y.numpy(), theta, 6)


def test_a_sample_has_the_same_noise_in_a_larger_batch() -> None:
    mu, log_sigma = parameters(3)
    x = torch.randn(7, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    whole = multiplicative_noise(x, mu, log_sigma, seed=SEED)
    assert torch.equal(whole[:2], multiplicative_noise(x[:2], mu, log_sigma, seed=SEED))


@pytest.mark.parametrize("share", get_args(Share))
def test_memory_layout_of_x_is_irrelevant(share: Share) -> None:
    x = torch.randn(4, 3, 5, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(6))
    mu, log_sigma = parameters(3)
    strided = x.to(memory_format=torch.channels_last).requires_grad_()
    outcomes = []
    for layout in (x.clone().requires_grad_(), strided):
        y = multiplicative_noise(layout, mu, log_sigma, share=share, seed=SEED)
        outcomes.append((y, *torch.autograd.grad(y.square().sum(), (layout, mu, log_sigma))))
    torch.testing.assert_close(outcomes[0], outcomes[1], rtol=1e-12, atol=1e-12)  # sums in another order


@pytest.mark.parametrize("share", ["sample", "element"])
def test_moments_are_those_of_the_distribution(share: Share) -> None:
    mu, log_sigma = torch.tensor([-1.0, 0.0, -12.0]), torch.tensor([0.0, -2.0, 1.5])
    ones = torch.ones(50_000, 3, dtype=torch.float64)
    y = multiplicative_noise(ones, mu, log_sigma, share=share, seed=SEED)
    expected = mean(mu.double().numpy(), np.exp(log_sigma.double().numpy()))
    spread = np.sqrt(variance(mu.double().numpy(), np.exp(log_sigma.double().numpy())) / len(y))
    assert np.all(np.abs(y.mean(0).numpy() - expected) < 6 * spread)  # six standard errors


def test_manual_seed_generator_and_seed_govern_the_noise() -> None:
    x, (mu, log_sigma) = torch.ones(3, 2), parameters(2)

    def drawn_after(prepare: Callable[[], object]) -> Tensor:
        prepare()
        return multiplicative_noise(x, mu, log_sigma).detach()

    first, second = (drawn_after(lambda: torch.manual_seed(11)) for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(second, drawn_after(lambda: None))
    generators = [torch.Generator().manual_seed(11) for _ in range(2)]
    by_generator = [multiplicative_noise(x, mu, log_sigma, generator=g) for g in generators]
    assert torch.equal(*by_generator)
    assert torch.equal(by_generator[0], first)
    by_seed = multiplicative_noise(x, mu, log_sigma, seed=draw_seed(torch.Generator().manual_seed(11)))
    assert torch.equal(by_seed, first)


def test_only_x_is_saved_at_its_size() -> None:
    x, (mu, log_sigma) = torch.ones(32, 3, 8, 8, requires_grad=True), parameters(3)
    saved: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        saved.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        multiplicative_noise(x, mu, log_sigma, seed=SEED)
    assert [tensor.numel() for tensor in saved if tensor.numel() > 3] == [x.numel()]


@pytest.mark.parametrize("shape", [(0, 3), (0, 3, 2, 2), (4, 3, 0)])
@pytest.mark.parametrize("share", get_args(Share))
def test_empty_inputs_give_empty_outputs_and_zero_gradients(shape: tuple[int, ...], share: Share) -> None:
    x, (mu, log_sigma) = torch.ones(shape, requires_grad=True), parameters(3)
    y = multiplicative_noise(x, mu, log_sigma, share=share, seed=SEED)
    dx, d_mu, d_log_sigma = torch.autograd.grad(y.sum(), (x, mu, log_sigma))
    assert y.shape == dx.shape == shape
    assert not d_mu.any()
    assert not d_log_sigma.any()


def test_a_masked_structure_gives_zero_and_gets_no_gradient() -> None:
    x, (mu, log_sigma) = torch.ones(5, 3, requires_grad=True), parameters(3)
    for mask in (torch.tensor([True, False, True]), torch.tensor([1.0, 0.0, 1.0])):
        y = multiplicative_noise(x, mu, log_sigma, mask=mask, seed=SEED)
        dx, d_mu, d_log_sigma = torch.autograd.grad(y.sum(), (x, mu, log_sigma))
        assert not y[:, 1].any()
        assert not dx[:, 1].any()
        assert d_mu[1] == d_log_sigma[1] == 0
        assert bool((y[:, [0, 2]] > 0).all())


def test_gradients_are_returned_for_what_needs_them_only() -> None:
    x, (mu, log_sigma) = torch.ones(5, 3), parameters(3)
    multiplicative_noise(x, mu, log_sigma.detach(), seed=SEED).sum().backward()
    assert mu.grad is not None
    y = multiplicative_noise(x.requires_grad_(), mu.detach(), log_sigma.detach(), seed=SEED)
    y.sum().backward()
    assert x.grad is not None
    assert not multiplicative_noise(x.detach(), mu.detach(), log_sigma.detach(), seed=SEED).requires_grad


ONES, ZEROS = torch.ones(4, 3), torch.zeros(3)


@pytest.mark.parametrize(
    ("arguments", "options", "kind", "message"),
    [
        ((ONES, torch.zeros(2), torch.zeros(2)), {}, ValueError, "3 structures on axis 1"),
        ((ONES, ZEROS, torch.zeros(2)), {}, ValueError, "vectors of one length"),
        ((ONES, torch.zeros(3, 1), torch.zeros(3, 1)), {}, ValueError, "vectors of one length"),
        ((ONES, torch.zeros(3, dtype=torch.int64), ZEROS), {}, TypeError, "mu must be a floating"),
        ((ONES.int(), ZEROS, ZEROS), {}, TypeError, "float32, float64, bfloat16 or float16"),
        (
            (ONES, torch.tensor([0.0, float("nan"), 0.0]), ZEROS),
            {},
            ValueError,
            "must be finite.*mu=nan.*structure 1",
        ),
        (
            (ONES, ZEROS, torch.tensor([0.0, 0.0, float("inf")])),
            {},
            ValueError,
            "log_sigma=inf at structure 2",
        ),
        ((ONES, ZEROS, torch.full((3,), -800.0)), {}, ValueError, r"log_sigma\| at most 80.*structure 0"),
        ((ONES, ZEROS, ZEROS), {"axis": 2}, ValueError, r"axis must lie in \[-2, 1\]"),
        ((torch.ones(3), ZEROS, ZEROS), {}, ValueError, "axis=-1"),
        ((torch.ones(3, 3), ZEROS, ZEROS), {"axis": 0}, ValueError, "axis 0 of x counts the samples"),
        ((ONES, ZEROS, ZEROS), {"share": "row"}, ValueError, "share must be 'sample'"),
        ((ONES, ZEROS, ZEROS), {"log_a": 1.0}, ValueError, "log_a < log_b"),
        ((ONES, ZEROS, ZEROS), {"log_a": float("-inf")}, ValueError, "finite"),
        ((ONES, ZEROS, ZEROS), {"mask": torch.ones(2)}, ValueError, "mask must hold one entry per structure"),
        ((ONES, ZEROS, ZEROS), {"mask": torch.ones(3, dtype=torch.int64)}, TypeError, "mask must be boolean"),
        ((ONES, ZEROS, ZEROS), {"seed": torch.tensor([1.0])}, TypeError, "int64 tensor of one element"),
        ((ONES, ZEROS, ZEROS), {"seed": 3}, TypeError, "int64 tensor of one element"),
        ((ONES, ZEROS, ZEROS), {"seed": SEED, "generator": torch.Generator()}, ValueError, "not both"),
    ],
)
def test_bad_input_is_refused_with_a_reason(
    arguments: tuple[Tensor, ...], options: dict[str, Any], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        multiplicative_noise(*arguments, **options)
