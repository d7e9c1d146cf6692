"""A page of the reference for each package, with all public names in it, by the room that they come from.

The names are those of ``__all__``, so that what is exported is documented and nothing has to be listed twice.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections import defaultdict
from pathlib import Path
from types import ModuleType
from typing import Any

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.pycode import ModuleAnalyzer

PACKAGES = ("bmrs_core", "bmrs_torch")
INTEGRATIONS = tuple(
    f"bmrs_torch.integrations.{name}" for name in ("lightning", "transformers", "pruner_holder")
)


def setup(app: Sphinx) -> dict[str, Any]:
    """Write the pages before autosummary looks for them, and link names that are given without a package."""
    app.connect("config-inited", lambda app, _: write_pages(Path(app.srcdir) / "reference"))
    app.connect("missing-reference", _with_a_package)
    return {"parallel_read_safe": True}


def _with_a_package(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, contnode: nodes.TextElement
) -> nodes.reference | None:
    """What a name without a package in a docstring of the integrations means."""
    if node["refdomain"] != "py":
        return None
    domain, place, kind = env.domains["py"], node["refdoc"], node["reftype"]
    for module in ("bmrs_torch", INTEGRATIONS[-1]):
        target = f"{module}.{node['reftarget']}"
        found = domain.resolve_xref(env, place, app.builder, kind, target, node, contnode)
        if found is not None:
            return found
    return None


def write_pages(folder: Path) -> None:
    """Write a page for each package and for each module of the integrations."""
    for name in (*PACKAGES, *INTEGRATIONS):
        _write(folder / f"{name}.rst", _page(importlib.import_module(name)))


def _write(path: Path, text: str) -> None:
    if not path.exists() or path.read_text(encoding="utf-8") != text:  # else Sphinx would read it again
        path.write_text(text, encoding="utf-8")


def public_names(module: ModuleType) -> list[str]:
    """Those of ``__all__``, or what is defined in the module and has no underscore, for a reader to see."""
    own = [n for n, value in vars(module).items() if getattr(value, "__module__", None) == module.__name__]
    names = getattr(module, "__all__", None) or [n for n in own if not n.startswith("_")]
    return sorted((name for name in names if not name.startswith("__")), key=str.lower)


def _page(module: ModuleType) -> str:
    rooms: dict[str, list[str]] = defaultdict(list)
    constants: list[str] = []
    for name in public_names(module):
        value = getattr(module, name)
        if inspect.isroutine(value) or inspect.isclass(value):
            rooms[_room(module.__name__, value)].append(name)
        else:
            constants.append(name)
    lines = [module.__name__, "=" * len(module.__name__), "", str(inspect.getdoc(module)), ""]
    lines += ["", f".. currentmodule:: {module.__name__}", ""]
    for room in sorted(rooms):
        if len(rooms) > 1:
            title = (
                str(importlib.import_module(room).__doc__).partition("\n")[0].partition(":")[0].rstrip(".")
            )
            lines += [title, "-" * len(title), ""]
        lines += [".. autosummary::", "   :toctree: generated", "", *(f"   {n}" for n in rooms[room]), ""]
    if constants:
        lines += ["Constants", "---------", ""]
        documented = _documented_constants(module)
        for name in constants:
            lines += [f".. py:data:: {name}", "", *(f"   {line}" for line in documented[name]), ""]
    return "\n".join(lines)


def _room(package: str, value: Any) -> str:
    """The module directly below the package that a name comes from."""
    below = value.__module__.removeprefix(f"{package}.").partition(".")[0]
    return value.__module__ if value.__module__ == package else f"{package}.{below}"


def _documented_constants(package: ModuleType) -> dict[str, list[str]]:
    """The strings below the constants, from wherever in the package they are set."""
    found: dict[str, list[str]] = {}
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        if not module.ispkg and not any(module.name == name for name in INTEGRATIONS):
            documents = ModuleAnalyzer.for_module(module.name).find_attr_docs()
            found |= {name: text for (owner, name), text in documents.items() if not owner}
    return found
