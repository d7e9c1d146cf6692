"""Lightning, the Trainer of transformers and Accelerate prune one network on two processes under torchrun."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.bindings.distributed.launching import torchrun

FRAMEWORKS = Path(__file__).with_name("frameworks.py")


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> str:
    for name in ("accelerate", "lightning", "transformers"):
        pytest.importorskip(name)
    return torchrun(FRAMEWORKS, tmp_path_factory.mktemp("frameworks")).stdout


@pytest.mark.parametrize("framework", ["lightning", "trainer", "accelerate"])
def test_each_framework_ends_in_one_smaller_network_on_both_ranks(told: str, framework: str) -> None:
    first, second = re.findall(rf"{framework}: (\d+) (\d+) ([0-9a-f]{{32}})", told)
    assert first == second
    entries, kept, _ = first
    assert (int(entries), int(kept)) == (3, 9)
