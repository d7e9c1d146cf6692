"""The zoo needs packages of its own (`make test-zoo`); where they are missing its tests are left out."""

from importlib.util import find_spec

import pytest

from benchmarks.zoo.architectures import ARCHITECTURES

collect_ignore_glob = [] if all(map(find_spec, ("timm", "torchvision", "transformers"))) else ["test_*.py"]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let all of the zoo be tested, not only the part that CI has the time for."""
    parser.addoption("--whole", action="store_true", help="all architectures, the slow ones, too")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give a test that asks for an `architecture` the names of those to test."""
    if "architecture" in metafunc.fixturenames:
        whole = metafunc.config.getoption("--whole", default=False)
        metafunc.parametrize("architecture", [n for n, one in ARCHITECTURES.items() if whole or not one.slow])
