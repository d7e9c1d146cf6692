"""The coefficients in use are what `coefficients` fits, or no worse."""

from __future__ import annotations

import pytest

from bmrs_core.formulas import nodes
from tests.truth.coefficients import FITS, Fit, gauss_legendre

EVERY_FIT = pytest.mark.parametrize("fit", FITS, ids=lambda fit: fit.name)


@EVERY_FIT
def test_coefficients_in_use_err_by_no_more_than_they_promise(fit: Fit) -> None:
    assert fit.error(fit.stored) <= 1.0


@EVERY_FIT
def test_made_again_they_are_the_same_or_as_good(fit: Fit) -> None:
    again = fit.again()
    if fit.to_the_bit:
        assert again == fit.stored
    # Best before they are rounded, not after: up to a twentieth may be lost.
    assert fit.error(again) <= 1.05


@pytest.mark.parametrize("count", [24, 56])
def test_quadrature_rules_are_made_again_to_the_last_bit(count: int) -> None:
    assert (getattr(nodes, f"T{count}"), getattr(nodes, f"W{count}")) == gauss_legendre(count)
