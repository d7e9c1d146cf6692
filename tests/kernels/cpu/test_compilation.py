"""Compilation: announced where it is waited for, and done once, not once a process."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bmrs_kernels.cpu import announce


def test_what_takes_longer_than_patience_is_announced(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(announce, "PATIENCE", 0.05)
    with announce.announcing("the kernels of a test"):
        time.sleep(0.5)
    captured = capsys.readouterr()
    assert captured.err.count("compiling the kernels of a test") == 1
    assert not captured.out


def test_what_is_quick_or_fails_is_not_announced(capsys: pytest.CaptureFixture[str]) -> None:
    assert announce.PATIENCE == 1.0
    with announce.announcing("something quick"):
        pass
    with pytest.raises(ZeroDivisionError), announce.announcing("something that fails"):
        raise ZeroDivisionError
    time.sleep(0.05)
    assert not capsys.readouterr().err


LOADING = """
import time
from bmrs_kernels.cpu.noise_kernels import noise_kernels
from bmrs_kernels.cpu.divergence_kernels import kl_kernels
start = time.perf_counter()
kernels = [*noise_kernels("float32"), *kl_kernels("float32")]
seconds = time.perf_counter() - start
compiled = [k.__name__ for k in kernels if not k.stats.cache_hits or k.stats.cache_misses]
print(len(kernels), compiled, seconds)
"""


def test_a_second_process_loads_what_the_first_compiled() -> None:
    """Told by Numba's own count of cache hits; the time is the machine's, and only printed if it fails."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    command = [sys.executable, "-c", LOADING]
    for _ in range(2):
        answer = subprocess.run(
            command,
            capture_output=True,
            text=True,
            env=environment,
            timeout=300,
            check=False,
            cwd=Path(__file__).parents[3],
        )
        assert answer.returncode == 0, answer.stderr
    number, compiled = answer.stdout.split(maxsplit=1)
    assert int(number) >= 6
    assert compiled.startswith("[] "), answer.stdout
