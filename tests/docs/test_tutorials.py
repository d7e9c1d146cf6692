"""Every tutorial runs as it stands, without a network, and draws something."""

from __future__ import annotations

import logging
import re
import runpy
from pathlib import Path

import pytest

from .pages import TUTORIALS

FRAMEWORKS = ("lightning", "transformers")


@pytest.mark.filterwarnings("ignore:FigureCanvasAgg is non-interactive")
@pytest.mark.parametrize("tutorial", TUTORIALS, ids=lambda path: path.stem)
def test_the_tutorial_runs_and_draws(tutorial: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for framework in FRAMEWORKS:
        if re.search(rf"^(import|from) {framework}", tutorial.read_text(encoding="utf-8"), re.MULTILINE):
            pytest.importorskip(framework, reason="pip install 'bmrs-pruning[integrations]'")
    pyplot = pytest.importorskip("matplotlib.pyplot", reason="pip install 'bmrs-pruning[report]'")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)
    pyplot.switch_backend("agg")
    level = logging.getLogger("lightning.pytorch").level
    try:
        runpy.run_path(str(tutorial), run_name="__main__")
        drawn = len(pyplot.get_fignums()) + len(list(tmp_path.glob("*.png")))
    finally:
        pyplot.close("all")
        logging.getLogger("lightning.pytorch").setLevel(level)
    assert drawn
