"""The layer in the life of a model: mixed precision, checkpointing, copies, files, dtypes, odd shapes."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from bmrs_torch import MultiplicativeNoise, insert_noise, noise_layers

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def net() -> nn.Module:
    torch.manual_seed(1)
    return insert_noise(
        nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 5), nn.ReLU(), nn.Linear(5, 2)),
        torch.ones(2, 6),
    )


def gradients(model: nn.Module, run: Callable[[Tensor], Tensor], x: Tensor) -> list[Tensor]:
    torch.manual_seed(3)
    model.zero_grad()
    run(x).square().sum().backward()
    found = [p.grad for p in model.parameters()]
    assert all(gradient is not None for gradient in found)
    return [gradient.clone() for gradient in found if gradient is not None]


@pytest.mark.parametrize("training", [True, False])
def test_autocast_keeps_the_format_of_the_activations(training: bool) -> None:
    model = nn.Sequential(nn.Linear(6, 8), MultiplicativeNoise(8)).train(training)
    x = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))

    def under_autocast(x: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            y: Tensor = model(x)
        assert y.dtype == torch.bfloat16
        return y.float()

    mixed, full = gradients(model, under_autocast, x), gradients(model, model, x)
    for ours, exact, parameter in zip(mixed, full, model.parameters(), strict=True):
        assert ours.dtype == parameter.dtype == torch.float32
        # bfloat16 keeps 8 bits; sums of 4 or 24 products of a few factors each, relative to the largest.
        torch.testing.assert_close(ours, exact, rtol=0.05, atol=0.02 * float(exact.abs().max()))


@pytest.mark.parametrize("use_reentrant", [True, False])
def test_checkpointing_draws_the_same_noise_again(use_reentrant: bool) -> None:
    model = net()
    x = torch.randn(4, 6, generator=torch.Generator().manual_seed(0)).requires_grad_()

    def checkpointed(x: Tensor) -> Tensor:
        y: Tensor = checkpoint(model, x, use_reentrant=use_reentrant)
        return y

    for ours, plain in zip(gradients(model, checkpointed, x), gradients(model, model, x), strict=True):
        assert torch.equal(ours, plain)


def by_torch_save(model: nn.Module) -> nn.Module:
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    loaded: nn.Module = torch.load(file, weights_only=False)
    return loaded


def by_state(model: nn.Module) -> nn.Module:
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    other = net()
    other.load_state_dict(torch.load(file))
    return other.train(model.training)


def by_pickle(model: nn.Module) -> nn.Module:
    loaded: nn.Module = pickle.loads(pickle.dumps(model))
    return loaded


COPIES = [copy.deepcopy, by_pickle, by_torch_save, by_state]


@pytest.mark.parametrize("copied", COPIES, ids=lambda function: function.__name__)
@pytest.mark.parametrize("training", [True, False])
def test_a_copy_does_what_the_model_does(copied: Callable[[Any], Any], training: bool) -> None:
    model = net().train(training)
    x = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1)
        next(m for m in model.modules() if isinstance(m, MultiplicativeNoise)).mask[2] = 0
        model(x)  # what a layer keeps between calls must not spoil a copy

    def outcome(model: nn.Module) -> Tensor:
        torch.manual_seed(5)
        y: Tensor = model(x)
        return y

    assert torch.equal(outcome(copied(model)), outcome(model))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("training", [True, False])
def test_a_converted_layer_trains_in_its_dtype(dtype: torch.dtype, training: bool) -> None:
    layer = MultiplicativeNoise(3).to(dtype).train(training)
    x = torch.ones(4, 3, dtype=dtype, requires_grad=True)
    y = layer(x)
    y.sum().backward()
    assert y.dtype == dtype
    for leaf in (x, layer.mu, layer.log_sigma):
        assert leaf.grad is not None
        assert leaf.grad.dtype == dtype
        assert bool(leaf.grad.isfinite().all())
        assert bool(leaf.grad.any())


def test_conversion_by_name_and_back_keeps_the_noise() -> None:
    layer, x = MultiplicativeNoise(3), torch.ones(4, 3)

    def drawn() -> Tensor:
        torch.manual_seed(9)
        return layer(x).detach()  # type: ignore[no-any-return]

    before = drawn()
    for convert in (layer.half, layer.bfloat16, layer.double, layer.float):
        convert()
    assert torch.equal(drawn(), before)  # 0 and -5 are numbers of every format


SHAPES = [(1, 3), (4, 1), (1, 1), (0, 3), (2, 3, 1, 1), (1, 1, 1, 1), (0, 3, 4, 4), (4, 3, 0, 2)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("share", ["sample", "batch", "element"])
def test_odd_shapes_pass_through_the_layer(shape: tuple[int, ...], training: bool, share: Any) -> None:
    layer = MultiplicativeNoise(shape[1], share=share).train(training)
    x = torch.ones(shape, requires_grad=True)
    y = layer(x)
    y.sum().backward()
    assert y.shape == shape
    assert bool(((y > 0.9) & (y < 1.0)).all())
    for leaf in (x, layer.mu, layer.log_sigma):
        assert leaf.grad is not None
        assert leaf.grad.shape == leaf.shape
        assert bool(leaf.grad.isfinite().all())
        assert bool(leaf.grad.any()) == (x.numel() > 0)


def test_fixed_noise_is_its_expectation_in_training_and_learns_no_more() -> None:
    model = net().train()
    x = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    expected = model.eval()(x)
    for layer in noise_layers(model.train()).values():
        layer.fix()
    assert torch.equal(model(x), expected)
    model(x).square().sum().backward()
    for layer in noise_layers(model).values():
        assert layer.fixed
        assert layer.mu.grad is None
        assert layer.log_sigma.grad is None
    assert model.get_parameter("0.weight").grad is not None


def test_noise_that_is_no_longer_fixed_is_drawn_and_learns_again() -> None:
    model = net().train()
    for layer in noise_layers(model).values():
        layer.fix().fix(False)
    x = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    assert not torch.equal(model(x), model(x))
    assert len(gradients(model, model, x)) == len(list(model.parameters()))
