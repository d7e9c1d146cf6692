"""The mean of the exponential of a short quadratic, as a polynomial.

Over a support that is short in units of sigma, q is exp(-(p t + q t^2)) with t in [-1, 1], up to a
constant: p is the slope and q the curvature of its exponent. The mean is even in p.
"""

from __future__ import annotations

from bmrs_core.formulas.primitives import Real

__all__ = ["short_excess"]

# With s = p^2, the mean less 1 is s a(s, q) + q b(q). a and b were interpolated at 16 Chebyshev points in
# 40 digits for |p| <= 1/2 and q <= 9/32, i.e. w h <= 1 and w <= 3/2, and their Chebyshev series cut below
# 3e-17: truncation 2e-16 of the larger of s/6 and q/3. S<j>_<i> is the coefficient of q^j s^i.
S0_1 = 0.16666666666666669
S0_2 = 0.00833333333333202
S0_3 = 0.00019841269842893797
S0_4 = 2.755731846513556e-06
S0_5 = 2.5052264029713277e-08
S0_6 = 1.6062691605781268e-10
S1_0 = -0.3333333333333333
S1_1 = -0.10000000000000267
S1_2 = -0.005952380952162059
S1_3 = -0.0001543209898314396
S1_4 = -2.2546830613841655e-06
S1_5 = -2.1204985110375777e-08
S1_6 = -1.2364707339673331e-10
S2_0 = 0.09999999999999944
S2_1 = 0.035714285714298924
S2_2 = 0.0023148148079718
S2_3 = 6.313137102385544e-05
S2_4 = 9.537550502674605e-07
S2_5 = 9.170387087071063e-09
S3_0 = -0.02380952380946973
S3_1 = -0.009259259256088653
S3_2 = -0.0006313130400700261
S3_3 = -1.780681694635343e-05
S3_4 = -2.7400784699816636e-07
S3_5 = -2.3951839188437567e-09
S4_0 = 0.004629629627651207
S4_1 = 0.0018939393007515618
S4_2 = 0.00013354625272205337
S4_3 = 3.859850163216906e-06
S4_4 = 5.392119462397589e-08
S5_0 = -0.000757575721291977
S5_1 = -0.00032051161678374885
S5_2 = -2.3143437394197604e-05
S5_3 = -6.804111509867313e-07
S6_0 = 0.00010683723260044141
S6_1 = 4.6287802682365913e-05
S6_2 = 3.383876144116994e-06
S6_3 = 9.001003766951235e-08
S7_0 = -1.3225241137503802e-05
S7_1 = -5.801782259403217e-06
S7_2 = -3.863120113506322e-07
S8_0 = 1.4508439659059372e-06
S8_1 = 5.805544111109324e-07
S9_0 = -1.2941025423859644e-07


def short_excess(p: Real, q: Real) -> Real:
    """Return the mean of exp(-(p t + q t^2)) over t uniform in [-1, 1], less 1.

    For |p| <= 1/2 and 0 <= q <= 9/32, within 1.5 eps of the larger of p^2/6 and q/3.
    """
    s = p * p
    r0 = (((S0_6 * s + S0_5) * s + S0_4) * s + S0_3) * s + S0_2
    r0 = r0 * s + S0_1
    r1 = (((S1_6 * s + S1_5) * s + S1_4) * s + S1_3) * s + S1_2
    r1 = (r1 * s + S1_1) * s + S1_0
    r2 = (((S2_5 * s + S2_4) * s + S2_3) * s + S2_2) * s + S2_1
    r2 = r2 * s + S2_0
    r3 = (((S3_5 * s + S3_4) * s + S3_3) * s + S3_2) * s + S3_1
    r3 = r3 * s + S3_0
    r4 = (((S4_4 * s + S4_3) * s + S4_2) * s + S4_1) * s + S4_0
    r5 = ((S5_3 * s + S5_2) * s + S5_1) * s + S5_0
    r6 = ((S6_3 * s + S6_2) * s + S6_1) * s + S6_0
    r7 = (S7_2 * s + S7_1) * s + S7_0
    r8 = S8_1 * s + S8_0
    r9 = S9_0
    high = ((r9 * q + r8) * q + r7) * q + r6
    high = ((high * q + r5) * q + r4) * q + r3
    return s * r0 + q * ((high * q + r2) * q + r1)
