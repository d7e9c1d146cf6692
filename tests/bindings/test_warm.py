"""What is compiled beforehand is all that training and pruning need."""

from __future__ import annotations

import subprocess
import sys

import pytest

from bmrs_torch import warm

USE = """
import torch
from numba.core import event
from torch import nn
from bmrs_torch import elbo_loss, insert_noise, multiplicative_noise, prune

class Compilations(event.Listener):
    names = []
    def on_start(self, event):
        self.names.append(event.data["dispatcher"].py_func.__qualname__)
    def on_end(self, event):
        pass

event.register("numba:compile", Compilations())
x = torch.randn(8, 4)
small = insert_noise(nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2)), x)
elbo_loss(small(x).square().mean(), small, num_samples=8).backward()
maps, mu = torch.randn(2, 8, 160, 160, requires_grad=True), torch.zeros(8, requires_grad=True)
for share in ("sample", "element", "batch"):
    multiplicative_noise(maps, mu, mu - 5.0, share=share).sum().backward()
for criterion in ("bmrs_n", "bmrs_u", "snr"):
    prune(small, criterion=criterion, **({"amount": 0.1} if criterion == "snr" else {}))
small.eval()(x).sum().backward()
print(Compilations.names)
"""


def test_nothing_is_compiled_any_more_by_training_pruning_and_evaluation() -> None:
    command = [sys.executable, "-m", "bmrs_torch.warm", "--dtype", "float32"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert len(done.stdout.splitlines()) == len(warm.parts(["float32"]))
    used = subprocess.run([sys.executable, "-c", USE], capture_output=True, text=True, check=True)
    assert used.stdout.strip() == "[]"


def test_its_exit_status_tells_whether_anything_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warm, "parts", lambda _dtypes: {"nothing": lambda: None})
    assert warm.main(["--dtype", "float32"]) == 0
    monkeypatch.setattr(warm, "is_kept", lambda: False)
    assert warm.main(["--dtype", "float32"]) == 1


def test_each_dtype_of_activations_has_kernels_of_its_own() -> None:
    names = [name for name in warm.parts() if name.startswith("noise on")]
    assert names == [f"noise on {dtype}" for dtype in warm.DTYPES]
    assert not any("small layers" in name for name in warm.parts(["float64"]))
