"""What ships is an ordinary network: torch.export, torch.compile and ONNX take it, and answer as it does."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from bmrs_torch import MultiplicativeNoise, compact, fold, load_pruned, save_pruned
from tests.bindings.networks import NETWORKS, images, noisy


def shipped(name: str) -> nn.Module:
    return fold(compact(noisy(name), images(4)), images(4)).eval()


@pytest.mark.parametrize("name", NETWORKS)
def test_export_needs_nothing_of_this_package(name: str) -> None:
    model = shipped(name)
    batch = torch.export.Dim("batch", min=2)
    program = torch.export.export(model, (images(4),), dynamic_shapes=({0: batch},))
    targets = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
    assert not any("bmrs" in target for target in targets)
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    # The same operators on the same numbers.
    assert torch.equal(torch.export.load(file).module()(images(7)), model(images(7)))


def test_a_network_with_noise_can_be_exported_too() -> None:
    model = compact(noisy("lenet5"), images(4)).eval()
    program = torch.export.export(model, (images(4),))
    # Beside its operator for E[θ] the same operators; that is rounded from float64 either way.
    torch.testing.assert_close(program.module()(images(4)), model(images(4)))


@pytest.mark.parametrize("name", NETWORKS)
def test_a_compiled_network_answers_as_the_plain_one(name: str) -> None:
    model = shipped(name)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        assert torch.equal(compiled(images(4)), model(images(4)))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the exporter, about its own modules
@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("name", NETWORKS)
def test_onnxruntime_agrees(name: str, tmp_path: Path) -> None:
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package, reason="pip install 'bmrs-pruning[export]'")
    import onnxruntime

    file = save_pruned(shipped(name), tmp_path / "small.safetensors")
    model = load_pruned(NETWORKS[name], file).eval()
    assert not any(isinstance(module, MultiplicativeNoise) for module in model.modules())
    batch = torch.export.Dim("batch", min=2)
    program = torch.onnx.export(model, (images(4),), dynamo=True, dynamic_shapes=({0: batch},), verbose=False)
    assert program is not None
    program.save(str(tmp_path / "small.onnx"))
    session = onnxruntime.InferenceSession(tmp_path / "small.onnx", providers=["CPUExecutionProvider"])
    (answer,) = session.run(None, {session.get_inputs()[0].name: images(7).numpy()})
    with torch.no_grad():
        expected = model(images(7)).numpy()
    # float32 sums of up to 784 products, taken in another order, relative to the largest logit.
    np.testing.assert_allclose(answer, expected, atol=1e-5 * np.abs(expected).max(), rtol=0)
