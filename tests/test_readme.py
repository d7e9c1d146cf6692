"""The README is one page; its example runs with the plain install, its links lead somewhere."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.docs.pages import ROOT, python_of

README = ROOT / "README.md"
TEXT = README.read_text(encoding="utf-8")
EXTRAS = ("matplotlib", "rich", "sklearn", "lightning", "transformers", "accelerate", "onnx", "onnxruntime")


def test_it_is_one_page() -> None:
    assert len(TEXT.split()) <= 500


def test_its_links_lead_to_files() -> None:
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", TEXT) if "://" not in link]
    assert len(links) > 10
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_its_commands_are_targets() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"\bmake ([a-z-]+)", TEXT))
    assert targets == {"demo", "test", "docs"}
    assert all(f"\n{target}:" in makefile for target in targets)


def test_its_example_runs_without_the_extras(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in EXTRAS:
        monkeypatch.setitem(sys.modules, name, None)  # an import of it fails, as where it isn't installed
    monkeypatch.chdir(tmp_path)
    (example,) = python_of(README)
    names: dict[str, Any] = {"__name__": "readme"}
    exec(compile(example, str(README), "exec"), names)
    smaller = names["found"].model
    assert [type(layer).__name__ for layer in smaller] == ["Linear", "ReLU", "Linear"]
    assert smaller[0].out_features < 64
    assert "multiply-accumulates" in capsys.readouterr().out
