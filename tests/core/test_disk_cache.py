"""Machine code on disk: never stale, and never in the way of the work."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
from numba import njit
from numba.core import caching, config

from bmrs_core.backends import disk_cache
from bmrs_core.backends.disk_cache import cached_njit, is_kept

SIGNATURE = "float64(float64)"


def tripled(x: Any) -> Any:
    return 3.0 * x


def other(x: Any) -> Any:
    return x - 1.0


LIMIT = 80.0


@njit  # type: ignore[untyped-decorator]
def limited(x: Any) -> Any:
    return min(x, LIMIT)


def of_a_limit(x: Any) -> Any:
    return limited(x)


def twice_a_limit(x: Any) -> Any:
    return 2.0 * limited(x)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of this test's own, of which nothing has been said yet."""
    monkeypatch.setattr(config, "CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(disk_cache, "_said", set())
    return tmp_path


def compiled(function: Any = tripled) -> Any:
    return cached_njit(function, signature=SIGNATURE)


def of_two() -> tuple[float, float]:
    """What two functions compute, each compiled or loaded for it."""
    return compiled()(2.0), compiled(other)(2.0)


def hits(dispatcher: Any) -> int:
    return int(sum(dispatcher.stats.cache_hits.values()))


def files(folder: Path, suffix: str) -> list[Path]:
    return sorted(folder.rglob(f"*{suffix}"))


def without_a_locator(monkeypatch: pytest.MonkeyPatch) -> None:
    for implementation in (caching.CacheImpl, caching.CompileResultCacheImpl):
        monkeypatch.setattr(implementation, "_locator_classes", [])


def test_what_was_compiled_is_found_again() -> None:
    assert compiled()(2.0) == 6.0
    assert hits(compiled()) == 1
    assert is_kept()


def test_without_any_folder_all_works_and_one_warning_says_what_it_costs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    without_a_locator(monkeypatch)
    with pytest.warns(UserWarning, match=r"each process compiles .* set NUMBA_CACHE_DIR") as said:
        assert of_two() == (6.0, 1.0)
    assert len(said) == 1
    assert not is_kept()


def test_a_function_can_be_made_without_a_folder_and_warns_only_when_it_compiles(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Kernels are made when their module is imported: an import warns of nothing."""
    without_a_locator(monkeypatch)
    lazy = cached_njit(tripled)
    with pytest.warns(UserWarning, match="NUMBA_CACHE_DIR"):
        assert lazy(2.0) == 6.0


def test_where_warnings_are_errors_the_work_goes_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    without_a_locator(monkeypatch)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert of_two() == (6.0, 1.0)
    assert capsys.readouterr().err.count("NUMBA_CACHE_DIR") == 1


def test_a_file_where_the_folder_should_be_is_like_a_folder_that_refuses(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "file").touch()
    monkeypatch.setattr(config, "CACHE_DIR", str(folder / "file"))
    # Older releases call it by the same name after an underscore.
    every = caching.CompileResultCacheImpl._locator_classes
    provided = [locator for locator in every if locator.__name__.endswith("UserProvidedCacheLocator")]
    monkeypatch.setattr(caching.CompileResultCacheImpl, "_locator_classes", provided)
    with pytest.warns(UserWarning, match="NUMBA_CACHE_DIR"):
        assert compiled()(2.0) == 6.0


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EDQUOT])
def test_what_cannot_be_written_is_compiled_and_said_once(
    number: int, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_arguments: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(caching.IndexDataCacheFile, "_open_for_write", refuse)
    with pytest.warns(UserWarning, match=os.strerror(number)) as said:
        assert of_two() == (6.0, 1.0)
    assert len(said) == 1
    assert "NUMBA_CACHE_DIR" in str(said[0].message)
    assert not is_kept()
    monkeypatch.undo()
    assert not files(folder, ".nbc")


def test_a_disk_that_fills_up_between_index_and_data_leaves_no_trap(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_arguments: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as until_then:
        until_then.setattr(disk_cache._CheckedFile, "_save_data", full)
        with pytest.warns(UserWarning, match="NUMBA_CACHE_DIR"):
            compiled()
    assert compiled()(2.0) == 6.0
    assert hits(compiled()) == 1


def _truncated(content: bytes) -> bytes:
    return content[: len(content) // 2]


def _flipped(content: bytes) -> bytes:
    """One bit, amid what would be handed to LLVM."""
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


@pytest.mark.parametrize("suffix", [".nbi", ".nbc"])
@pytest.mark.parametrize(
    "spoil", [_truncated, lambda _: b"", lambda _: b"garbage", lambda _: b"\x80\x05N.", _flipped]
)
def test_an_unreadable_entry_is_compiled_anew_and_replaced(spoil: Any, suffix: str, folder: Path) -> None:
    compiled()
    (path,) = files(folder, suffix)
    path.write_bytes(spoil(path.read_bytes()))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        assert compiled()(2.0) == 6.0
    assert len(said) <= 1  # an index of another version, or of other keys, is only out of date
    assert all("compiled anew" in str(warning.message) for warning in said)
    assert hits(compiled()) == 1


def test_a_truncated_entry_is_named_once(folder: Path) -> None:
    compiled()
    compiled(other)
    for path in files(folder, ".nbc"):
        path.write_bytes(_truncated(path.read_bytes()))
    with pytest.warns(UserWarning, match=r"unreadable compiled code in .*not as it was written") as said:
        assert of_two() == (6.0, 1.0)
    assert len(said) == 1
    assert is_kept()


def test_data_under_another_signatures_number_are_not_taken_for_ones_own(folder: Path) -> None:
    """Two processes that save at a time may both call their data number 1, and only one index stays."""
    lazy = cached_njit(tripled)
    lazy(2.0)
    lazy(2)
    first, second = files(folder, ".nbc")
    first.write_bytes(second.read_bytes())
    again = cached_njit(tripled)
    assert (again(2.5), again(2)) == (7.5, 6.0)
    assert hits(again) == 1


def test_code_compiled_after_a_constant_has_changed_is_not_kept(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`limited` is compiled with 80; inside its second caller it would stand on disk as if with 5."""
    assert compiled(of_a_limit)(100.0) == 80.0
    kept = files(folder, ".nbc")
    monkeypatch.setitem(globals(), "LIMIT", 5.0)
    compiled(twice_a_limit)
    assert files(folder, ".nbc") == kept


ANSWER = """
import sys
from bmrs_core.backends import numba_elementary
from bmrs_core.backends.clone import TEXT_MODULES
from bmrs_core.formulas import constants
name, value = sys.argv[1], float(sys.argv[2])
for module in (numba_elementary, constants, *TEXT_MODULES):
    if hasattr(module, name):
        setattr(module, name, value)
if name in constants.SCALARS:
    constants.SCALARS[name] = value
import bmrs_core
print(float(bmrs_core.log_uniform_pdf(2.0)), float(bmrs_core.log_uniform_pdf(0.5)))
"""


def answer(folder: Path, *arguments: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", ANSWER, *arguments],
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
        env={**os.environ, "NUMBA_CACHE_DIR": str(folder)},
    ).stdout


@pytest.mark.parametrize(
    ("name", "was", "becomes"), [("ZERO", "0.0", "0.25"), ("EXP_MAX", "709.782712893384", "-1.0")]
)
def test_a_process_with_another_constant_finds_no_code_of_this_one(
    name: str, was: str, becomes: str, folder: Path
) -> None:
    """A constant of the formulas, and one of the elementary functions: the loop's own file knows neither."""
    before = answer(folder, name, was)
    after = answer(folder, name, becomes)
    assert before != after
    assert answer(folder, name, was) == before
