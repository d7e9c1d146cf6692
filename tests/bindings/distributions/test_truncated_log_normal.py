"""TruncatedLogNormal as one of torch's distributions, against finite differences, bmrs_core and a normal."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck
from torch.distributions import Normal, kl_divergence

import bmrs_core
from bmrs_torch import LogUniform, TruncatedLogNormal

F64 = torch.float64

# Inside, beyond either bound, short in σ and narrow.
LOC = (-3.0, -25.5, 1.25, -10.0, -19.5)
SCALE = (0.25, 2.0, 0.5, 64.0, 0.0625)


def parameters(dtype: torch.dtype = F64) -> tuple[Tensor, Tensor]:
    return tuple(torch.tensor(column, dtype=dtype, requires_grad=True) for column in (LOC, SCALE))  # type: ignore[return-value]


def distribution(dtype: torch.dtype = F64) -> TruncatedLogNormal:
    loc, scale = parameters(dtype)
    return TruncatedLogNormal(loc.detach(), scale.detach())


def values(dtype: torch.dtype = F64) -> Tensor:
    return distribution(dtype).icdf(torch.tensor([0.25, 0.5, 0.75, 0.125, 0.875], dtype=dtype))


@pytest.mark.parametrize(
    "function",
    [
        lambda q, theta: q.log_prob(theta),
        lambda q, theta: q.cdf(theta),
        lambda q, _: q.mean,
        lambda q, _: q.stddev,
        lambda q, _: q.entropy(),
        lambda q, _: q.mode,
        lambda q, _: kl_divergence(q, LogUniform(torch.tensor(-21.0, dtype=F64), 0.5)),
    ],
    ids="log_prob cdf mean stddev entropy mode kl".split(),
)
def test_gradients_are_those_of_finite_differences(function: Callable[..., Tensor]) -> None:
    # θ and the results in units of their own size, so that one step and one tolerance fit all.
    exact = values()
    loc, scale = parameters()
    size = function(TruncatedLogNormal(loc, scale), exact).detach().abs()

    def call(loc: Tensor, scale: Tensor, factor: Tensor) -> Tensor:
        return function(TruncatedLogNormal(loc, scale), exact * factor) / size

    factor = torch.ones(len(LOC), dtype=F64, requires_grad=True)
    assert gradcheck(call, (loc, scale, factor), eps=1e-6, atol=1e-5, rtol=1e-4)


def test_gradients_of_the_quantile_are_those_of_finite_differences() -> None:
    u = torch.tensor([0.25, 0.5, 0.75, 0.125, 0.875], dtype=F64, requires_grad=True)
    assert gradcheck(
        lambda loc, scale, u: TruncatedLogNormal(loc, scale).icdf(u).log(), (*parameters(), u), atol=1e-5
    )


def test_draws_have_the_gradient_of_the_quantile() -> None:
    loc, scale = parameters()
    q = TruncatedLogNormal(loc, scale)
    torch.manual_seed(3)
    theta = q.rsample((1000,))
    theta.sum().backward()
    assert loc.grad is not None
    assert scale.grad is not None
    u = q.cdf(theta.detach()).detach().numpy()
    x, d_mu, d_sigma = bmrs_core.log_quantile_grad(u, loc.detach().numpy(), scale.detach().numpy())
    weights = torch.from_numpy(x).exp()
    assert torch.allclose(loc.grad, (weights * torch.from_numpy(d_mu)).sum(0), rtol=1e-6)
    assert torch.allclose(scale.grad, (weights * torch.from_numpy(d_sigma)).sum(0), rtol=1e-6)


def test_draws_have_the_mean_and_variance_of_the_distribution() -> None:
    q = distribution()
    torch.manual_seed(1)
    theta = q.sample((20_000,))
    assert not theta.requires_grad
    # Five standard errors of a mean; of a variance, with kurtosis unknown, a tenth.
    assert ((theta.mean(0) - q.mean).abs() <= 5 * q.stddev / math.sqrt(20_000)).all()
    assert torch.allclose(theta[:, [0, 2, 3]].var(0), q.variance[[0, 2, 3]], rtol=0.1)


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_values_are_those_of_bmrs_core_in_the_dtype_of_the_parameters(dtype: torch.dtype) -> None:
    q, theta = distribution(dtype), values(dtype)
    arguments = (q.loc, q.scale)
    pairs = {
        "log_prob": (q.log_prob(theta), bmrs_core.logpdf(theta, *arguments)),
        "cdf": (q.cdf(theta), bmrs_core.cdf(theta, *arguments)),
        "mean": (q.mean, bmrs_core.mean(*arguments)),
        "variance": (q.variance, bmrs_core.variance(*arguments)),
        "entropy": (q.entropy(), bmrs_core.entropy(*arguments)),
        "kl": (q.kl_to_log_uniform(), bmrs_core.kl_divergence(*arguments)),
    }
    for name, (found, expected) in pairs.items():
        assert found.dtype == dtype, name
        assert torch.equal(found, expected), name
    assert q.rsample((2,)).dtype == dtype


def test_half_precision_is_computed_in_float64_and_rounded() -> None:
    q = TruncatedLogNormal(torch.tensor([-3.0], dtype=torch.bfloat16), 0.5)
    exact = bmrs_core.mean(-3.0, 0.5)
    assert q.mean.dtype == torch.bfloat16
    assert q.mean.item() == torch.tensor(exact).to(torch.bfloat16).item()


def test_far_from_its_bounds_it_is_the_log_normal() -> None:
    q = TruncatedLogNormal(torch.tensor(-10.0, dtype=F64), 0.5, log_a=-30.0, log_b=10.0)
    free = torch.distributions.LogNormal(q.loc, q.scale)
    theta = torch.tensor([1e-5, 4e-5, 1e-4], dtype=F64)
    torch.testing.assert_close(q.log_prob(theta), free.log_prob(theta))
    torch.testing.assert_close(q.cdf(theta), free.cdf(theta))
    for name in ("mean", "variance", "mode", "stddev"):
        torch.testing.assert_close(getattr(q, name), getattr(free, name))
    torch.testing.assert_close(q.entropy(), free.entropy())


def test_shapes_are_those_of_torchs_own() -> None:
    batch, empty = (torch.zeros(2, 1), torch.ones(3)), (torch.zeros(0), 1.0)
    for arguments in ((0.0, 1.0), (torch.zeros(3), 1.0), batch, empty):
        own, theirs = TruncatedLogNormal(*arguments), Normal(*arguments)
        assert own.batch_shape == theirs.batch_shape
        assert own.event_shape == theirs.event_shape
        assert own.rsample().shape == theirs.rsample().shape
        assert own.sample((4, 2)).shape == theirs.sample((4, 2)).shape
        assert own.log_prob(own.sample((5,))).shape == theirs.log_prob(theirs.sample((5,))).shape
        assert own.mean.shape == own.entropy().shape == theirs.entropy().shape
        assert str(own).replace("TruncatedLogNormal", "Normal").startswith(str(theirs)[:-1])


def test_bounds_make_a_batch_too() -> None:
    q = TruncatedLogNormal(-3.0, 0.5, log_a=torch.tensor([-20.0, -5.0]))
    assert q.batch_shape == (2,)
    assert q.mean[0] < q.mean[1]


def test_expanding_copies_nothing_and_keeps_the_answers() -> None:
    q = TruncatedLogNormal(torch.tensor([-3.0, -1.0]), 0.5, validate_args=False)
    wide = q.expand((3, 2))
    assert wide.batch_shape == (3, 2)
    assert wide.loc.data_ptr() == q.loc.data_ptr()
    assert wide._validate_args is False
    assert torch.equal(wide.mean, q.mean.expand(3, 2))
    rows = torch.distributions.Independent(wide, 1)
    assert torch.equal(rows.log_prob(wide.mean), wide.log_prob(wide.mean).sum(-1))


def test_it_is_copied_and_pickled() -> None:
    q = TruncatedLogNormal(torch.tensor([-3.0]), 0.5)
    for other in (copy.deepcopy(q), pickle.loads(pickle.dumps(q))):
        assert torch.equal(other.mean, q.mean)


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_the_ends_of_the_support_belong_to_it(dtype: torch.dtype) -> None:
    q = distribution(dtype)
    for u in (0.0, 1.0):
        end = q.icdf(torch.tensor(u, dtype=dtype))
        assert q.support.check(end).all()
        assert q.log_prob(end).isfinite().all()


def test_outside_the_support_values_are_refused_or_impossible() -> None:
    outside = torch.tensor([-1.0, 0.0, 1.5])
    with pytest.raises(ValueError, match="support"):
        TruncatedLogNormal(-3.0, 0.5).log_prob(outside)
    q = TruncatedLogNormal(-3.0, 0.5, validate_args=False)
    assert torch.equal(q.log_prob(outside), torch.full((3,), -torch.inf))
    assert torch.equal(q.cdf(outside), torch.tensor([0.0, 0.0, 1.0]))
    theta = outside.clone().requires_grad_()
    for function in (q.log_prob, q.cdf):
        (gradient,) = torch.autograd.grad(function(theta).sum(), theta)
        assert torch.equal(gradient, torch.zeros(3))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0.0, -1.0), "scale"),
        ((torch.nan, 1.0), "loc"),
        ((0.0, 1.0, 0.0, 0.0), "log_a must be below log_b"),
        ((0.0, 1.0, torch.tensor(-20.0, requires_grad=True)), "log_a must not require grad"),
    ],
)
def test_what_describes_no_distribution_is_refused(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TruncatedLogNormal(*arguments)


def test_whole_numbers_as_tensors_are_refused() -> None:
    with pytest.raises(TypeError, match=r"floating-point tensors.*int64"):
        TruncatedLogNormal(torch.tensor(-3), torch.tensor(1))


def test_unchecked_parameters_are_refused_by_what_is_computed() -> None:
    with pytest.raises(ValueError, match="sigma must be positive"):
        _ = TruncatedLogNormal(0.0, -1.0, validate_args=False).mean


def test_gradients_are_not_differentiated_again() -> None:
    loc, scale = parameters()
    (gradient,) = torch.autograd.grad(TruncatedLogNormal(loc, scale).mean.sum(), loc, create_graph=True)
    with pytest.raises(RuntimeError, match="cannot be differentiated again"):
        gradient.sum().backward()


def test_inside_a_compiled_function_the_answers_are_the_same() -> None:
    def loss(loc: Tensor, scale: Tensor) -> Tensor:
        q = TruncatedLogNormal(loc, scale, validate_args=False)
        return (q.mean * 2.0).sum() + q.kl_to_log_uniform().sum()

    plain, compiled = parameters(), parameters()
    ours = torch.autograd.grad(loss(*plain), plain)
    theirs = torch.autograd.grad(torch.compile(loss, backend="eager")(*compiled), compiled)
    assert all(torch.equal(one, other) for one, other in zip(ours, theirs, strict=True))


def test_divergence_from_a_wider_prior_adds_its_width_and_from_a_narrower_one_is_infinite() -> None:
    q = TruncatedLogNormal(torch.tensor([-3.0, -12.0], dtype=F64), 0.5)
    own = kl_divergence(q, LogUniform())
    torch.testing.assert_close(own, bmrs_core.kl_divergence(q.loc, q.scale))
    torch.testing.assert_close(own, q.kl_to_log_uniform())
    wider = kl_divergence(q, LogUniform(-25.0, 15.0))
    torch.testing.assert_close(wider, own + math.log(2.0))
    assert torch.equal(kl_divergence(q, LogUniform(-10.0, 0.0)), torch.full((2,), torch.inf, dtype=F64))


def test_divergence_is_the_mean_log_ratio_of_the_densities() -> None:
    torch.manual_seed(2)
    q = TruncatedLogNormal(torch.tensor(-3.0, dtype=F64), 2.0)
    p = LogUniform(torch.tensor(-20.0, dtype=F64), 0.0)
    theta = q.sample((20_000,))
    ratios = q.log_prob(theta) - p.log_prob(theta)
    # Five standard errors.
    assert (ratios.mean() - kl_divergence(q, p)).abs() <= 5 * ratios.std() / math.sqrt(20_000)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_it_answers_there_as_on_the_cpu() -> None:
    q = distribution()
    there = TruncatedLogNormal(q.loc.cuda().requires_grad_(), q.scale.cuda())
    theta = there.rsample((3,))
    theta.sum().backward()
    assert theta.is_cuda
    assert there.loc.grad is not None
    assert there.loc.grad.isfinite().all()
    theta = values()
    torch.testing.assert_close(there.mean.cpu(), q.mean, rtol=1e-12, atol=0.0)
    torch.testing.assert_close(there.log_prob(theta.cuda()).cpu(), q.log_prob(theta), rtol=1e-12, atol=0.0)
