"""The examples in the README run as they stand."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from bmrs_torch import noise_layers

README = Path(__file__).parents[1] / "README.md"
EXAMPLES = re.findall(
    r"^```python\n(.*?)^```", README.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL
)


def test_the_readme_shows_all_from_arrays_to_a_budget() -> None:
    assert len(EXAMPLES) == 9


def run(*examples: str) -> dict[str, Any]:
    names: dict[str, Any] = {"__name__": "readme"}
    for example in examples:
        exec(compile(example, str(README), "exec"), names)
    return names


def test_the_example_on_arrays_runs() -> None:
    assert run(EXAMPLES[0])["evidence"].shape == (3,)


def test_the_example_with_a_network_makes_it_smaller_and_plain() -> None:
    smaller = run(EXAMPLES[1])["smaller"]
    assert [type(layer).__name__ for layer in smaller] == ["Linear", "ReLU", "Linear"]
    assert smaller[0].out_features == smaller[2].in_features < 40


def test_the_example_of_placement_puts_noise_after_the_norm() -> None:
    assert list(noise_layers(run(*EXAMPLES[1:3])["tiny"])) == ["1.noise"]


def test_the_layers_put_in_by_hand_take_what_the_readme_says() -> None:
    names = run(EXAMPLES[1], EXAMPLES[3])
    assert names["block"](torch.randn(2, 3, 8, 8)).shape == (2, 64, 6, 6)
    assert names["tokens"](torch.randn(2, 5, 16)).shape == (2, 5, 48)


def test_one_call_meets_the_budget_and_the_network_is_as_good() -> None:
    names = run(EXAMPLES[1], EXAMPLES[4])
    found = names["found"]
    assert found.decision.spending.fractions["macs"] <= 0.33
    assert found.score > 0.9 > found.score_before


def test_the_sweep_is_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    names = run(EXAMPLES[1], *EXAMPLES[4:6])
    assert [row.label for row in names["found"].rows] == ["unpruned", "0.1", "1", "10"]
    assert "knee of accuracy" in capsys.readouterr().out
    assert (tmp_path / "sweep.png").stat().st_size > 2000


def test_the_loop_prunes_and_what_it_saves_is_what_it_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    names = run(EXAMPLES[1], EXAMPLES[6])
    smaller, same, images = names["smaller"], names["same"], names["images"]
    assert smaller[0].out_features < 40
    assert torch.equal(same(images), smaller(images))
    assert "multiply-accumulates" in capsys.readouterr().out


def test_the_logger_is_told_plain_floats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    told: dict[str, float] = {}

    class Writer:
        def add_scalar(self, name: str, value: float, step: int) -> None:
            assert step == 1
            told[name] = value

    names = run(EXAMPLES[1], *EXAMPLES[6:8])
    names["writer"] = Writer()
    names["pruner"].end_epoch()
    assert {"bmrs/kl", "bmrs/delta_f/q50", "bmrs/kept"} <= told.keys()


def test_the_example_of_a_budget_meets_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    names = run(EXAMPLES[1], EXAMPLES[6], EXAMPLES[8])
    assert names["model"][0].noise.kept().sum() <= 20
    assert "for at most 0.5 of the multiply-adds and 2 kB" in capsys.readouterr().out
