"""The GPU kernels held to their contract without a GPU: Triton's interpreter wants a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="Triton comes with a CUDA build of torch, or from .ci/triton.txt")

ROOT = Path(__file__).parents[2]
FILES = ("test_noise_contract.py", "test_triton_noise.py")


@pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="this is that process")
@pytest.mark.parametrize("file", FILES)
def test_the_kernels_pass_in_the_interpreter(file: str) -> None:
    command = [sys.executable, "-m", "pytest", f"tests/kernels/{file}", "-k", "triton", "-q"]
    options = ["-o", "pythonpath=", "-p", "no:cacheprovider", "-W", "ignore::RuntimeWarning"]
    path = os.pathsep.join([str(ROOT), *sys.path])
    run = subprocess.run(
        [*command, *options],
        check=False,
        cwd=ROOT,
        env={**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout[-10_000:] + run.stderr[-5_000:]
