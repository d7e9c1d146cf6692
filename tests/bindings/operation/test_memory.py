"""Kernels read only memory that is there, as what it is; all else is refused or goes another way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode
from torch.testing._internal.two_tensor import TwoTensor

from bmrs_torch import (
    MultiplicativeNoise,
    compact,
    elbo_loss,
    fold,
    insert_noise,
    kl_divergence,
    multiplicative_noise,
    prune,
    scores,
)

WIDE = (400, 8, 100)
"""Too large to be drawn with other layers."""


def layer(**replaced: Tensor) -> MultiplicativeNoise:
    found = MultiplicativeNoise(8)
    for name, value in replaced.items():
        if name == "mask":
            found.mask = value
        else:
            setattr(found, name, nn.Parameter(value, requires_grad=value.is_floating_point()))
    return found


def on_meta(name: str) -> MultiplicativeNoise:
    found = MultiplicativeNoise(8)
    return layer(**{name: getattr(found, name).detach().to("meta")})


def freed() -> MultiplicativeNoise:
    found = MultiplicativeNoise(8)
    found.mu.untyped_storage().resize_(0)
    return found


UNREADABLE: dict[str, Callable[[], MultiplicativeNoise]] = {
    "on meta": lambda: MultiplicativeNoise(8).to("meta"),
    "mu on meta": lambda: on_meta("mu"),
    "log_sigma on meta": lambda: on_meta("log_sigma"),
    "mask on meta": lambda: on_meta("mask"),
    "freed": freed,
    "sparse mu": lambda: layer(mu=torch.zeros(8).to_sparse()),
    "sparse mask": lambda: layer(mask=torch.ones(8).to_sparse()),
    "short mask": lambda: layer(mask=torch.ones(3)),
    "short log_sigma": lambda: layer(log_sigma=torch.zeros(3)),
    "mask of whole numbers": lambda: layer(mask=torch.ones(8, dtype=torch.int64)),
}


@pytest.mark.parametrize("shape", [(4, 8), (4, 8, 3), WIDE])
@pytest.mark.parametrize("name", UNREADABLE)
def test_a_layer_that_can_not_be_read_refuses_to_multiply(name: str, shape: tuple[int, ...]) -> None:
    with pytest.raises((ValueError, TypeError, RuntimeError)) as caught:
        UNREADABLE[name]()(torch.randn(shape))
    said = str(caught.value)
    assert any(
        word in said for word in ("on meta", "no memory", "dense", "one entry", "one length", "boolean")
    )


@pytest.mark.parametrize("name", sorted(UNREADABLE.keys() - {"on meta"}))
def test_a_layer_that_can_not_be_read_has_no_divergence(name: str) -> None:
    for model in (UNREADABLE[name](), nn.Sequential(MultiplicativeNoise(4), UNREADABLE[name]())):
        with pytest.raises((ValueError, TypeError, RuntimeError)) as caught:
            kl_divergence(model)
        assert "the noise" in str(caught.value) or "no memory" in str(caught.value)


def test_all_on_meta_answers_on_meta() -> None:
    """As shapes are inferred with any module."""
    model = nn.Sequential(MultiplicativeNoise(8), MultiplicativeNoise(8)).to("meta")
    x = torch.randn(4, 8, device="meta")
    assert model(x).is_meta
    assert model.eval()(x).is_meta
    assert kl_divergence(model).is_meta
    assert elbo_loss(torch.zeros((), device="meta"), model, num_samples=3).is_meta
    with pytest.raises(ValueError, match="the noise 1 is on the meta device, where it has no values"):
        kl_divergence(nn.Sequential(MultiplicativeNoise(8), MultiplicativeNoise(8).to("meta")))
    with pytest.raises(ValueError, match=r"x on cpu and mu on meta.*after giving it values"):
        model.eval()(torch.randn(4, 8))


def test_what_needs_values_says_so() -> None:
    x = torch.randn(2, 4, device="meta")
    network = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    model = insert_noise(network, torch.randn(2, 4)).to("meta")
    for call in (lambda: prune(model), lambda: scores(model, "snr")):
        with pytest.raises(ValueError, match=r"0\.noise.*on the meta device, where they have no values"):
            call()
    for ask in (compact, fold):
        with pytest.raises(ValueError, match=r"has no values.*on the meta device"):
            ask(model, x)


@pytest.mark.parametrize("mask", [torch.float64, torch.float16, torch.bfloat16, torch.bool, "strided"])
def test_masks_of_other_dtypes_and_strides_are_read_as_what_they_are(mask: Any) -> None:
    kept = torch.tensor([0.0, 1, 1, 0, 1, 1, 1, 0])
    other = kept.repeat_interleave(2)[::2] if mask == "strided" else kept.to(mask)
    x = torch.ones(3, 8, 2)
    results = []
    for value in (kept, other):
        torch.manual_seed(3)
        results.append((layer(mask=value)(x), kl_divergence(layer(mask=value))))
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])


@pytest.mark.parametrize("shape", [(4, 8), WIDE])
def test_expanded_and_negated_tensors_are_read_as_what_they_are(shape: tuple[int, ...]) -> None:
    x = torch.randn(shape)
    seeds = torch.tensor([5])
    zero, expanded = torch.zeros(8), torch.zeros(1).expand(8)
    expected = multiplicative_noise(x, zero, zero - 3, seed=seeds)
    assert torch.equal(multiplicative_noise(x, expanded, expanded - 3, seed=seeds), expected)
    negated = torch._neg_view(x)
    assert torch.equal(multiplicative_noise(negated, zero, zero - 3, seed=seeds), -expected)
    noise = layer(mu=expanded)
    torch.manual_seed(3)
    answer = noise(x)
    torch.manual_seed(3)
    assert torch.equal(layer()(x), answer)


def nested(layout: torch.layout) -> Tensor:
    return torch.nested.nested_tensor([torch.randn(3, 8), torch.randn(2, 8)], layout=layout)


@pytest.mark.filterwarnings("ignore:.*prototype stage.*:UserWarning", "ignore:.*beta state.*:UserWarning")
@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.randn(4, 8).to_sparse(),
        lambda: torch.randn(4, 8).to_sparse_csr(),
        lambda: torch.randn(40000, 8).to_sparse(),
        lambda: torch.randn(4, 8).to_mkldnn(),
        lambda: nested(torch.strided),
        lambda: nested(torch.jagged),
    ],
)
def test_activations_that_are_not_dense_are_refused(make: Callable[[], Tensor]) -> None:
    with pytest.raises(TypeError, match="x must be a dense tensor"):
        MultiplicativeNoise(8, axis=-1)(make())


def test_sparse_gradients_are_taken() -> None:
    x = torch.ones(WIDE, requires_grad=True)
    noise = MultiplicativeNoise(8)
    y = noise(x)
    y.backward(torch.ones(WIDE).to_sparse())
    assert x.grad is not None
    assert torch.equal(x.grad, y.detach())


def test_fake_tensors_are_computed_in_shapes_alone() -> None:
    with FakeTensorMode():
        model = nn.Sequential(MultiplicativeNoise(8), MultiplicativeNoise(8))
        x = torch.randn(4, 8)
        (model(x).sum() + kl_divergence(model)).backward()
        assert model.eval()(x).shape == (4, 8)
    with pytest.raises(AssertionError, match="FakeTensor"):
        model.train()(torch.randn(4, 8))


def test_subclasses_take_their_own_way() -> None:
    noise = layer(mu=TwoTensor(torch.zeros(8), torch.zeros(8)))
    torch.manual_seed(3)
    both = noise(torch.ones(4, 8))
    torch.manual_seed(3)
    assert torch.equal(both.a, layer()(torch.ones(4, 8)))


def test_transforms_of_torch_func_are_refused_by_the_divergence_too() -> None:
    def objective(mu: Tensor) -> Tensor:
        noise = MultiplicativeNoise(8)
        noise._parameters["mu"] = mu  # type: ignore[assignment]
        return kl_divergence(noise)

    with pytest.raises(RuntimeError, match="does not support the transforms"):
        torch.func.grad(objective)(torch.zeros(8))
