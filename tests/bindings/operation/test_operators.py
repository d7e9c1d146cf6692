"""The operation under torch's machinery: opcheck, compilers, export, transforms, second derivatives."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bmrs_kernels.contract import SHARES
from bmrs_torch import MultiplicativeNoise, elbo_loss, insert_noise, multiplicative_noise, noise_layers

SEED = torch.tensor([-987654321])
COMPILER = pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs a C++ compiler")
BACKENDS = pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=COMPILER)])


@pytest.fixture
def _fresh_compiler() -> Iterator[None]:
    """Compile anew, with torch's own random numbers, as the eager run has them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the compiler's own making
        from torch._inductor import config

        torch._dynamo.reset()
        with config.patch(fallback_random=True, force_disable_caches=True):
            yield
        torch._dynamo.reset()


def normal(*shape: int, number: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(number))


def net() -> nn.Module:
    torch.manual_seed(1)
    convolutional = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 5), nn.ReLU())
    return insert_noise(nn.Sequential(*convolutional, nn.Linear(5, 2)), torch.ones(2, 1, 6, 6))


def noise_arguments(share: str, dtype: torch.dtype, want: bool) -> tuple[Any, ...]:
    x = normal(4, 3, 2, 5).to(dtype).requires_grad_(want)
    parameters = [normal(3, number=number).requires_grad_(want) for number in (1, 2)]
    return x, *parameters, torch.tensor([1.0, 0.0, 1.0]), SEED, 1, SHARES.index(share), -20.0, 0.0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("share", SHARES)
def test_opcheck_of_the_noise(share: str, dtype: torch.dtype) -> None:
    torch.library.opcheck(torch.ops.bmrs.noise.default, noise_arguments(share, dtype, want=True))


@pytest.mark.parametrize("want_dx", [True, False])
def test_opcheck_of_its_backward_pass(want_dx: bool) -> None:
    arguments = (normal(4, 3, 2, 5), *noise_arguments("sample", torch.float32, want=False), want_dx)
    torch.library.opcheck(torch.ops.bmrs.noise_backward.default, arguments)


def test_opcheck_of_an_input_that_must_be_copied() -> None:
    x = normal(2, 3, 4, 5).permute(2, 1, 0, 3)[:, :, :, ::2]
    arguments = (x, *noise_arguments("sample", torch.float32, want=True)[1:])
    torch.library.opcheck(torch.ops.bmrs.noise.default, arguments)


def test_opcheck_of_the_expectation() -> None:
    parameters = (normal(3).requires_grad_(), normal(3, number=1).requires_grad_(), -20.0, 0.0)
    torch.library.opcheck(torch.ops.bmrs.noise_mean.default, parameters)
    without = tuple(p.detach() if isinstance(p, Tensor) else p for p in parameters)
    torch.library.opcheck(torch.ops.bmrs.noise_mean_gradient.default, without)


def test_opcheck_of_the_divergence() -> None:
    mu, log_sigma = ([normal(n, number=k).requires_grad_() for n in (3, 2)] for k in (1, 2))
    masks = [torch.tensor([1.0, 0.0, 1.0]), torch.ones(2)]
    torch.library.opcheck(
        torch.ops.bmrs.divergence.default, (mu, log_sigma, masks, [-20.0, -10.0], [0.0, -1.0])
    )


def step(function: Callable[[Tensor], Tensor], model: nn.Module, x: Tensor) -> list[Tensor]:
    """Loss and gradients of one step; what has none gets zeros."""
    torch.manual_seed(7)
    model.zero_grad()
    loss = function(x)
    loss.backward()
    parameters = list(model.parameters())
    return [loss.detach(), *(torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in parameters)]


@BACKENDS
@pytest.mark.usefixtures("_fresh_compiler")
def test_a_compiled_training_step_equals_the_eager_one(backend: str) -> None:
    model, x = net(), normal(6, 1, 6, 6)

    def loss(x: Tensor) -> Tensor:
        answer: Tensor = model(x).square().mean()
        return answer

    compiled = step(torch.compile(loss, fullgraph=True, backend=backend), model, x)
    # The compiler may fuse and reorder what is around the noise: a few eps of sums of some hundred terms.
    torch.testing.assert_close(compiled, step(loss, model, x), rtol=1e-5, atol=1e-6)


@BACKENDS
@pytest.mark.parametrize("kl_scale", ["elbo", "published"])
@pytest.mark.usefixtures("_fresh_compiler")
def test_a_compiled_objective_equals_the_eager_one(backend: str, kl_scale: Any) -> None:
    model, x = net(), normal(6, 1, 6, 6)

    def loss(x: Tensor) -> Tensor:
        return elbo_loss(model(x).square().mean(), model, num_samples=10, kl_scale=kl_scale)

    compiled = step(torch.compile(loss, fullgraph=True, backend=backend), model, x)
    torch.testing.assert_close(compiled, step(loss, model, x), rtol=1e-5, atol=1e-6)  # as above


@pytest.mark.usefixtures("_fresh_compiler")
def test_a_compiled_model_draws_anew_at_each_call() -> None:
    layer = MultiplicativeNoise(3)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    x = torch.ones(4, 3)
    assert not torch.equal(compiled(x), compiled(x))


@pytest.mark.usefixtures("_fresh_compiler")
def test_an_exported_model_equals_the_model() -> None:
    model, x = net().eval(), normal(6, 1, 6, 6)
    next(iter(noise_layers(model).values())).mask[1] = 0
    with torch.no_grad():
        exported = torch.export.export(model, (x,)).module()
        assert torch.equal(exported(x), model(x))


@pytest.mark.parametrize("share", SHARES)
def test_a_second_derivative_is_refused_whatever_it_is_of(share: str) -> None:
    x, mu, log_sigma = (t.requires_grad_() for t in (normal(4, 3), normal(3), normal(3, number=1)))
    y = multiplicative_noise(x, mu, log_sigma, share=share, seed=SEED)  # type: ignore[arg-type]
    for of in (x, mu, log_sigma):
        (gradient,) = torch.autograd.grad(y.sum(), of, create_graph=True)
        with pytest.raises(RuntimeError, match="cannot be differentiated again"):
            gradient.square().sum().backward()
        for by in (x, mu, log_sigma):
            (gradient,) = torch.autograd.grad(y.sum(), of, create_graph=True)
            with pytest.raises(RuntimeError, match="cannot be differentiated again"):
                torch.autograd.grad(gradient.square().sum(), by)


def test_a_second_derivative_of_the_expectation_is_refused() -> None:
    layer = MultiplicativeNoise(3).eval()
    (gradient,) = torch.autograd.grad(layer(torch.ones(2, 3)).sum(), layer.mu, create_graph=True)
    with pytest.raises(RuntimeError, match="cannot be differentiated again"):
        gradient.square().sum().backward()


def test_a_second_derivative_by_x_alone_works_in_evaluation() -> None:
    layer = MultiplicativeNoise(3).eval().requires_grad_(False)
    x = normal(2, 3).requires_grad_()
    (gradient,) = torch.autograd.grad(layer(x).pow(3).sum(), x, create_graph=True)
    gradient.sum().backward()
    scale = layer.expected_noise().float()
    assert x.grad is not None
    torch.testing.assert_close(x.grad, 6 * x.detach() * scale**3, rtol=1e-5, atol=0.0)  # a few roundings


TRANSFORMS: dict[str, Callable[[Callable[[Tensor], Tensor], Tensor], Any]] = {
    "grad": lambda function, x: torch.func.grad(lambda x: function(x).sum())(x),
    "vmap": lambda function, x: torch.vmap(function)(x.unsqueeze(0)),
    "jvp": lambda function, x: torch.func.jvp(function, (x,), (x,)),
}


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")  # by torch itself
@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("training", [True, False])
def test_transforms_of_torch_func_are_refused(transform: str, training: bool) -> None:
    layer = MultiplicativeNoise(3).train(training)

    def noisy(x: Tensor) -> Tensor:
        if training:
            return multiplicative_noise(x, layer.mu, layer.log_sigma, seed=SEED)
        answer: Tensor = layer(x)
        return answer

    with pytest.raises(RuntimeError, match=r"does not support the transforms of torch\.func"):
        TRANSFORMS[transform](noisy, torch.ones(4, 3))
