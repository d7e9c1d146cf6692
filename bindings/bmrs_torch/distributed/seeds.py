"""Where the rank enters the noise: into the key of Philox, beside the seed that torch's generator gives."""

from __future__ import annotations

import operator

from torch import Tensor, distributed

__all__ = ["key_of_rank", "noise_rank", "of_this_rank", "set_noise_rank"]

_STEP = 0x9E3779B97F4A7C15
"""2⁶⁴/φ, odd: its multiples by 0, 1, 2, … are all different, and differ in about half of all bits."""

_given: int | None = None


def set_noise_rank(rank: int | None) -> None:
    """Say by which number this process draws its noise, where that is not its rank among all.

    Processes that work on the same samples, as those of tensor parallelism, have to draw the same noise: give
    each of them its rank in the data-parallel mesh.

    Parameters
    ----------
    rank : int or None
        At least 0. None: the rank in the default group of torch.distributed, or 0 without one.

    Raises
    ------
    TypeError, ValueError
        If it is no whole number, or a negative one.

    Examples
    --------
    >>> from bmrs_torch.distributed import noise_rank, set_noise_rank
    >>> set_noise_rank(3)
    >>> noise_rank()
    3
    >>> set_noise_rank(None)
    """
    global _given  # noqa: PLW0603 - of the process, as its rank is
    number = None if rank is None else operator.index(rank)
    if number is not None and number < 0:
        raise ValueError(f"rank must be at least 0, the number of a process, got {rank}")
    _given = number


def noise_rank() -> int:
    """The number by which this process draws its noise: 0 if it works alone."""
    if _given is not None:
        return _given
    return distributed.get_rank() if distributed.is_available() and distributed.is_initialized() else 0


def key_of_rank(rank: int) -> int:
    """What a rank does to the bits of a 64-bit seed; nothing for rank 0."""
    key = rank * _STEP % 2**64
    return key - 2**64 if key >= 2**63 else key


def of_this_rank(seed: Tensor) -> Tensor:
    """The seed that this process uses where every process drew `seed`, int64."""
    rank = noise_rank()
    return seed ^ key_of_rank(rank) if rank else seed
