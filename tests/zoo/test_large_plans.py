"""Networks of real size are planned for on the meta device, in the memory of a small machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PLAN = Path(__file__).with_name("large_plan.py")

MOST_GIB = 4


@pytest.mark.parametrize(
    ("name", "parameters", "structures"),
    [
        # Of each block the groups of heads that share their keys, and the neurons.
        ("llama-3-8b", 8_030_261_248, 32 * (8 + 14336)),
        ("vit-l", 304_326_632, 24 * (16 + 4096)),
    ],
)
def test_networks_of_real_size_are_planned_for_without_their_weights(
    name: str, parameters: int, structures: int, pytestconfig: pytest.Config
) -> None:
    if name == "llama-3-8b" and not pytestconfig.getoption("--whole", default=False):
        pytest.skip("takes a minute; --whole runs it")
    here = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    told = subprocess.run(
        [sys.executable, str(PLAN), name], capture_output=True, text=True, timeout=900, check=False, env=here
    )
    assert told.returncode == 0, told.stderr[-3000:]
    found = json.loads(told.stdout)
    of_noise = 2 * structures
    assert found["parameters"] == parameters + of_noise
    assert sum(found["structures"].values()) == structures
    assert found["removed"] == found["masked"] > 0
    assert found["GiB"] <= MOST_GIB
