"""Every public name has an example, in its docstring or in the one that it points to."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

import bmrs_core
import bmrs_torch

NAMES = [
    (package, name)
    for package in (bmrs_core, bmrs_torch)
    for name in package.__all__
    if callable(getattr(package, name))
]


def docstrings(value: Any) -> Iterator[str]:
    """Of a function; of a class and its methods."""
    yield inspect.getdoc(value) or ""
    if inspect.isclass(value):
        yield from (inspect.getdoc(own) or "" for own in vars(value).values() if inspect.isfunction(own))


@pytest.mark.parametrize(("package", "name"), NAMES, ids=[name for _, name in NAMES])
def test_the_name_has_an_example(package: ModuleType, name: str) -> None:
    own = "\n".join(docstrings(getattr(package, name)))
    elsewhere = re.search(r"Examples\n-+\nSee :func:`(\w+)`", own)
    shown = inspect.getdoc(getattr(package, elsewhere[1])) if elsewhere else own
    assert ">>> " in (shown or "")
