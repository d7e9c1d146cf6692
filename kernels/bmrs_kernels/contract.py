"""What every implementation of the noise operation computes, whatever it runs on.

Forward
    y = x * theta * mask, theta = exp(x_q(u)): one theta per entry of the *noise shape*
    (`NoiseLayout.noise_shape`), x_q the quantile of the truncated normal of log theta (paper, Eq. 1 and 7),
    u = (k + 1/2) 2^-32 from word k of Philox4x32-10 keyed by the seed and counted by the row-major index in
    the noise shape.
Backward
    dx = dy * theta * mask, dmu_c = sum of dy x mask dtheta/dmu over everything of structure c, dlog_sigma_c
    likewise with sigma dtheta/dsigma. theta is drawn again from the seed.
Saved for backward
    x, mu, log_sigma, mask, seed. Nothing else: no noise, nothing of the size of x but x itself.
Shapes
    x, y, dy, dx: any shape of at least one axis, any strides; structures on `axis`. mu, log_sigma, mask: one
    entry per structure. seed: 64 bits.
Dtypes
    x, y, dy, dx: float32, float64, bfloat16 or float16; arithmetic in float64 for float64, else in float32,
    one rounding at the end. mu, log_sigma and their gradients float32 (float64 for float64). Sums over
    samples and positions are carried in float64 beyond short float32 runs; on a GPU, in float32 by a tree of
    fixed shape whose upper levels are compensated.
Determinism
    Bit for bit the same for the same seed, whatever the number of threads. Between implementations the words
    are the same, and theta up to the rounding of their elementary functions.
Masks
    Where the mask is 0, y and dx are exactly 0, whatever x and dy hold there, dmu = dlog_sigma = 0, and mu
    and log_sigma are not looked at.
Errors
    A mu or log_sigma that is not finite, or a log_sigma beyond +-`LOG_SIGMA_LIMIT` (sigma would leave
    float32; in float64 beyond +-`LOG_SIGMA_LIMIT_FLOAT64`), where the mask is not 0: nothing is computed,
    and the first such structure is named. An implementation that does not wait for its result (on a GPU: the
    host would have to) answers NaN instead, in all of that structure's y, dx, dmu and dlog_sigma and nowhere
    else.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, TypeAlias, get_args

__all__ = ["LOG_SIGMA_LIMIT", "LOG_SIGMA_LIMIT_FLOAT64", "SHARES", "NoiseLayout", "Share"]

Share: TypeAlias = Literal["sample", "batch", "element"]
SHARES: tuple[str, ...] = get_args(Share)

LOG_SIGMA_LIMIT = 80.0
"""Largest |log sigma| in float32 arithmetic: sigma and 1/sigma are then normal numbers."""

LOG_SIGMA_LIMIT_FLOAT64 = 700.0
"""The same in float64 arithmetic."""


class NoiseLayout(NamedTuple):
    """Where the structures lie in x, how the noise is shared, and the bounds of log theta.

    Parameters
    ----------
    axis : int
        Axis of the structures, counted from the front.
    share : {"sample", "batch", "element"}
        One theta per entry of axis 0 and structure, per structure, or per element.
    log_a, log_b : float
        Bounds of log theta.
    """

    axis: int
    share: str
    log_a: float
    log_b: float

    def noise_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of theta for an x of `shape`; its row-major index is the counter of the draw.

        Examples
        --------
        >>> NoiseLayout(1, "sample", -20.0, 0.0).noise_shape((32, 64, 56, 56))
        (32, 64, 1, 1)
        """
        if self.share == "element":
            return tuple(shape)
        per_sample = self.share == "sample"
        return tuple(size if i == self.axis or (i == 0 and per_sample) else 1 for i, size in enumerate(shape))
