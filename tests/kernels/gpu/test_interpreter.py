"""The GPU kernels held to their contract without a GPU: Triton's interpreter wants a process of its own."""

from __future__ import annotations

import pytest

from tests.kernels.gpu import interpreter_runs

pytest.importorskip("triton", reason="Triton comes with a CUDA build of torch, or from .ci/triton.txt")

FILES = ("test_noise_contract.py", "gpu/test_noise.py")


@pytest.mark.skipif(interpreter_runs.INSIDE, reason="this is that process")
@pytest.mark.parametrize("file", FILES)
def test_the_kernels_pass_in_the_interpreter(file: str) -> None:
    status, printed = interpreter_runs.outcome(file)
    assert status == 0, printed
