"""Architectures: what is closed goes, the answers stay, and a plain network is left that trains.

Where a record of the whole zoo is at hand, no less may go than it says.
"""

from __future__ import annotations

import copy
import json
import warnings
from dataclasses import asdict
from typing import Any

import torch
from torch import nn

from benchmarks.measuring.source import RESULTS, ROOT
from benchmarks.zoo.child import BMRS
from benchmarks.zoo.measurement import parameters_of, shrink
from benchmarks.zoo.randomness import mask
from benchmarks.zoo.table import EXACT, is_exact
from bmrs_torch import compact, fold
from bmrs_torch.channels.calling import answers, call, tensors_of
from bmrs_torch.surgery.verification import difference

RECORD = ROOT / RESULTS / "zoo.json"
RECORDED = {
    row["architecture"]: row[BMRS].get("share", 0.0)
    for row in json.loads(RECORD.read_text(encoding="utf-8"))["rows"]
}


def assert_trains(model: nn.Module, inputs: Any) -> None:
    """One step of gradient descent goes through every layer that the example reaches."""
    model.requires_grad_(True).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    sum(t.square().mean() for t in tensors_of(call(model, inputs)) if t.is_floating_point()).backward()  # type: ignore[union-attr]
    optimizer.step()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_shrunk_and_folded_answer_as_masked(architecture: str) -> None:
    measured, folded, large = shrink(architecture)
    assert is_exact(asdict(measured))
    assert measured.share >= RECORDED.get(architecture, 0.0)
    assert not any(type(m).__module__.startswith("bmrs") for m in folded.modules())
    assert_trains(folded, large.example)
    if not measured.noise_layers:
        return
    least = parameters_of(folded)
    for dead in (0.95, 1.0):
        mask(large.model, dead)
        before = copy.deepcopy(large.model.state_dict())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of what has to stay
            smaller = fold(compact(large.model, large.example), large.example)
        assert all(torch.equal(before[key], value) for key, value in large.model.state_dict().items())
        assert (
            difference(answers(large.model, large.other), answers(smaller, large.other))
            <= EXACT[measured.dtype]
        )
        assert parameters_of(smaller) <= least
