"""LogUniform against scipy, bmrs_core and the uniform distribution of its logarithm."""

from __future__ import annotations

import pytest
import torch
from scipy import stats
from torch.autograd import gradcheck

import bmrs_core
from bmrs_torch import LogUniform

F64 = torch.float64


def bound(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=F64)


# From wide to so narrow that E[θ²] − E[θ]² would have two digits left.
LOG_A = bound(-20.0, -2.0, -1.5, -1.0)
LOG_B = bound(0.0, 1.0, -1.4, -1.0 + 2.0**-24)


def test_moments_and_entropy_are_scipys() -> None:
    p = LogUniform(LOG_A[:3], LOG_B[:3])
    for i in range(3):
        reference = stats.loguniform(p.log_a[i].exp().item(), p.log_b[i].exp().item())
        assert p.mean[i].item() == pytest.approx(reference.mean(), rel=1e-12)
        # scipy subtracts the square of the mean, which costs it four digits of the third.
        assert p.variance[i].item() == pytest.approx(reference.var(), rel=1e-10)
        assert p.entropy()[i].item() == pytest.approx(reference.entropy(), rel=1e-12)


def test_the_variance_of_a_narrow_support_keeps_its_digits() -> None:
    width = 2.0**-24
    expected = float(torch.tensor(-2.0, dtype=F64).exp()) * width**2 / 12
    assert LogUniform(LOG_A, LOG_B).variance[3].item() == pytest.approx(expected, rel=1e-6)


def test_density_and_probabilities_are_those_of_bmrs_core() -> None:
    p = LogUniform(LOG_A[:2], LOG_B[:2])
    theta = bound(0.01, 0.5)
    low, high = p.log_a, p.log_b
    density = bmrs_core.log_uniform_pdf(theta, log_a=low, log_b=high)
    torch.testing.assert_close(p.log_prob(theta).exp(), density)
    below: torch.Tensor = p.cdf(theta)  # type: ignore[no-untyped-call]
    torch.testing.assert_close(below, bmrs_core.log_uniform_cdf(theta, log_a=low, log_b=high))
    quantile: torch.Tensor = p.icdf(below)  # type: ignore[no-untyped-call]
    torch.testing.assert_close(quantile, bmrs_core.log_uniform_quantile(below, log_a=low, log_b=high))


def test_gradients_are_those_of_finite_differences() -> None:
    bounds = (LOG_A[:3].clone().requires_grad_(), LOG_B[:3].clone().requires_grad_())
    for name in ("mean", "variance"):
        assert gradcheck(lambda a, b, name=name: getattr(LogUniform(a, b), name), bounds)
    assert gradcheck(lambda a, b: LogUniform(a, b).entropy(), bounds)


def test_draws_lie_in_the_support_and_its_ends_belong_to_it() -> None:
    p = LogUniform(torch.tensor([-20.0, -1.0]), torch.tensor([0.0, 1.0]))
    torch.manual_seed(0)
    theta = p.rsample((1000,))
    assert theta.shape == (1000, 2)
    assert p.log_prob(theta).isfinite().all()
    for end in (p.log_a.exp(), p.log_b.exp()):
        assert p.log_prob(end).isfinite().all()
    with pytest.raises(ValueError, match="support"):
        p.log_prob(torch.tensor(3.0))
    unchecked = LogUniform(validate_args=False)
    assert unchecked.log_prob(torch.tensor(3.0)) == -torch.inf


def test_it_expands_and_says_what_it_is() -> None:
    p = LogUniform(torch.tensor([-20.0, -1.0]), 1.5)
    wide = p.expand((3, 2))
    assert isinstance(wide, LogUniform)
    assert wide.batch_shape == (3, 2)
    assert torch.equal(wide.log_prob(torch.tensor(1.0)), p.log_prob(torch.tensor(1.0)).expand(3, 2))
    assert str(LogUniform()) == "LogUniform(log_a: -20.0, log_b: 0.0)"


def test_an_empty_support_is_refused() -> None:
    with pytest.raises(ValueError, match="log_a must be below log_b"):
        LogUniform(0.0, -1.0)
