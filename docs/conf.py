"""How the site is built: ``make docs``, without a network, and every warning is an error."""

import os
import sys
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent
sys.path[:0] = [str(HERE / "extensions"), *(str(ROOT / source) for source in ("", "kernels", "bindings"))]

import bmrs_core  # noqa: E402 found by the path above

os.environ.update(
    HF_HUB_OFFLINE="1",  # tutorials make their networks; nothing is fetched
    TOKENIZERS_PARALLELISM="false",
)

project = "BMRS"
author = "BMRS contributors"
project_copyright = "BMRS contributors"
version = release = bmrs_core.__version__

extensions = [
    "links",
    "mathml",
    "matplotlib.sphinxext.plot_directive",
    "myst_parser",
    "numpydoc",
    "public_names",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["build", "tutorials"]  # what the gallery makes of the scripts is in auto_tutorials
suppress_warnings = ["config.cache"]  # the gallery's options hold a function
templates_path = ["templates"]

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
math_number_all = False
html_math_renderer = "mathml"

nitpicky = True
autodoc_typehints = "none"  # numpydoc's sections say it in words
autosummary_generate = True
numpydoc_class_members_toctree = False
numpydoc_show_class_members = False

plot_formats = [("png", 130)]
plot_html_show_formats = False
plot_html_show_source_link = False
plot_include_source = False
plot_rcparams = {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}
plot_apply_rcparams = True

sphinx_gallery_conf = {
    "examples_dirs": "tutorials",
    "gallery_dirs": "auto_tutorials",
    "filename_pattern": r"\.py$",
    "within_subsection_order": "FileNameSortKey",
    "image_scrapers": ("matplotlib", "written_figures.scraper"),
    "abort_on_example_error": True,
    "run_stale_examples": True,  # what they print is what the package does now
    "download_all_examples": False,
    "remove_config_comments": True,
    "ignore_repr_types": r"torch\._C\.Generator",  # of torch.manual_seed
    "show_signature": False,
    "min_reported_time": 1,
}

html_theme = "pydata_sphinx_theme"
html_title = f"BMRS {release}"
html_show_sourcelink = False
html_sidebars = {"index": [], "glossary": [], "citing": []}  # nothing lies below them
html_static_path = ["static"]
html_css_files = ["site.css"]
html_theme_options = {
    "navigation_with_keys": False,
    "show_prev_next": True,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
}
