"""The named constants of the formulas.

`EXACT` gives those that are not a float by definition as expressions for mpmath, so that a test can
evaluate the same texts in 50 digits. Thresholds that part two regimes belong to the text that uses
them and stand there as well, with the reason.
"""

from __future__ import annotations

from bmrs_core.formulas import nodes

__all__ = ["EXACT", "FLOAT32_RULES", "FLOAT32_SCALARS", "FLOAT64_RULES", "SCALARS"]

ZERO = 0.0
EIGHTH = 0.125
QUARTER = 0.25
HALF = 0.5
ONE = 1.0
TWO = 2.0
SIX = 6.0
SEVEN = 7.0

INV_SQRT_2PI = 0.3989422804014327
SQRT_2PI = 2.5066282746310007
SQRT_2PI_LOW = -1.8328579980459167e-16  # what rounding has added to it
SQRT_2 = 1.4142135623730951
LOG_2 = 0.6931471805599453
SIXTH = 0.16666666666666666
R24 = 0.041666666666666664
TINY = 1e-300
HUGE = 1e150

SCALARS = {name: value for name, value in globals().items() if name.isupper() and isinstance(value, float)}

EXACT = {
    "INV_SQRT_2PI": "1/sqrt(2*pi)",
    "SQRT_2PI": "sqrt(2*pi)",
    "SQRT_2PI_LOW": "mpf(0)",
    "SQRT_2": "sqrt(2)",
    "LOG_2": "log(2)",
    "SIXTH": "mpf(1)/6",
    "R24": "mpf(1)/24",
}

# The quadrature rule for a Gaussian over its effective support, cut where its exponent is -MANY_CUT, i.e.
# below the precision of the sum.
MANY = 56
MANY_T = nodes.T56
MANY_TC = nodes.T56[::-1]
MANY_W = nodes.W56
MANY_CUT = 47.0
MANY_REACH = 9.695359714832659  # sqrt(2 MANY_CUT)

FLOAT64_RULES = {
    "MANY": MANY,
    "MANY_T": MANY_T,
    "MANY_TC": MANY_TC,
    "MANY_W": MANY_W,
    "MANY_CUT": MANY_CUT,
    "MANY_REACH": MANY_REACH,
}

# What must be representable in float32: squares of HUGE must not overflow; or what its rounding makes of it.
FLOAT32_SCALARS = {"TINY": 1e-37, "HUGE": 1e18, "SQRT_2PI_LOW": -2.8660236e-10}

FLOAT32_RULES = {
    "MANY": 24,
    "MANY_T": nodes.T24,
    "MANY_TC": nodes.T24[::-1],
    "MANY_W": nodes.W24,
    "MANY_CUT": 23.0,
    "MANY_REACH": 6.782329983125268,
}
