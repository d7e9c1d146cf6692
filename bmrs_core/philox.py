"""Philox4x32-10: random words from a counter, so that any element's draw can be computed on its own.

J. K. Salmon, M. A. Moraes, R. O. Dror and D. E. Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC'11.
Element ``i`` of the stream of a 64-bit ``seed`` is word ``i % 4`` of the block at counter ``(i // 4 low 32
bits, i // 4 high 32 bits, 0, 0)`` under the key ``(seed low 32 bits, seed high 32 bits)``. Nothing else
enters: neither threads, nor the order of evaluation, nor the device, so every implementation of the noise
layer draws the same numbers.
"""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["philox4x32_10", "uniform", "words"]

_ROUNDS = 10
_MULTIPLIER_0 = np.uint64(0xD2511F53)
_MULTIPLIER_1 = np.uint64(0xCD9E8D57)
_WEYL_0 = 0x9E3779B9
_WEYL_1 = 0xBB67AE85
_MASK_32 = 0xFFFFFFFF
_LOW = np.uint64(_MASK_32)
_SHIFT = np.uint64(32)


def philox4x32_10(
    counters: NDArray[np.uint32] | tuple[int, int, int, int], key: tuple[int, int]
) -> NDArray[np.uint32]:
    """Ten rounds of the Philox4x32 bijection.

    Parameters
    ----------
    counters : array of uint32, shape (..., 4)
        The counters, one block each.
    key : tuple of two int
        The two 32-bit halves of the key.

    Returns
    -------
    ndarray of uint32, shape (..., 4)
        The four words of each block.

    Examples
    --------
    >>> [hex(word) for word in philox4x32_10((0, 0, 0, 0), (0, 0)).tolist()]
    ['0x6627e8d5', '0xe169c58d', '0xbc57ac4c', '0x9b00dbd8']
    """
    blocks = np.asarray(counters, dtype=np.uint32).astype(np.uint64)
    c0, c1, c2, c3 = (blocks[..., i] for i in range(4))
    for i in range(_ROUNDS):
        k0 = np.uint64((key[0] + i * _WEYL_0) & _MASK_32)
        k1 = np.uint64((key[1] + i * _WEYL_1) & _MASK_32)
        product_0, product_1 = _MULTIPLIER_0 * c0, _MULTIPLIER_1 * c2
        c0, c1, c2, c3 = (
            (product_1 >> _SHIFT) ^ c1 ^ k0,
            product_1 & _LOW,
            (product_0 >> _SHIFT) ^ c3 ^ k1,
            product_0 & _LOW,
        )
    return np.stack((c0, c1, c2, c3), axis=-1).astype(np.uint32)


def words(seed: int, start: int, count: int) -> NDArray[np.uint32]:
    """Random 32-bit words of the elements ``start … start + count − 1``.

    Parameters
    ----------
    seed : int
        64 bits, signed or unsigned: −1 and 2**64 − 1 are the same seed.
    start : int
        First element, at least 0.
    count : int
        Number of elements, at least 0.

    Returns
    -------
    ndarray of uint32, shape (count,)

    Raises
    ------
    ValueError
        If the seed does not fit in 64 bits, or an element lies outside [0, 2**64).
    TypeError
        If an argument is not an integer.

    Examples
    --------
    >>> bool((words(7, 0, 10)[3:] == words(7, 3, 7)).all())
    True
    """
    seed, start, count = operator.index(seed), operator.index(start), operator.index(count)
    if not -(2**63) <= seed < 2**64:
        raise ValueError(f"seed must fit in 64 bits (it is the key of the generator), got {seed}")
    if start < 0 or count < 0 or start + count > 2**64:
        raise ValueError(
            f"start and count must be at least 0 and start + count at most 2**64 (elements are counted by a "
            f"64-bit integer), got start={start}, count={count}"
        )
    first, last = start // 4, -(-(start + count) // 4)
    blocks = np.uint64(first) + np.arange(last - first, dtype=np.uint64)
    counters = np.zeros((blocks.size, 4), dtype=np.uint32)
    counters[:, 0] = (blocks & _LOW).astype(np.uint32)
    counters[:, 1] = (blocks >> _SHIFT).astype(np.uint32)
    key = (seed & _MASK_32, (seed >> 32) & _MASK_32)
    stream = philox4x32_10(counters, key).reshape(-1)
    return stream[start - 4 * first : start - 4 * first + count]


def uniform(seed: int, start: int, count: int) -> NDArray[np.float64]:
    """Uniform draws ``(k + ½)·2⁻³²`` of the elements ``start … start + count − 1``, ``k`` being their words.

    The half step keeps them in the open interval (0, 1), where every quantile function is finite, and makes
    them symmetric about ½.

    Parameters
    ----------
    seed, start, count : int
        As for :func:`words`.

    Returns
    -------
    ndarray of float64, shape (count,)

    Raises
    ------
    ValueError, TypeError
        As for :func:`words`.

    Examples
    --------
    >>> uniform(0, 0, 2).round(6).tolist()
    [0.399046, 0.88052]
    """
    return (words(seed, start, count).astype(np.float64) + 0.5) * 2.0**-32
