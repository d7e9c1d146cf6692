"""What a backend needs to know of a public formula."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["FORMULAS", "Formula"]


@dataclass(frozen=True)
class Formula:
    """A public formula: how many numbers go in and out, and the regimes it has beside the common one.

    A formula with a regime ``rare`` is three texts: ``name_common``, ``name_rare`` and
    ``name_is_rare``; with several, a later regime prevails. Each text is straight-line code that a
    vectoriser turns into SIMD; where a backend can, one is evaluated only on the elements it is for. The
    common text is evaluated everywhere, unless the formula is partitioned because it costs much.

    A shortcut is a cheaper text of elements that the regimes cover, too, and prevails over those: for a
    backend that partitions.
    """

    name: str
    inputs: int
    outputs: int = 1
    regimes: tuple[str, ...] = ()
    shortcuts: tuple[str, ...] = ()
    partitioned: bool = False

    @property
    def base(self) -> str:
        """The name of the text of all elements outside the other regimes."""
        return f"{self.name}_common" if self.regimes else self.name


RARE = ("rare",)
INTERIOR_AND_RARE = ("interior", "rare")
UNTRUNCATED = ("half_line", "unbounded")

FORMULAS = {
    formula.name: formula
    for formula in (
        Formula("log_ndtr_diff", 2),
        Formula("log_erf_diff", 2),
        Formula("log_normalizer", 4),
        Formula("kl_divergence", 4, regimes=RARE),
        Formula("mean", 4),
        Formula("log_mean", 4, regimes=RARE),
        Formula("variance", 4),
        Formula("snr", 4),
        Formula("log_normalizer_grad", 4, outputs=3),
        Formula("kl_divergence_grad", 4, outputs=3),
        Formula("log_mean_grad", 4, outputs=3),
        Formula("quantile", 5, regimes=INTERIOR_AND_RARE, shortcuts=UNTRUNCATED, partitioned=True),
        Formula("log_quantile", 5, regimes=INTERIOR_AND_RARE, shortcuts=UNTRUNCATED, partitioned=True),
        Formula("log_quantile_grad", 5, outputs=3),
        Formula("log_density", 5),
        Formula("logpdf", 5),
        Formula("logcdf", 5),
        Formula("logsf", 5),
        Formula("pdf", 5),
        Formula("cdf", 5),
        Formula("sf", 5),
        Formula("logpdf_grad", 5, outputs=3),
        Formula("entropy", 4),
        Formula("entropy_grad", 4, outputs=3),
        Formula("log_mass", 6),
        Formula("reduced_prior", 4, outputs=3),
        Formula("delta_f_normal", 9, regimes=RARE),
        Formula("delta_f_uniform", 6, regimes=RARE),
        Formula("delta_f_gaussian", 6),
        Formula("reduced_posterior", 6, outputs=2),
        Formula("log_uniform_pdf", 3),
        Formula("log_uniform_cdf", 3),
        Formula("log_uniform_quantile", 3),
    )
}
