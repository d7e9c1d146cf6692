"""The examples in the README run as they stand."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

README = Path(__file__).parents[1] / "README.md"
EXAMPLES = re.findall(
    r"^```python\n(.*?)^```", README.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL
)


def test_the_readme_shows_arrays_and_a_network() -> None:
    assert len(EXAMPLES) == 2


def run(example: str) -> dict[str, Any]:
    names: dict[str, Any] = {"__name__": "readme"}
    exec(compile(example, str(README), "exec"), names)
    return names


def test_the_example_on_arrays_runs() -> None:
    assert run(EXAMPLES[0])["evidence"].shape == (3,)


def test_the_example_with_a_network_makes_it_smaller_and_plain() -> None:
    smaller = run(EXAMPLES[1])["smaller"]
    assert [type(layer).__name__ for layer in smaller] == ["Linear", "ReLU", "Linear"]
    assert smaller[0].out_features == smaller[2].in_features < 40
