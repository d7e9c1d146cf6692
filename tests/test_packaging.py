"""What a user gets who installs the package: its parts, its names, its version, and a light import."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from importlib import metadata
from importlib.resources import files
from pathlib import Path

import pytest

PACKAGES = ("bmrs_core", "bmrs_kernels", "bmrs_torch")
SOURCE_ROOTS = ("kernels", "bindings")
CHANGELOG = Path(__file__).parents[1] / "CHANGELOG.md"

# What `import bmrs_core` may not pull in. scipy.stats alone takes longer than is allowed for all of it.
HEAVY = (
    "torch",
    "triton",
    "jax",
    "cupy",
    "scipy.stats",
    "matplotlib",
    "sklearn",
    "bmrs_torch",
    "bmrs_kernels",
)


def installed_editable() -> bool:
    """Whether the distribution points back into a checkout instead of holding files of its own."""
    direct_url = metadata.distribution("bmrs").read_text("direct_url.json")
    return bool(direct_url and json.loads(direct_url).get("dir_info", {}).get("editable"))


def run_python(code: str) -> str:
    """Run ``code`` in a fresh interpreter that finds the same packages, and return what it printed."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    finished = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


def test_version_is_the_newest_entry_of_the_changelog() -> None:
    newest = re.search(r"^## \[?(\d+\.\d+\.\d+)", CHANGELOG.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert newest is not None
    assert metadata.version("bmrs") == newest[1]


@pytest.mark.parametrize("package", PACKAGES)
def test_each_package_carries_its_type_marker(package: str) -> None:
    assert files(package).joinpath("py.typed").is_file()


@pytest.mark.parametrize("name", SOURCE_ROOTS)
def test_source_roots_shadow_no_installed_package(name: str) -> None:
    # In a checkout the folder itself is found, as a namespace: any real package of that name comes first.
    spec = importlib.util.find_spec(name)
    assert spec is None or spec.origin is None


@pytest.mark.skipif(installed_editable(), reason="no files of its own: the wheel test runs this one")
def test_wheel_holds_the_three_packages_and_nothing_else() -> None:
    top_level = {path.parts[0] for path in metadata.files("bmrs") or ()}
    assert {name for name in top_level if not name.endswith(".dist-info")} == set(PACKAGES)
    assert all(importlib.util.find_spec(name) is None for name in SOURCE_ROOTS)


@pytest.mark.parametrize("package", PACKAGES)
def test_package_imports_in_a_fresh_interpreter_without_a_warning(package: str) -> None:
    assert run_python(f"import {package}; print({package}.__name__)").strip() == package


def test_importing_the_array_functions_loads_nothing_heavy() -> None:
    loaded = run_python("import sys, bmrs_core; print(*sys.modules)").split()
    assert "bmrs_core" in loaded
    assert not set(HEAVY) & set(loaded)


def test_triton_is_left_to_torch() -> None:
    required = [re.match(r"[\w.-]+", line) for line in metadata.requires("bmrs") or ()]
    assert "triton" not in {match[0].lower() for match in required if match}
