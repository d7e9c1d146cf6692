"""The inverse of the normal's upper tail."""

from __future__ import annotations

from bmrs_core.formulas.constants import HALF, ONE
from bmrs_core.formulas.primitives import Real, log, maximum, sqrt, where

__all__ = ["upper_quantile"]

# M. J. Wichura, Algorithm AS 241: The percentage points of the normal distribution, Applied Statistics
# 37 (1988), PPND16: rationals in 0.180625 - (p - 1/2)^2 in the centre, in sqrt(-log p) - 1.6 and
# sqrt(-log p) - 5 in the tail. Truncation measured in 40 digits: 1.0e-16, 1.7e-16, 1.0e-16.
CENTRE = 0.425
CENTRE_SQUARE = 0.180625
MIDDLE_ORIGIN = 1.6
FAR_ORIGIN = 5.0
CN0 = 3.3871328727963665
CN1 = 133.14166789178438
CN2 = 1971.5909503065513
CN3 = 13731.69376550946
CN4 = 45921.95393154987
CN5 = 67265.7709270087
CN6 = 33430.57558358813
CN7 = 2509.0809287301227
CD1 = 42.31333070160091
CD2 = 687.1870074920579
CD3 = 5394.196021424751
CD4 = 21213.794301586597
CD5 = 39307.89580009271
CD6 = 28729.085735721943
CD7 = 5226.495278852854
MN0 = 1.4234371107496835
MN1 = 4.630337846156546
MN2 = 5.769497221460691
MN3 = 3.6478483247632045
MN4 = 1.2704582524523684
MN5 = 0.2417807251774506
MN6 = 0.022723844989269184
MN7 = 0.0007745450142783414
MD1 = 2.053191626637759
MD2 = 1.6763848301838038
MD3 = 0.6897673349851
MD4 = 0.14810397642748008
MD5 = 0.015198666563616457
MD6 = 0.0005475938084995345
MD7 = 1.0507500716444169e-09
FN0 = 6.657904643501103
FN1 = 5.463784911164114
FN2 = 1.7848265399172913
FN3 = 0.29656057182850487
FN4 = 0.026532189526576124
FN5 = 0.0012426609473880784
FN6 = 2.7115555687434876e-05
FN7 = 2.0103343992922881e-07
FD1 = 0.599832206555888
FD2 = 0.1369298809227358
FD3 = 0.014875361290850615
FD4 = 0.0007868691311456133
FD5 = 1.8463183175100548e-05
FD6 = 1.421511758316446e-07
FD7 = 2.0442631033899397e-15


def upper_quantile(p: Real) -> Real:
    """Return z >= 0 with 1 - Phi(z) = p, for 1e-316 < p <= 1/2."""
    centre = HALF - p
    c = CENTRE_SQUARE - centre * centre
    root = sqrt(maximum(-log(p), HALF))
    m = root - MIDDLE_ORIGIN
    f = root - FAR_ORIGIN
    c_num = ((CN7 * c + CN6) * c + CN5) * c + CN4
    c_num = (((c_num * c + CN3) * c + CN2) * c + CN1) * c + CN0
    c_den = ((CD7 * c + CD6) * c + CD5) * c + CD4
    c_den = (((c_den * c + CD3) * c + CD2) * c + CD1) * c + ONE
    m_num = ((MN7 * m + MN6) * m + MN5) * m + MN4
    m_num = (((m_num * m + MN3) * m + MN2) * m + MN1) * m + MN0
    m_den = ((MD7 * m + MD6) * m + MD5) * m + MD4
    m_den = (((m_den * m + MD3) * m + MD2) * m + MD1) * m + ONE
    f_num = ((FN7 * f + FN6) * f + FN5) * f + FN4
    f_num = (((f_num * f + FN3) * f + FN2) * f + FN1) * f + FN0
    f_den = ((FD7 * f + FD6) * f + FD5) * f + FD4
    f_den = (((f_den * f + FD3) * f + FD2) * f + FD1) * f + ONE
    central = centre <= CENTRE
    middle = root <= FAR_ORIGIN
    num = where(central, centre * c_num, where(middle, m_num, f_num))
    return num / where(central, c_den, where(middle, m_den, f_den))
