"""The digest of what machine code is made of: it changes with each of those things, and with nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
import types
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numba import njit
from numba import types as numba_types
from numba.extending import intrinsic, overload

from bmrs_core.backends.frozen import frozen_digest

LIMIT = 80.0
WEIGHTS = np.ones(3)
RULES = {"shift": (1, 2)}
SETTINGS = types.ModuleType("settings_of_a_test")
SETTINGS.limit = 80.0  # type: ignore[attr-defined]


def _widened(_x: Any) -> Any:
    raise NotImplementedError


@overload(_widened)
def _widened_overload(_x):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    return lambda _x: _x * LIMIT


@intrinsic  # type: ignore[untyped-decorator]
def _limited(_context: Any, _x: Any) -> Any:
    def generate(context: Any, _builder: Any, _signature: Any, _args: Any) -> Any:
        return context.get_constant(numba_types.float64, LIMIT)

    return numba_types.float64(numba_types.float64), generate


@njit  # type: ignore[untyped-decorator]
def _beyond(x: Any) -> Any:
    return x > LIMIT


def by_its_own_global(x: Any) -> Any:
    return x > LIMIT


def by_what_it_calls(x: Any) -> Any:
    return _beyond(x)


def by_an_overload(x: Any) -> Any:
    return _widened(x)


def by_an_intrinsic(x: Any) -> Any:
    return _limited(x)


@pytest.mark.parametrize(
    "function",
    [by_its_own_global, by_what_it_calls, by_an_overload, by_an_intrinsic],
    ids=lambda f: f.__name__,
)
def test_a_changed_constant_changes_the_digest(
    function: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    dispatcher = njit(function)
    before = frozen_digest(dispatcher)
    assert frozen_digest(dispatcher) == before
    monkeypatch.setitem(globals(), "LIMIT", 5.0)
    assert frozen_digest(dispatcher) != before


def test_a_changed_array_or_table_or_attribute_of_a_module_changes_the_digest() -> None:
    @njit  # type: ignore[untyped-decorator]
    def weighted(x: Any) -> Any:
        return x * WEIGHTS[0] + RULES["shift"][0] + SETTINGS.limit

    digests = [frozen_digest(weighted)]
    WEIGHTS[1] = 2.0
    digests.append(frozen_digest(weighted))
    RULES["shift"] = (1, 3)
    digests.append(frozen_digest(weighted))
    SETTINGS.limit = 5.0  # type: ignore[attr-defined]
    digests.append(frozen_digest(weighted))
    assert len(set(digests)) == 4


def test_the_type_of_a_constant_and_the_options_count() -> None:
    def bound(limit: Any, **options: Any) -> str:
        namespace = {**globals(), "LIMIT": limit}
        return frozen_digest(njit(**options)(types.FunctionType(by_its_own_global.__code__, namespace)))

    digests = [bound(1), bound(1.0), bound(np.float32(1)), bound(1.0, fastmath=True), bound(1.0, nogil=True)]
    assert len(set(digests)) == len(digests)


def test_a_value_that_cannot_be_told_from_others_is_refused() -> None:
    namespace = {**globals(), "LIMIT": object()}
    with pytest.raises(TypeError, match="pass it as an argument"):
        frozen_digest(njit(types.FunctionType(by_its_own_global.__code__, namespace)))


def test_the_digests_of_all_formulas_are_the_same_in_each_process() -> None:
    """Sets have another order in each, and equal constants may be one object or two."""
    program = (
        "from bmrs_core.backends.formula import FORMULAS\n"
        "from bmrs_core.backends.frozen import frozen_digest\n"
        "from bmrs_core.backends.numba_kernels import numba_functions\n"
        "print([frozen_digest(loop) for name in FORMULAS for loop in numba_functions(name)])\n"
    )
    answers = [
        subprocess.run(
            [sys.executable, "-c", program],
            capture_output=True,
            text=True,
            check=True,
            timeout=300,
            env={**os.environ, "PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2")
    ]
    assert answers[0] == answers[1]
