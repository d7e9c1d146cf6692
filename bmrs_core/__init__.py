"""The mathematics of Bayesian model reduction for structured pruning (BMRS), on arrays.

Arrays in, arrays out: NumPy through compiled loops, torch, JAX, CuPy and other array-API libraries in
kind. All parameters are those of x = log theta; bounds are in log units.
"""

from __future__ import annotations

from bmrs_core.delta_f import delta_f_normal, delta_f_uniform, reduced_posterior
from bmrs_core.distribution import log_mass, log_quantile, logcdf, logpdf, quantile
from bmrs_core.entropy import entropy, entropy_grad
from bmrs_core.gradients import (
    kl_divergence_grad,
    log_mean_grad,
    log_normalizer_grad,
    log_quantile_grad,
    logpdf_grad,
)
from bmrs_core.log_uniform import log_uniform_cdf, log_uniform_pdf, log_uniform_quantile
from bmrs_core.model_reduction import delta_f, delta_f_gaussian
from bmrs_core.normal import log_erf_diff, log_ndtr_diff
from bmrs_core.probabilities import cdf, logsf, pdf, sf
from bmrs_core.sampling import sample
from bmrs_core.truncated_lognormal import (
    kl_divergence,
    log_mean,
    log_normalizer,
    mean,
    snr,
    variance,
)
from bmrs_core.version import distribution_version

__version__ = distribution_version()

__all__ = [
    "__version__",
    "cdf",
    "delta_f",
    "delta_f_gaussian",
    "delta_f_normal",
    "delta_f_uniform",
    "entropy",
    "entropy_grad",
    "kl_divergence",
    "kl_divergence_grad",
    "log_erf_diff",
    "log_mass",
    "log_mean",
    "log_mean_grad",
    "log_ndtr_diff",
    "log_normalizer",
    "log_normalizer_grad",
    "log_quantile",
    "log_quantile_grad",
    "log_uniform_cdf",
    "log_uniform_pdf",
    "log_uniform_quantile",
    "logcdf",
    "logpdf",
    "logpdf_grad",
    "logsf",
    "mean",
    "pdf",
    "quantile",
    "reduced_posterior",
    "sample",
    "sf",
    "snr",
    "variance",
]
