"""Philox4x32-10: Random123's known answers, and the properties the noise layer relies on."""

from __future__ import annotations

import numpy as np
import pytest

from bmrs_core import philox

# From Random123's kat_vectors file (Salmon et al.), "philox4x32 10": counter, key, expected words.
KNOWN_ANSWERS = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN_ANSWERS)
def test_known_answers(
    counter: tuple[int, int, int, int], key: tuple[int, int], expected: tuple[int, ...]
) -> None:
    assert tuple(philox.philox4x32_10(counter, key).tolist()) == expected


def test_blocks_are_independent_of_each_other() -> None:
    counters = np.array([known[0] for known in KNOWN_ANSWERS], dtype=np.uint32)
    together = philox.philox4x32_10(counters, (1, 2))
    alone = [philox.philox4x32_10(tuple(row), (1, 2)) for row in counters.tolist()]
    assert np.array_equal(together, np.stack(alone))


@pytest.mark.parametrize("start", [0, 1, 3, 4, 17, 2**32 - 3, 4 * 2**32 - 2, 2**64 - 9])
def test_any_stretch_equals_its_elements_one_by_one(start: int) -> None:
    stretch = philox.words(123456789012345, start, 9)
    assert stretch.tolist() == [philox.words(123456789012345, start + i, 1)[0] for i in range(9)]


def test_counter_and_key_layout() -> None:
    seed, element = 0x299F31D0_A4093822, 4 * 0x85A308D3_243F6A88 % 2**64 + 2
    block = element // 4
    expected = philox.philox4x32_10((block & 0xFFFFFFFF, block >> 32, 0, 0), (0xA4093822, 0x299F31D0))
    assert philox.words(seed, element, 1)[0] == expected[2]


def test_signed_and_unsigned_seeds_agree() -> None:
    assert np.array_equal(philox.words(-1, 0, 8), philox.words(2**64 - 1, 0, 8))


def test_uniform_is_open_and_centred(monkeypatch: pytest.MonkeyPatch) -> None:
    extremes = np.array([0, 2**32 - 1], dtype=np.uint32)
    monkeypatch.setattr(philox, "words", lambda *_: extremes)
    low, high = philox.uniform(0, 0, 2)
    assert 0.0 < low == 1.0 - high < 1.0


def test_uniform_moments() -> None:
    u = philox.uniform(5, 0, 200_000)
    # Six standard errors of the mean and of the variance of a uniform variable.
    assert abs(u.mean() - 0.5) < 6 * np.sqrt(1 / 12 / u.size)
    assert abs(u.var() - 1 / 12) < 6 * np.sqrt(1 / 180 / u.size)


def test_empty() -> None:
    assert philox.uniform(0, 5, 0).shape == (0,)


@pytest.mark.parametrize(
    "arguments", [(2**64, 0, 1), (-(2**63) - 1, 0, 1), (0, -1, 1), (0, 0, -1), (0, 2**64, 1)]
)
def test_out_of_range_is_refused(arguments: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="64"):
        philox.words(*arguments)


def test_non_integers_are_refused() -> None:
    with pytest.raises(TypeError):
        philox.words(0.5, 0, 1)  # type: ignore[arg-type]
