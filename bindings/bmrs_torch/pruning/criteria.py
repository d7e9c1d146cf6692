"""Scores of structures and the rules that read them. A rule only proposes; masks are changed elsewhere."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np
from torch import nn

from bmrs_core import delta_f_normal, delta_f_uniform, mean, snr
from bmrs_torch.layer import MultiplicativeNoise

if TYPE_CHECKING:
    from numpy.typing import NDArray

HALF_LOG_2PI = 0.5 * math.log(2.0 * math.pi)
"""Default tolerance of BMRS_N in nats, 0.9189.

A structure about which the data say nothing keeps its prior, and then ΔF = 0 for any reduced prior; trained
ones end a hair below 0, so that the strict rule ΔF ≥ 0 prunes nothing. The paper's published results were
made with a ΔF that lacks the 2π of Eq. 8, which is this tolerance. It lies under the 1 nat called "not worth
more than a bare mention" by Kass and Raftery (1995).
"""

BMRS_U_TOLERANCE = 0.0
SNR_THRESHOLD = 1.0
"""Neklyudov et al. (2017)."""
MEAN_THRESHOLD = 0.1
"""Paper, §5."""

P1, P2 = 8, 23
"""BMRS_U's reduced support is [2^-p2, 2^-p1]; 23 bits is the precision of a float32 (paper, §4.2.2)."""

_DEFAULTS: dict[str, object] = {
    "tolerance": None,
    "strict": False,
    "p1": P1,
    "p2": P2,
    "threshold": None,
    "amount": None,
}

Score = Callable[[MultiplicativeNoise, "nn.Module | None"], "NDArray[np.float64]"]
Rule = Callable[["NDArray[np.float64]", "NDArray[np.bool_]"], "NDArray[np.bool_]"]


@dataclass(frozen=True)
class Criterion:
    """How to score the structures of a layer and which to prune.

    Attributes
    ----------
    name : str
        Name by which the user chose it.
    score : callable
        From a noise layer, and the layer that feeds it where `needs_weights`, to one score per structure.
    rule : callable
        From scores and the boolean mask of what is kept to a boolean array, True where to prune.
    keep_largest : bool
        Whether a large score speaks for keeping a structure (SNR) or for pruning it (ΔF).
    needs_weights : bool
        Whether the score is one of the weights before the noise.
    description : str
        The rule in words, with its numbers.
    """

    name: str
    score: Score
    rule: Rule
    keep_largest: bool
    description: str
    needs_weights: bool = False


def make_criterion(
    name: str,
    *,
    tolerance: float | None = None,
    strict: bool = False,
    p1: int = P1,
    p2: int | None = P2,
    threshold: float | None = None,
    amount: float | None = None,
) -> Criterion:
    """Build a criterion from its name and options; see :func:`bmrs_torch.prune` for what they mean.

    Parameters
    ----------
    name : {"bmrs_n", "bmrs_u", "snr", "mean", "l2"}
        Which criterion.
    tolerance, strict, p1, p2, threshold, amount
        Options, each of some criteria only.

    Returns
    -------
    Criterion

    Raises
    ------
    ValueError
        For an unknown name, an option that the criterion doesn't have, or a value out of range.

    Examples
    --------
    >>> from bmrs_torch.pruning.criteria import make_criterion
    >>> make_criterion("bmrs_n").description
    'prune where ΔF_N ≥ -0.9189'
    """
    makers: dict[str, tuple[Callable[..., Criterion], tuple[str, ...]]] = {
        "bmrs_n": (_bmrs_n, ("tolerance", "strict")),
        "bmrs_u": (_bmrs_u, ("tolerance", "strict", "p1", "p2")),
        "snr": (_snr, ("threshold",)),
        "mean": (_mean, ("threshold",)),
        "l2": (_l2, ("amount",)),
    }
    if name not in makers:
        raise ValueError(f"criterion must be one of {', '.join(map(repr, makers))}, got {name!r}")
    maker, accepted = makers[name]
    given: dict[str, Any] = {
        "tolerance": tolerance,
        "strict": strict,
        "p1": p1,
        "p2": p2,
        "threshold": threshold,
        "amount": amount,
    }
    foreign = [
        option for option, value in given.items() if value != _DEFAULTS[option] and option not in accepted
    ]
    if foreign:
        raise ValueError(
            f"criterion {name!r} takes {', '.join(accepted)}, got {', '.join(foreign)}, which would have no "
            "effect"
        )
    return maker(**{option: given[option] for option in accepted})


def _evidence_rule(tolerance: float | None, strict: bool, default: float) -> float:
    if strict and tolerance is not None:
        raise ValueError(f"strict=True is tolerance=0; give one of them, got tolerance={tolerance} too")
    chosen = 0.0 if strict else default if tolerance is None else tolerance
    if not (math.isfinite(chosen) and chosen >= 0):
        raise ValueError(f"tolerance is in nats, finite and at least 0, got {chosen}")
    return chosen


def _bmrs_n(tolerance: float | None, strict: bool) -> Criterion:
    limit = _evidence_rule(tolerance, strict, HALF_LOG_2PI)
    return Criterion(
        "bmrs_n",
        lambda noise, _: delta_f_normal(*_mu_sigma(noise), **_bounds(noise)),
        lambda scores, _: scores >= -limit,
        keep_largest=False,
        description=f"prune where ΔF_N ≥ {0.0 - limit:.4g}",
    )


def _bmrs_u(tolerance: float | None, strict: bool, p1: int, p2: int | None) -> Criterion:
    limit = _evidence_rule(tolerance, strict, BMRS_U_TOLERANCE)
    return Criterion(
        "bmrs_u",
        lambda noise, _: delta_f_uniform(*_mu_sigma(noise), p1=p1, p2=p2, **_bounds(noise)),
        lambda scores, _: scores >= -limit,
        keep_largest=False,
        description=f"prune where ΔF_U (p1={p1}, p2={p2}) ≥ {0.0 - limit:.4g}",
    )


def _snr(threshold: float | None) -> Criterion:
    limit = _checked_threshold(SNR_THRESHOLD if threshold is None else threshold)
    return Criterion(
        "snr",
        lambda noise, _: snr(*_mu_sigma(noise), **_bounds(noise)),
        lambda scores, _: scores < limit,
        keep_largest=True,
        description=f"prune where SNR < {limit:.4g}",
    )


def _mean(threshold: float | None) -> Criterion:
    limit = _checked_threshold(MEAN_THRESHOLD if threshold is None else threshold)
    return Criterion(
        "mean",
        lambda noise, _: mean(*_mu_sigma(noise), **_bounds(noise)),
        lambda scores, _: scores < limit,
        keep_largest=True,
        description=f"prune where E[θ] < {limit:.4g}",
    )


def _checked_threshold(threshold: float) -> float:
    if not (math.isfinite(threshold) and threshold > 0):
        raise ValueError(f"threshold must be positive and finite, got {threshold}")
    return threshold


def _l2(amount: float | None) -> Criterion:
    if amount is None or not 0 <= amount < 1:
        raise ValueError(
            "criterion 'l2' has no rule of its own; amount, the fraction of each layer's structures to have "
            f"pruned in the end, must be given in [0, 1), got {amount}"
        )

    def lowest(scores: NDArray[np.float64], kept: NDArray[np.bool_]) -> NDArray[np.bool_]:
        number = math.floor(amount * scores.size + 0.5) - int((~kept).sum())
        order = np.argsort(np.where(kept, scores, np.inf), kind="stable")
        prune = np.zeros(scores.size, dtype=bool)
        prune[order[: max(number, 0)]] = True
        return prune

    return Criterion(
        "l2",
        _weight_norms,
        lowest,
        keep_largest=True,
        description=f"prune the {amount:.4g} of each layer with the smallest ‖w‖₂",
        needs_weights=True,
    )


def _weight_norms(_noise: MultiplicativeNoise, layer: nn.Module | None) -> NDArray[np.float64]:
    weight = getattr(layer, "weight", None)
    if weight is None:
        raise ValueError(
            f"criterion 'l2' needs a layer with weights before the noise, got {type(layer).__name__}"
        )
    norms: NDArray[np.float64] = weight.detach().double().reshape(len(weight), -1).norm(dim=1).cpu().numpy()
    return norms


def _mu_sigma(noise: MultiplicativeNoise) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return noise.mu.detach().double().cpu().numpy(), np.exp(noise.log_sigma.detach().double().cpu().numpy())


class _Bounds(TypedDict):
    log_a: float
    log_b: float


def _bounds(noise: MultiplicativeNoise) -> _Bounds:
    return {"log_a": noise.log_a, "log_b": noise.log_b}
