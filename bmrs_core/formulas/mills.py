"""Mills' ratio of the normal distribution and its excess, from zero to infinity in one range."""

from __future__ import annotations

from bmrs_core.formulas.constants import HUGE, ONE
from bmrs_core.formulas.primitives import Real, minimum

__all__ = ["mills", "mills_excess"]

# Both functions below are smooth in s = (z - 5)/(z + 5), which maps [0, inf) to [-1, 1). Polynomials in
# s interpolated at 44 Chebyshev points in 60 digits and cut at degree 23 and 25: truncation below 2e-17
# and 7e-17. The odd and the even half are summed separately: two short chains instead of a long one.
S_CENTRE = 5.0
M0 = 1.1568486282918946
M1 = -0.22948753825211315
M2 = 0.07778159886873769
M3 = 0.0250721793016388
M4 = -0.0661776007790963
M5 = 0.0615050458401865
M6 = -0.03802659218584139
M7 = 0.01634823128102938
M8 = -0.004201290329187307
M9 = 1.9530638370790786e-05
M10 = 0.00045704392357953655
M11 = -0.0001343742785571135
M12 = -2.480583845192319e-05
M13 = 2.270961270923768e-05
M14 = -1.7633239265736746e-07
M15 = -3.277287633208865e-06
M16 = 3.2054316652589574e-07
M17 = 4.91996233147834e-07
M18 = -6.588974491108954e-08
M19 = -7.758520236786343e-08
M20 = 9.092476134019147e-09
M21 = 1.1032071151574336e-08
M22 = -7.073898575561589e-10
M23 = -9.564832934712551e-10
X0 = 1.2945411512431624
X1 = -0.36872296454501824
X2 = -0.028030699627535318
X3 = 0.26116700784716246
X4 = -0.2735482037622689
X5 = 0.15402166231123107
X6 = -0.029310982484216187
X7 = -0.03186187270803922
X8 = 0.03474622704411568
X9 = -0.016131705895756486
X10 = 0.0023283136856683535
X11 = 0.0015767756175029339
X12 = -0.000852726679260871
X13 = -3.5818170996182e-05
X14 = 0.00014692756303243338
X15 = -1.7203931061125266e-05
X16 = -2.3355088213939513e-05
X17 = 4.971636920474042e-06
X18 = 3.9473272317334125e-06
X19 = -9.985214771598005e-07
X20 = -6.968399656044212e-07
X21 = 1.6601511154204576e-07
X22 = 1.073022959586397e-07
X23 = -2.1184998715660543e-08
X24 = -9.684045797029939e-09
X25 = 1.5294186063516205e-09


def mills(z: Real) -> Real:
    """Return Mills' ratio (1 - Phi(z)) / phi(z) for z >= 0, within 2 eps (measured on 9,000 points)."""
    z = minimum(z, HUGE)
    s = (z - S_CENTRE) / (z + S_CENTRE)
    t = s * s
    even = (((M22 * t + M20) * t + M18) * t + M16) * t + M14
    even = (((even * t + M12) * t + M10) * t + M8) * t + M6
    even = ((even * t + M4) * t + M2) * t + M0
    odd = (((M23 * t + M21) * t + M19) * t + M17) * t + M15
    odd = (((odd * t + M13) * t + M11) * t + M9) * t + M7
    odd = ((odd * t + M5) * t + M3) * t + M1
    return (even + s * odd) / (ONE + z)


def mills_excess(z: Real) -> Real:
    """Return 1 - z mills(z) for z >= 0, within 4 eps (measured on 9,000 points): 1/z^2 for large z."""
    z = minimum(z, HUGE)
    s = (z - S_CENTRE) / (z + S_CENTRE)
    t = s * s
    even = (((X24 * t + X22) * t + X20) * t + X18) * t + X16
    even = (((even * t + X14) * t + X12) * t + X10) * t + X8
    even = (((even * t + X6) * t + X4) * t + X2) * t + X0
    odd = (((X25 * t + X23) * t + X21) * t + X19) * t + X17
    odd = (((odd * t + X15) * t + X13) * t + X11) * t + X9
    odd = (((odd * t + X7) * t + X5) * t + X3) * t + X1
    return (even + s * odd) / ((ONE + z) * (ONE + z))
