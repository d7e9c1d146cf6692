"""The SciPy composition agrees with the package, and the formulas as printed are the same mathematics."""

from __future__ import annotations

import numpy as np
import pytest

import bmrs_core
from benchmarks.arrays import naive, scipy_reference, speed


@pytest.mark.parametrize("name", speed.FUNCTIONS)
def test_the_package_agrees_with_a_second_opinion(name: str) -> None:
    rivals = speed.calls(name, *speed.arguments(50_000))
    # 1e-10, see speed.AGREEMENT: the composition's own error, measured against the reference tables.
    speed.check_agreement(name, rivals["ours"](), rivals["scipy"]())


@pytest.mark.parametrize("name", speed.FUNCTIONS)
def test_the_formulas_as_printed_are_right_where_nothing_cancels(name: str) -> None:
    rng = np.random.default_rng(1)
    mu, sigma = rng.uniform(-12.0, -4.0, 1000), rng.uniform(2.0, 6.0, 1000)
    inputs = (rng.random(1000), mu, sigma) if name == "quantile" else (mu, sigma)
    # σ_p = 0.1 instead of 1e-6: Eq. 8's squares are then 4e4 and cancel to 1e-11, not to 0.1.
    options = {"sigma_p": 0.1} if name == "delta_f_normal" else {}
    printed = getattr(naive, name)(*inputs, **options)
    np.testing.assert_allclose(getattr(bmrs_core, name)(*inputs, **options), printed, rtol=1e-9, atol=1e-10)


def test_snr_as_printed_is_right_where_nothing_cancels() -> None:
    mu, sigma = np.linspace(-12.0, -4.0, 50), np.linspace(2.0, 3.0, 50)
    np.testing.assert_allclose(bmrs_core.snr(mu, sigma), naive.snr(mu, sigma), rtol=1e-9)


def test_a_wrong_result_is_not_timed() -> None:
    right = scipy_reference.mean(np.array([-3.0]), np.array([0.5]))
    with pytest.raises(RuntimeError, match="mean"):
        speed.check_agreement("mean", right * (1 + 1e-8), right)
    with pytest.raises(RuntimeError, match="mean"):
        speed.check_agreement("mean", right * np.nan, right)
