"""The compiled binding: its own elementary functions, its cache and its vector code."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import Any

import mpmath
import numpy as np
import pytest
from numba import njit

import bmrs_core
from bmrs_core.backends.array_api import bind_namespace
from bmrs_core.backends.formula import FORMULAS
from bmrs_core.backends.numba_elementary import decay, exp, expm1, log, log1p
from bmrs_core.backends.numba_kernels import BLOCK, RUN, at, compiled_texts, numba_functions

EPS = 2.0**-52


# Measured on these points: 0.5, 0.5, 0.9, 0.6 and 0.9 of eps; a regression of any is at least twice that.
WORST = 1.5


def applied(function: Any, *arguments: Any) -> Any:
    """Call a function that only compiled code calls."""

    @njit  # type: ignore[untyped-decorator]
    def caller(*values: Any) -> Any:
        return function(*values)

    return caller(*arguments)


def looped(function: Any, *columns: Any) -> Any:
    """Call it on each row."""
    if len(columns) == 1:
        return njit(lambda x: np.array([function(value) for value in x]))(*columns)
    return njit(lambda *x: np.array([function(*at(x, i)) for i in range(x[0].size)]))(*columns)


def points(low: float, high: float, signs: bool) -> np.ndarray[Any, np.dtype[np.float64]]:
    draw = np.random.default_rng(3)
    x = np.exp2(draw.uniform(low, high, 1500))
    return np.concatenate([x, -x]) if signs else x


@pytest.mark.parametrize(
    ("function", "exact", "x"),
    [
        (exp, mpmath.exp, points(-60, 9.4, signs=True)),
        (decay, mpmath.exp, -points(-60, 9.4, signs=False)),
        (expm1, mpmath.expm1, points(-60, 9.4, signs=True)),
        (log, mpmath.log, points(-1060, 1023, signs=False)),
        (log, mpmath.log, 1 + points(-52, -1, signs=True)),
        (log1p, mpmath.log1p, points(-60, 1000, signs=False)),
        (log1p, mpmath.log1p, -points(-60, -0.001, signs=False)),
    ],
    ids=["exp", "decay", "expm1", "log", "log near 1", "log1p", "log1p below 0"],
)
def test_elementary_functions_are_within_1_ulp_or_so(function: Any, exact: Any, x: Any) -> None:
    with mpmath.workdps(40):
        truth = [exact(mpmath.mpf(float(value))) for value in x]
        found = [mpmath.mpf(float(value)) for value in looped(function, x)]
        errors = [abs(a / b - 1) for a, b in zip(found, truth, strict=True) if b != 0 and abs(b) > 1e-300]
    assert float(max(errors)) / EPS < WORST


@pytest.mark.parametrize(
    ("function", "x", "expected"),
    [
        (exp, 0.0, 1.0),
        (exp, 1000.0, np.inf),
        (exp, np.inf, np.inf),
        (exp, -np.inf, 0.0),
        (exp, -745.0, 5e-324),
        (decay, 0.0, 1.0),
        (decay, -708.39, np.exp(-708.39)),
        (decay, -708.4, 0.0),
        (decay, -745.0, 0.0),
        (decay, -1e300, 0.0),
        (decay, -np.inf, 0.0),
        (expm1, -1000.0, -1.0),
        (expm1, np.inf, np.inf),
        (expm1, 709.7, np.expm1(709.7)),
        (log, 0.0, -np.inf),
        (log, np.inf, np.inf),
        (log, -1.0, np.nan),
        (log, 5e-324, np.log(5e-324)),
        (log1p, -1.0, -np.inf),
        (log1p, np.inf, np.inf),
        (log1p, -2.0, np.nan),
    ],
)
def test_elementary_functions_at_their_ends(function: Any, x: float, expected: float) -> None:
    assert applied(function, x) == pytest.approx(expected, rel=2 * EPS, abs=0.0, nan_ok=True)


@pytest.mark.parametrize("function", [decay, exp, expm1, log, log1p])
def test_nan_stays_nan(function: Any) -> None:
    assert np.isnan(applied(function, np.nan))


def test_what_only_compiled_code_calls_says_so() -> None:
    with pytest.raises(TypeError, match=r"exp is compiled for other compiled functions .* numba\.njit"):
        exp(1.0)


def test_a_loop_over_a_common_text_becomes_vector_code() -> None:
    """One call that is not inlined costs a factor of ten, and no test of values would notice."""
    text = compiled_texts()["kl_divergence_common"]

    @njit(error_model="numpy")  # type: ignore[untyped-decorator]
    def loop(mu: Any, sigma: Any, out: Any) -> None:
        for i in range(out.size):
            out[i] = text(mu[i], sigma[i], -20.0, 0.0)

    loop(np.full(64, -3.0), np.full(64, 0.5), np.empty(64))
    assembly = "".join(loop.inspect_asm().values())
    packed = len(re.findall(r"\bv?(?:mul|add|sub|fn?m\w+)pd\b", assembly))
    scalar = len(re.findall(r"\bv?(?:mul|add|sub|fn?m\w+)sd\b", assembly))
    if packed + scalar == 0:
        pytest.skip("not an x86 machine: the mnemonics are others")
    assert packed >= scalar  # the scalar loop is for the elements left over


def test_a_compiled_function_is_read_from_the_disk_by_the_next_process() -> None:
    program = (
        "import bmrs_core\n"
        "from bmrs_core.backends.numba_kernels import numba_functions\n"
        "bmrs_core.kl_divergence(-3.0, 0.5)\n"
        "for loop in numba_functions('kl_divergence'):\n"
        "    print(sum(loop.stats.cache_hits.values()), sum(loop.stats.cache_misses.values()))\n"
    )
    for _ in range(2):
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    # The common text, where the rare one is needed, and that itself: nowhere here.
    assert done.stdout.split() == ["1", "0", "1", "0", "0", "0"]


def test_a_regime_is_compiled_when_an_element_needs_it() -> None:
    program = (
        "import bmrs_core\n"
        "from bmrs_core.backends.numba_kernels import numba_functions\n"
        "for sigma in (0.5, 100.0):\n"
        "    bmrs_core.kl_divergence([-3.0, -2.0], [0.5, sigma])\n"
        "    print(*[len(loop.signatures) for loop in numba_functions('kl_divergence')])\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1", "1", "0", "1", "1", "1"]


def test_each_kernel_is_compiled_for_one_signature_only() -> None:
    x = np.linspace(-5.0, -1.0, 10)
    for mu in (-3.0, x, x[::2], x.astype(np.float32), x.astype(">f8"), np.asfortranarray(x.reshape(2, 5))):
        bmrs_core.mean(mu, 0.5)
    bmrs_core.mean(x, 0.5, out=np.empty((10, 2))[:, 0])
    assert [len(loop.signatures) for loop in numba_functions("mean")] == [1]


def test_elementary_functions_inline_into_a_users_loop() -> None:
    @njit  # type: ignore[untyped-decorator]
    def total(x: Any) -> float:
        result = 0.0
        for value in x:
            result += exp(value)
        return result

    assert total(np.zeros(4)) == 4.0


def five_parts(size: int) -> tuple[Any, ...]:
    """Draw u, mu, sigma, a and b of every regime and shortcut, with u also near and at its ends."""
    draw = np.random.default_rng(11)
    u = np.where(draw.random(size) < 0.1, 10.0 ** draw.uniform(-25, -14, size), draw.random(size))
    u = np.where(draw.random(size) < 0.01, draw.integers(0, 2, size), u)
    mu, sigma = draw.uniform(-40, 20, size), np.exp(draw.uniform(-20, 5, size))
    return u, mu, sigma, np.full(size, -20.0), np.zeros(size)


def test_each_part_of_a_partitioned_formula_is_tried() -> None:
    texts, inputs = compiled_texts(), five_parts(5000)
    for part in ("interior", "rare", *FORMULAS["log_quantile"].shortcuts):
        assert looped(texts[f"log_quantile_is_{part}"], *inputs).sum() > 200


@pytest.mark.parametrize("size", [1, 40, RUN, RUN + 1, BLOCK, 2 * BLOCK + 5])
def test_the_shortcuts_and_the_partition_change_no_quantile(size: int) -> None:
    """NumPy's binding evaluates the regimes everywhere, without shortcuts."""
    u, mu, sigma, a, b = five_parts(size)
    with np.errstate(all="ignore"):
        expected = bind_namespace(np)["log_quantile"](u, mu, sigma, a, b)
    found = bmrs_core.log_quantile(u, mu, sigma)
    # Of the distance from the bound or mu: 16 eps are lost where it is near; of x itself, its rounding.
    assert np.max(np.abs(found - expected) / (16 * EPS * np.maximum(np.abs(expected), 1.0))) < 1.0
    assert np.array_equal(found, [float(bmrs_core.log_quantile(*x)) for x in zip(u, mu, sigma, strict=True)])


@pytest.mark.parametrize("mu", [-3.0, 5.0, np.nan])
def test_a_block_of_a_single_part_is_complete(mu: float) -> None:
    """All of its places stand in one list, the others are empty."""
    found = bmrs_core.log_quantile(np.full(2 * BLOCK, 0.5), mu, 0.1)
    assert np.array_equal(found, np.full(2 * BLOCK, bmrs_core.log_quantile(0.5, mu, 0.1)), equal_nan=True)
