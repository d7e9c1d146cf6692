"""What ``make gpu`` runs: a refusal without a GPU, a limit for each step, under 20 minutes for all."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks.gpu import __main__ as gpu


def test_without_a_gpu_it_says_so_in_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu.main(["--out", str(tmp_path / "results")]) == 1
    said = capsys.readouterr().err
    assert said.startswith("no GPU: torch")
    assert said.count("\n") == 1
    assert not (tmp_path / "results").exists()


def test_all_steps_take_less_than_20_minutes_together() -> None:
    assert sum(limit for _, limit in gpu.STEPS.values()) < 20 * 60


@pytest.mark.parametrize(
    ("program", "limit", "how"),
    [
        ("print('measured')", 60.0, "done"),
        ("raise SystemExit(3)", 60.0, "failed with status 3"),
        ("import time; time.sleep(60)", 0.5, "failed: not done after 0 s"),
    ],
)
def test_a_step_has_a_log_and_tells_how_it_went(program: str, limit: float, how: str, tmp_path: Path) -> None:
    assert gpu.run("step", ["-c", program], limit, tmp_path).startswith(f"step: {how}")
    assert (tmp_path / "step.log").exists()
