"""The measuring itself: turns, clocks, peak memory, the machine."""

from __future__ import annotations

import subprocess
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.measuring import allocator, machine, source
from benchmarks.measuring.clocks import MOST_PASSES, CpuClock, enough_passes, nothing
from benchmarks.measuring.machine import one_core, this_machine, usable_cores, versions
from benchmarks.measuring.memory import peak_bytes
from benchmarks.measuring.turns import FEWEST, Spread, take_turns

CPU = torch.device("cpu")
MEGABYTE = 2**20
on_linux_with_glibc = pytest.mark.skipif(
    not (allocator.obeys() and Path("/proc/self/clear_refs").exists()), reason="needs Linux and glibc"
)


def test_rivals_take_turns_and_the_first_round_is_thrown_away() -> None:
    calls: list[str] = []

    def one(name: str) -> int:
        calls.append(name)
        return calls.count(name)

    taken = take_turns({name: partial(one, name) for name in "ab"}, rounds=4)
    assert taken == {"a": [2, 3, 4, 5], "b": [2, 3, 4, 5]}
    assert all(set(calls[i : i + 2]) == {"a", "b"} for i in range(0, len(calls), 2))


def test_a_limit_in_seconds_leaves_some_rounds() -> None:
    assert len(take_turns({"slow": lambda: time.sleep(0.01)}, seconds=1e-9)["slow"]) == FEWEST


def test_a_spread_is_the_median_and_the_middle_three_fifths() -> None:
    assert Spread.of([5.0, 1.0, 2.0, 3.0, 4.0, 0.0]) == Spread(2.5, 1.0, 4.0)


def test_the_clock_parts_both_halves_and_does_not_count_what_comes_before() -> None:
    before = partial(time.sleep, 0.02)
    laps = CpuClock().batch(partial(time.sleep, 0.001), lambda _: time.sleep(0.005), 2, before)
    assert 0.001 <= laps.forward < laps.backward
    assert laps.backward >= 0.005
    assert laps.both == laps.forward + laps.backward


def test_the_backward_half_gets_what_the_forward_half_returned() -> None:
    received: list[int] = []
    CpuClock().batch(lambda: 7, received.append, 3, nothing)
    assert received == [7, 7, 7]


def test_short_passes_are_batched_and_long_ones_are_not() -> None:
    assert enough_passes(CpuClock(), lambda: None, lambda _: None, nothing) == MOST_PASSES
    assert enough_passes(CpuClock(), partial(time.sleep, 0.02), lambda _: None, nothing) == 1


@on_linux_with_glibc
@pytest.mark.parametrize("kind", ["numpy", "torch"])
def test_peak_memory_counts_temporaries_whoever_allocates_them(kind: str) -> None:
    ones = partial(np.ones, dtype=np.float32) if kind == "numpy" else torch.ones

    def call() -> object:
        temporary = ones(8 * MEGABYTE)
        return temporary[: 2 * MEGABYTE] + 1

    with allocator.freed_memory_kept():
        call()
        result, peak = peak_bytes(call, CPU)
    assert result is not None
    assert peak is not None
    # 32 + 8 MiB; what the interpreter does beside it stays below a megabyte or two.
    assert 38 * MEGABYTE <= peak <= 44 * MEGABYTE


@on_linux_with_glibc
def test_freed_memory_is_kept_or_given_back_as_asked() -> None:
    x = torch.ones(8 * MEGABYTE)

    def faults() -> int:
        before = allocator.page_faults()
        x.clone()
        return allocator.page_faults() - before

    pages = x.numel() * x.element_size() // 2**16  # if the system's pages were as large as 64 KiB
    with allocator.freed_memory_kept():
        kept = min(faults() for _ in range(10))
        allocator.give_back()
        fresh = faults()
    assert kept < pages / 4
    assert fresh >= pages / 4


def test_the_machine_is_described() -> None:
    described = this_machine("a GPU")
    assert described.cores == usable_cores()
    assert str(described).endswith("; a GPU")
    assert versions("torch", "no-such-package").keys() == {"python", "torch"}


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("Intel(R) Xeon(R) Processor", "intel_xeon"),
        ("Intel(R) Core(TM) i7-9750H CPU @ 2.60GHz", "intel"),
        ("AMD EPYC 9R14", "amd_epyc"),
        ("", "unknown"),
    ],
)
def test_each_kind_of_processor_has_a_word_of_its_own(
    name: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "processor", lambda: name)
    assert machine.processor_kind() == kind


def test_one_core_is_given_back() -> None:
    before = usable_cores()
    with one_core():
        assert usable_cores() <= before
    assert usable_cores() == before


def test_a_record_tells_the_commit_and_whether_files_besides_the_results_differ_from_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source, "ROOT", tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert source.commit() == "unknown"

    def git(*arguments: str) -> None:
        identity = ["-c", "user.name=A", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false"]
        subprocess.run(["git", *identity, *arguments], cwd=tmp_path, check=True, capture_output=True)

    git("init")
    (tmp_path / "kernel.py").write_text("1")
    git("add", ".")
    git("commit", "-m", "one")
    clean = source.commit()
    assert len(clean) == 40
    (tmp_path / source.RESULTS).mkdir(parents=True)
    (tmp_path / source.RESULTS / "times.json").write_text("{}")
    assert source.commit() == clean
    (tmp_path / "kernel.py").write_text("2")
    assert source.commit() == f"{clean} with changes"


def test_every_recorder_tells_the_commit() -> None:
    folder = source.ROOT / "benchmarks"
    recorders = [path for path in folder.rglob("*.py") if "this_machine(" in path.read_text(encoding="utf-8")]
    told = [path.read_text(encoding="utf-8") for path in recorders if path.name != "machine.py"]
    assert told
    assert all("commit()" in text or "run_record(" in text for text in told)
