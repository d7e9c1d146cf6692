"""What a backend needs to know of a public formula."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["FORMULAS", "Formula"]


@dataclass(frozen=True)
class Formula:
    """A public formula: how many numbers go in and out, and whether it has a rare regime.

    A formula with a rare regime is three texts, ``name_common``, ``name_rare`` and
    ``name_is_rare``. The common text is straight-line code that a vectoriser turns into SIMD; the
    rare one sums over quadrature nodes and is evaluated only where needed, where a backend can.
    """

    name: str
    inputs: int
    outputs: int = 1
    has_rare: bool = False


FORMULAS = {
    formula.name: formula
    for formula in (
        Formula("log_ndtr_diff", 2),
        Formula("log_erf_diff", 2),
        Formula("log_normalizer", 4),
        Formula("kl_divergence", 4, has_rare=True),
        Formula("mean", 4),
        Formula("log_mean", 4, has_rare=True),
        Formula("variance", 4),
        Formula("snr", 4),
        Formula("log_normalizer_grad", 4, outputs=3),
        Formula("kl_divergence_grad", 4, outputs=3),
        Formula("log_mean_grad", 4, outputs=3),
        Formula("quantile", 5, has_rare=True),
        Formula("log_quantile", 5, has_rare=True),
        Formula("log_quantile_grad", 5, outputs=3),
        Formula("log_density", 5),
        Formula("logpdf", 5),
        Formula("logcdf", 5),
        Formula("log_mass", 6),
        Formula("reduced_prior", 4, outputs=3),
        Formula("delta_f_normal", 9, has_rare=True),
        Formula("delta_f_uniform", 6, has_rare=True),
        Formula("delta_f_gaussian", 6),
        Formula("reduced_posterior", 6, outputs=2),
        Formula("log_uniform_pdf", 3),
        Formula("log_uniform_cdf", 3),
        Formula("log_uniform_quantile", 3),
    )
}
