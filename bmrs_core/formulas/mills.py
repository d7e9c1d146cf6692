"""Mills' ratio of the normal distribution and its excess, from zero to infinity in one range."""

from __future__ import annotations

from bmrs_core.formulas.constants import HUGE, ONE
from bmrs_core.formulas.primitives import Real, minimum

__all__ = ["mills", "mills_excess"]

# Both functions below are smooth in s = (z - 5)/(z + 5), which maps [0, inf) to [-1, 1). Polynomials in
# s interpolated at 44 Chebyshev points in 60 digits and cut at degree 25 and 26: truncation below 5e-19
# and 5e-18. The odd and the even half are summed separately: two short chains instead of a long one.
S_CENTRE = 5.0
M0 = 1.1568486282918946
M1 = -0.2294875382521129
M2 = 0.07778159886873554
M3 = 0.025072179301611947
M4 = -0.0661776007789934
M5 = 0.061505045841013566
M6 = -0.038026592187762366
M7 = 0.0163482312692141
M8 = -0.004201290310663574
M9 = 1.953073289303005e-05
M10 = 0.00045704381820007954
M11 = -0.0001343747460125513
M12 = -2.48054584472145e-05
M13 = 2.271112294988288e-05
M14 = -1.7723438185601556e-07
M15 = -3.280567012895583e-06
M16 = 3.2197131609042185e-07
M17 = 4.968188503341836e-07
M18 = -6.738323465177047e-08
M19 = -8.232321223515427e-08
M20 = 1.0082895646260188e-08
M21 = 1.4010248782442869e-08
M22 = -1.0846925288860795e-09
M23 = -2.039456977423449e-09
M24 = 6.288377855498677e-11
M25 = 1.7327578943235103e-10
X0 = 1.2945411512431624
X1 = -0.36872296454501824
X2 = -0.02803069962751519
X3 = 0.26116700784716246
X4 = -0.27354820376339606
X5 = 0.15402166231123107
X6 = -0.02931098245941795
X7 = -0.03186187270803922
X8 = 0.034746226760707245
X9 = -0.016131705895756486
X10 = 0.002328315612845713
X11 = 0.0015767756175029339
X12 = -0.0008527350887620751
X13 = -3.5818170996182e-05
X14 = 0.00014695214465133784
X15 = -1.7203931061125266e-05
X16 = -2.3404251451748432e-05
X17 = 4.971636920474042e-06
X18 = 4.0148061855887895e-06
X19 = -9.985214771598005e-07
X20 = -7.59346786017823e-07
X21 = 1.6601511154204576e-07
X22 = 1.4464403282898365e-07
X23 = -2.1184998715660543e-08
X24 = -2.2672476012801747e-08
X25 = 1.5294186063516205e-09
X26 = 1.998220033195663e-09


def mills(z: Real) -> Real:
    """Return Mills' ratio (1 - Phi(z)) / phi(z) for z >= 0, within 2 eps (measured on 9,000 points)."""
    z = minimum(z, HUGE)
    s = (z - S_CENTRE) / (z + S_CENTRE)
    t = s * s
    even = (((M24 * t + M22) * t + M20) * t + M18) * t + M16
    even = (((even * t + M14) * t + M12) * t + M10) * t + M8
    even = (((even * t + M6) * t + M4) * t + M2) * t + M0
    odd = (((M25 * t + M23) * t + M21) * t + M19) * t + M17
    odd = (((odd * t + M15) * t + M13) * t + M11) * t + M9
    odd = (((odd * t + M7) * t + M5) * t + M3) * t + M1
    return (even + s * odd) / (ONE + z)


def mills_excess(z: Real) -> Real:
    """Return 1 - z mills(z) for z >= 0, within 4 eps (measured on 9,000 points): 1/z^2 for large z."""
    z = minimum(z, HUGE)
    s = (z - S_CENTRE) / (z + S_CENTRE)
    t = s * s
    even = (((X26 * t + X24) * t + X22) * t + X20) * t + X18
    even = (((even * t + X16) * t + X14) * t + X12) * t + X10
    even = (((even * t + X8) * t + X6) * t + X4) * t + X2
    even = even * t + X0
    odd = (((X25 * t + X23) * t + X21) * t + X19) * t + X17
    odd = (((odd * t + X15) * t + X13) * t + X11) * t + X9
    odd = (((odd * t + X7) * t + X5) * t + X3) * t + X1
    return (even + s * odd) / ((ONE + z) * (ONE + z))
