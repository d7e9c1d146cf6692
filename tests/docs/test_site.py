"""What the site promises of itself, as far as it can be told without building it."""

from __future__ import annotations

import re

import pytest

from .pages import DOCS, PAGES, ROOT


@pytest.mark.parametrize("folder", ["guides", "explanation", "results"])
def test_every_page_is_in_the_contents_of_its_folder(folder: str) -> None:
    contents = (DOCS / folder / "index.md").read_text(encoding="utf-8")
    listed = re.search(r"```\{toctree\}\n(?::.*\n)*\n(.*?)```", contents, flags=re.DOTALL)
    assert listed is not None
    pages = {page.stem for page in (DOCS / folder).glob("*.md")} - {"index"}
    assert set(listed[1].split()) == pages


def test_what_pages_include_is_there() -> None:
    included = [
        page.parent / path
        for page in PAGES
        for path in re.findall(r"\{include\} (\S+)", page.read_text(encoding="utf-8"))
    ]
    assert len(included) > 3
    assert all(path.is_file() for path in included)


def test_the_glossary_is_the_table_of_words_that_contributors_keep() -> None:
    marks = re.findall(r':(?:start-after|end-before): "(.*)"', (DOCS / "glossary.md").read_text("utf-8"))
    contributing = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    start, end = (contributing.index(f"{mark}\n") for mark in marks)
    assert "| evidence | ΔF in nats" in contributing[start:end]
