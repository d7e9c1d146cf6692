"""The words inside kernels: those of `bmrs_core.philox`, and Random123's known answers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from bmrs_core import philox
from bmrs_kernels.cpu.cache import cached_njit
from bmrs_kernels.cpu.philox import fill_words


def _filled(seed: Any, start: Any, count: Any, room: Any) -> Any:
    return fill_words(seed, start, count, room)


def words(seed: int, start: int, count: int) -> NDArray[np.uint32]:
    room = np.zeros(count + 7, np.uint32)
    offset = cached_njit(_filled)(np.int64(seed), np.int64(start), np.int64(count), room)
    return room[offset : offset + count]


@pytest.mark.parametrize("seed", [0, 1, -1, 2**63 - 1, -(2**63), -1234567890123456789])
@pytest.mark.parametrize(
    ("start", "count"), [(0, 0), (0, 1), (0, 1000), (1, 6), (2, 4), (3, 9), (2**34 - 3, 9), (2**62 + 1, 5)]
)
def test_any_stretch_equals_the_array_functions(seed: int, start: int, count: int) -> None:
    assert np.array_equal(words(seed, start, count), philox.words(seed, start, count))


def test_known_answer() -> None:
    # Of Random123's three, the one whose counter fits into 64 bits; tests/core/test_philox.py has them all.
    assert words(0, 0, 4).tolist() == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
