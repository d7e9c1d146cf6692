"""What a structure can be judged by: the criteria, the direction of their scores, the rules of some."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

CriterionName = Literal[
    "bmrs_n", "bmrs_u", "snr", "mean", "l2", "gradient", "l2_gradient", "taylor", "random"
]
Source = Literal["noise", "weights", "gradients", "nothing"]

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


@dataclass(frozen=True)
class Criterion:
    """What scores of this name mean.

    Attributes
    ----------
    name : str
        By which the user chooses it.
    symbol : str
        In formulas.
    source : {"noise", "weights", "gradients", "nothing"}
        What the score is read from.
    limit : float or None
        Default tolerance (of evidence) or threshold (of the others); None if it ranks but has no rule of its
        own.
    is_evidence : bool
        Whether the score is ΔF, large where a structure should go; all others are small there.
    """

    name: CriterionName
    symbol: str
    source: Source
    limit: float | None = None
    is_evidence: bool = False

    @property
    def rule_options(self) -> tuple[str, ...]:
        """Options of :func:`bmrs_torch.prune` that set its rule."""
        return ("tolerance", "strict") if self.is_evidence else ("threshold",)


CRITERIA: dict[str, Criterion] = {
    criterion.name: criterion
    for criterion in (
        Criterion("bmrs_n", "ΔF_N", "noise", HALF_LOG_2PI, is_evidence=True),
        Criterion("bmrs_u", "ΔF_U", "noise", BMRS_U_TOLERANCE, is_evidence=True),
        Criterion("snr", "SNR", "noise", SNR_THRESHOLD),
        Criterion("mean", "E[θ]", "noise", MEAN_THRESHOLD),
        Criterion("l2", "‖w‖₂", "weights"),
        Criterion("gradient", "‖∂L/∂w‖₂", "gradients"),
        Criterion("l2_gradient", "‖w‖₂·‖∂L/∂w‖₂", "gradients"),
        Criterion("taylor", "|w·∂L/∂w|", "gradients"),
        Criterion("random", "a random number", "nothing"),
    )
}
assert tuple(CRITERIA) == get_args(CriterionName)


def find_criterion(name: str) -> Criterion:
    """Look a criterion up.

    Parameters
    ----------
    name : str
        One of the keys of `CRITERIA`.

    Returns
    -------
    Criterion

    Raises
    ------
    ValueError
        For another name.

    Examples
    --------
    >>> from bmrs_torch.deciding.criteria import find_criterion
    >>> find_criterion("snr").limit
    1.0
    """
    if not isinstance(name, str) or name not in CRITERIA:
        raise ValueError(f"criterion must be one of {', '.join(map(repr, CRITERIA))}, got {name!r}")
    return CRITERIA[name]
