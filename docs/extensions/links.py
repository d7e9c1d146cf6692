"""Every link within the site leads to a file, and to a place in it where it names one, or the build fails."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from sphinx.application import Sphinx
from sphinx.errors import ExtensionError


class _Page(HTMLParser):
    """What a page links to, and the places in it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.places: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # noqa: ARG002 HTMLParser's names
        """Note what an element links to and what it is called."""
        for name, value in attrs:
            if name in ("href", "src") and value:
                self.links.append(value)
            elif name in ("id", "name") and value:
                self.places.add(value)


def broken_links(folder: Path) -> list[str]:
    """Say of each link within a folder of pages that leads nowhere where it stands."""
    files = folder.resolve().rglob("*.html")
    pages = {path: _Page(path.read_text(encoding="utf-8")) for path in files if "_static" not in path.parts}
    broken = []
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            place = unquote(parts.fragment)
            is_there = target.exists() and (not place or target not in pages or place in pages[target].places)
            if not is_there:
                broken.append(f"{path.relative_to(folder.resolve())}: {link}")
    return broken


def _check(app: Sphinx, error: Exception | None) -> None:
    broken = broken_links(Path(app.outdir)) if error is None and app.builder.name == "html" else []
    if broken:
        raise ExtensionError("links within the site lead nowhere:\n" + "\n".join(broken))


def setup(app: Sphinx) -> dict[str, Any]:
    """Check when all is written."""
    app.connect("build-finished", _check, priority=1000)  # the gallery still writes then
    return {"parallel_read_safe": True}
