"""Importing the array functions brings in no deep-learning library and nothing slow."""

from __future__ import annotations

import json
import subprocess
import sys

REPORT = "import json, sys; import bmrs_core; {}; print(json.dumps(sorted(sys.modules)))"


def loaded_after(code: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", REPORT.format(code)], check=True, capture_output=True, text=True
    )
    return set(json.loads(done.stdout))


def test_import_is_light() -> None:
    # Each of these takes longer to import than the 0.3 s that the whole package may take.
    assert not {"torch", "triton", "jax", "scipy.stats"} & loaded_after("pass")


def test_numpy_arrays_need_neither_torch_nor_triton() -> None:
    modules = loaded_after("bmrs_core.delta_f_normal([-3.0], [0.5]); bmrs_core.sample(-3.0, 0.5, seed=1)")
    assert not {"torch", "triton", "jax"} & modules
