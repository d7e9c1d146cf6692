"""Distributions check what they are given, as they do until the first use of torch.compile in a process."""

import pytest
from torch.distributions import Distribution


@pytest.fixture(autouse=True)
def checked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Undo what torch.compile does: it switches the checks of all distributions off, for good."""
    monkeypatch.setattr(Distribution, "_validate_args", True)
