"""Show the PNG files that a tutorial writes, as ``draw_layers(report, "layers.png")`` does."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from sphinx_gallery.scrapers import figure_rst


def scraper(block: tuple[Any, ...], block_vars: dict[str, Any], gallery_conf: dict[str, Any]) -> str:  # noqa: ARG001 the gallery's signature
    """Move what a block of code wrote beside its script to the gallery's pictures."""
    shown = []
    for file in sorted(Path(block_vars["src_file"]).parent.glob("*.png")):
        shown.append(str(next(block_vars["image_path_iterator"])))
        shutil.move(file, shown[-1])
    return figure_rst(shown, gallery_conf["src_dir"])
