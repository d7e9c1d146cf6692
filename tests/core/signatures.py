"""The element-wise public functions and small valid arguments: for tests that hold for all of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import bmrs_core

# Inside, in either tail, narrow and wide; the last column lies beyond what float32 keeps apart from the
# bound.
MU = (-3.0, -25.5, 1.25, -10.0, -19.5, -0.0078125)
SIGMA = (0.25, 2.0, 0.5, 64.0, 0.0625, 0.0078125)
LEVEL = (0.25, 0.5, 0.75, 0.125, 0.875, 0.0625)
THETA = (0.0625, 1e-8, 0.875, 0.25, 2e-9, 0.9921875)
LOWER = (-16.0, -20.0, -14.0, -15.0, -19.75, -12.0)
UPPER = (-2.0, -10.0, -0.5, -5.0, -1.0, 0.0)

_COLUMNS = {
    "mu": MU,
    "sigma": SIGMA,
    "u": LEVEL,
    "theta": THETA,
    "log_lower": LOWER,
    "log_upper": UPPER,
    "lower": LOWER,
    "upper": UPPER,
    "x": LOWER,
    "y": UPPER,
}


@dataclass(frozen=True)
class Signature:
    """One public function, the names of its positional arguments, and how many arrays it answers with."""

    name: str
    arguments: tuple[str, ...] = ("mu", "sigma")
    answers: int = 1
    keywords: dict[str, Any] = field(default_factory=dict)

    @property
    def function(self) -> Callable[..., Any]:
        return getattr(bmrs_core, self.name)  # type: ignore[no-any-return]

    def arrays(self, dtype: Any = np.float64) -> list[np.ndarray[Any, np.dtype[Any]]]:
        return [np.array(_COLUMNS[name], dtype=dtype) for name in self.arguments]

    def call(self, *arrays: Any, **keywords: Any) -> list[Any]:
        """The answers as a list, however many they are."""
        answer = self.function(*arrays, **self.keywords, **keywords)
        return list(answer) if self.answers > 1 else [answer]


ELEMENTWISE = (
    *(
        Signature(name)
        for name in (
            "log_normalizer",
            "kl_divergence",
            "mean",
            "log_mean",
            "variance",
            "snr",
            "entropy",
            "delta_f_normal",
        )
    ),
    Signature("delta_f_uniform"),
    Signature("quantile", ("u", "mu", "sigma")),
    Signature("log_quantile", ("u", "mu", "sigma")),
    *(
        Signature(name, ("theta", "mu", "sigma"))
        for name in ("logpdf", "logcdf", "logsf", "pdf", "cdf", "sf")
    ),
    Signature("log_mass", ("log_lower", "log_upper", "mu", "sigma")),
)
GRADIENTS = (
    *(
        Signature(name, answers=3)
        for name in ("log_normalizer_grad", "kl_divergence_grad", "log_mean_grad", "entropy_grad")
    ),
    Signature("log_quantile_grad", ("u", "mu", "sigma"), answers=3),
    Signature("logpdf_grad", ("theta", "mu", "sigma"), answers=3),
)
PAIRS = (Signature("reduced_posterior", answers=2),)
WITHOUT_PARAMETERS = (
    Signature("log_ndtr_diff", ("lower", "upper")),
    Signature("log_erf_diff", ("x", "y")),
    Signature("log_uniform_pdf", ("theta",)),
    Signature("log_uniform_cdf", ("theta",)),
    Signature("log_uniform_quantile", ("u",)),
)
OF_A_POSTERIOR = ELEMENTWISE + GRADIENTS + PAIRS
EVERY = OF_A_POSTERIOR + WITHOUT_PARAMETERS


def name_of(signature: Signature) -> str:
    return signature.name
