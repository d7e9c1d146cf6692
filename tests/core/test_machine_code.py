"""Machine code on disk: never older than what it was made of, and missed by nobody where it can't be kept."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path
from types import FunctionType

import numpy as np
import pytest

from bmrs_core.backends.machine_code import frozen_values

ROOT = Path(__file__).parents[2]


def process(code: str, cache: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    """Run a script in which modules of its own folder can be imported, with a cache folder of its own."""
    path = os.pathsep.join([str(cache.parent), *sys.path])
    return subprocess.run(
        [sys.executable, *flags, "-c", textwrap.dedent(code)],
        env={**os.environ, "NUMBA_CACHE_DIR": str(cache), "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    """Three modules, as kernels have them: constants, a function that uses them, one that calls it."""
    (tmp_path / "bmrs_limits.py").write_text("LIMIT = 80.0\nTABLE = (1.0, 2.0)\n")
    (tmp_path / "bmrs_inner.py").write_text(
        "import bmrs_limits\nfrom bmrs_limits import LIMIT\nfrom numba import njit\n\n"
        "@njit\ndef inner(x):\n    return x + LIMIT + bmrs_limits.TABLE[1]\n"
    )
    (tmp_path / "bmrs_outer.py").write_text(
        "from types import FunctionType\nfrom bmrs_core.backends.machine_code import compiled\n"
        "from bmrs_inner import inner\n\ndef outer(x):\n    return inner(x)\n\n"
        "clone = FunctionType(outer.__code__, outer.__globals__, 'outer')\n"
        "outer = compiled(clone, name='test', sources='', signature='float64(float64)', nogil=True)\n"
    )
    return tmp_path


@pytest.mark.parametrize(
    ("change", "answer"),
    [
        ("bmrs_limits.LIMIT = 5.0", 8.0),
        ("bmrs_limits.TABLE = (1.0, 7.0)", 88.0),
        ("pass", 83.0),
    ],
)
def test_a_changed_constant_is_seen_however_far_away_it_is(texts: Path, change: str, answer: float) -> None:
    hits = "sum(outer.stats.cache_hits.values())"
    script = "import bmrs_limits\n{}\nfrom bmrs_outer import outer\n" + f"print(outer(1.0), {hits})"
    assert process(script.format("pass"), texts / "cache").stdout.split() == ["83.0", "0"]
    found = process(script.format(change), texts / "cache")
    assert found.stdout.split() == [str(answer), "1" if change == "pass" else "0"], found.stderr
    assert process(script.format("pass"), texts / "cache").stdout.split() == ["83.0", "1"]


def test_a_kernels_name_covers_the_limits_of_the_contract() -> None:
    """They lie outside the modules that Numba looks at, and reach kernels under other names."""
    from bmrs_kernels.contract import LOG_SIGMA_LIMIT
    from bmrs_kernels.cpu.together_kernels import together_kernels

    values = "\n".join(frozen_values(together_kernels().draw.py_func))
    assert f"LIMIT = <class 'numpy.float32'> {np.float32(LOG_SIGMA_LIMIT)!r}" in values


def test_frozen_values_tell_arrays_and_numbers_apart() -> None:
    def text() -> object:
        return WEIGHTS  # type: ignore[name-defined]  # noqa: F821

    def told(value: object) -> list[str]:
        return list(frozen_values(FunctionType(text.__code__, {"WEIGHTS": value}, "text")))

    values = [1, 1.0, True, (1,), np.float32(1), np.ones(1), np.ones(2), np.ones(1, np.float32), "1", None]
    assert len({tuple(told(value)) for value in values}) == len(values)


ANSWER = "import bmrs_core; print(float(bmrs_core.log_normalizer(-1.0, 1.0)))"


def test_without_any_folder_it_works_and_says_so_once(tmp_path: Path) -> None:
    script = """
    from numba.core import caching
    for found in vars(caching).values():
        if hasattr(found, "_locator_classes"):
            found._locator_classes = []
    import bmrs_core
    print(float(bmrs_core.log_normalizer(-1.0, 1.0)), float(bmrs_core.snr(-1.0, 1.0)))
    """
    found = process(script, tmp_path / "cache")
    assert found.returncode == 0, found.stderr
    assert found.stderr.count("NUMBA_CACHE_DIR") == 1


@pytest.mark.parametrize("error", ["OSError(28, 'No space left on device')", "PermissionError(13, 'denied')"])
def test_a_folder_that_takes_nothing_is_no_error(texts: Path, error: str) -> None:
    script = f"""
    from numba.core import caching
    def refuse(self, *_arguments):
        raise {error}
    caching.IndexDataCacheFile._save_data = refuse
    from bmrs_outer import outer
    print(outer(1.0))
    """
    found = process(script, texts / "cache")
    assert found.stdout.strip() == "83.0", found.stderr
    assert found.stderr.count("NUMBA_CACHE_DIR") == 1


@pytest.mark.parametrize("suffix", [".nbi", ".nbc"])
@pytest.mark.parametrize("content", [b"garbage", None])
def test_a_damaged_entry_is_compiled_anew_and_replaced(
    texts: Path, suffix: str, content: bytes | None
) -> None:
    script = "from bmrs_outer import outer; print(outer(1.0), sum(outer.stats.cache_hits.values()))"
    cache = texts / "cache"
    assert process(script, cache).stdout.split() == ["83.0", "0"]
    for file in cache.rglob(f"*{suffix}"):
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2] if content is None else content)
    damaged = process(script, cache)
    assert damaged.stdout.split() == ["83.0", "0"], damaged.stderr
    assert damaged.stderr.count("NUMBA_CACHE_DIR") == 1
    assert process(script, cache).stdout.split() == ["83.0", "1"]
