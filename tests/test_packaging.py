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

import bmrs_core
import bmrs_torch
from bmrs_core.version import DISTRIBUTION, UNKNOWN, distribution_version

PACKAGES = ("bmrs_core", "bmrs_kernels", "bmrs_torch")
SOURCE_ROOTS = ("kernels", "bindings")
ROOT = Path(__file__).parents[1]

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


def installed() -> metadata.Distribution | None:
    """The distribution whose files are tested; None for a source tree that isn't installed."""
    try:
        return metadata.distribution(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        return None


def runs_from_a_checkout() -> bool:
    """Whether the distribution holds no files of its own: it points to a checkout, or there is none."""
    found = installed()
    direct_url = found and found.read_text("direct_url.json")
    return not found or bool(direct_url and json.loads(direct_url).get("dir_info", {}).get("editable"))


def declared(key: str) -> str:
    """What pyproject.toml gives for a key of the project, a string."""
    # Python 3.10 has no tomllib.
    found = re.search(rf'^{key} = "(.*)"$', (ROOT / "pyproject.toml").read_text("utf-8"), flags=re.MULTILINE)
    assert found is not None
    return found[1]


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
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    newest = re.search(r"^## \[?(\d+\.\d+\.\d+)", changelog, flags=re.MULTILINE)
    assert newest is not None
    assert declared("version") == newest[1]


def test_the_packages_have_the_version_of_the_project() -> None:
    assert bmrs_core.__version__ == bmrs_torch.__version__ == declared("version")
    assert declared("name") == DISTRIBUTION


@pytest.fixture
def not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr("bmrs_core.version.version", version)


@pytest.mark.usefixtures("not_installed")
def test_a_source_tree_that_is_not_installed_has_the_version_it_declares() -> None:
    assert distribution_version(ROOT / "pyproject.toml") == declared("version")


@pytest.mark.usefixtures("not_installed")
@pytest.mark.parametrize("text", [None, '[project]\nname = "other"\nversion = "9.9.9"\n', "[build-system]\n"])
def test_copied_files_take_no_version_from_a_project_that_is_not_theirs(
    tmp_path: Path, text: str | None
) -> None:
    project = tmp_path / "pyproject.toml"
    if text is not None:
        project.write_text(text, encoding="utf-8")
    assert distribution_version(project) == UNKNOWN


@pytest.mark.parametrize("package", PACKAGES)
def test_each_package_carries_its_type_marker(package: str) -> None:
    assert files(package).joinpath("py.typed").is_file()


@pytest.mark.parametrize("name", SOURCE_ROOTS)
def test_source_roots_shadow_no_installed_package(name: str) -> None:
    # In a checkout the folder itself is found, as a namespace: any real package of that name comes first.
    spec = importlib.util.find_spec(name)
    assert spec is None or spec.origin is None


@pytest.mark.skipif(runs_from_a_checkout(), reason="no files of its own: the wheel test runs this one")
def test_wheel_holds_the_three_packages_and_nothing_else() -> None:
    top_level = {path.parts[0] for path in metadata.files(DISTRIBUTION) or ()}
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
    found = installed()
    if found is None:
        pytest.skip("a source tree that isn't installed requires nothing")
    required = [re.match(r"[\w.-]+", line) for line in found.requires or ()]
    assert "triton" not in {match[0].lower() for match in required if match}


def test_extras_name_this_distribution_and_not_another_of_the_index() -> None:
    text = (ROOT / "pyproject.toml").read_text("utf-8")
    assert set(re.findall(r'"([\w-]*bmrs[\w-]*)\[', text)) == {DISTRIBUTION}


@pytest.mark.skipif(not (ROOT / "CITATION.cff").exists(), reason="beside a checkout only")
def test_the_version_to_cite_is_that_of_the_distribution() -> None:
    told = re.search(r"^version: (.+)$", (ROOT / "CITATION.cff").read_text(encoding="utf-8"), re.MULTILINE)
    assert told is not None
    assert told[1] == distribution_version()
