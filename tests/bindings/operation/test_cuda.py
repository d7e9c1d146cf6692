"""The operation on a real GPU: nothing is waited for, graphs draw anew, devices are respected."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from bmrs_torch import MultiplicativeNoise, elbo_loss, insert_noise, kl_divergence, multiplicative_noise

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")

DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
SHARES = pytest.mark.parametrize("share", ["sample", "batch", "element"])
TRAINING_SET = 1000


@contextlib.contextmanager
def no_waiting() -> Iterator[None]:
    """Whatever would make the host wait for the device is an error."""
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def parameters(count: int, device: str = "cuda") -> tuple[Tensor, Tensor]:
    mu = torch.linspace(-8.0, 2.0, count, device=device).requires_grad_()
    log_sigma = torch.linspace(-4.0, 3.0, count, device=device).requires_grad_()
    return mu, log_sigma


def results(
    shape: tuple[int, ...], dtype: torch.dtype, share: str, seed: Tensor, device: str = "cuda"
) -> tuple[Tensor, ...]:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(device, dtype).requires_grad_()
    leaves = x, *parameters(shape[1], device)
    y = multiplicative_noise(*leaves, share=share, seed=seed)  # type: ignore[arg-type]
    return y.detach(), *torch.autograd.grad(y.float().square().sum(), leaves)


@DTYPES
@SHARES
@pytest.mark.parametrize("shape", [(64, 48, 28, 28), (33, 50, 7, 7), (512, 300)], ids=str)
def test_two_runs_give_the_same_bits(shape: tuple[int, ...], dtype: torch.dtype, share: str) -> None:
    seed = torch.tensor([5])
    first, second = (results(shape, dtype, share, seed) for _ in range(2))
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


@SHARES
@pytest.mark.parametrize("shape", [(16, 24, 14, 14), (128, 300)], ids=str)
def test_a_seed_gives_the_noise_that_it_gives_on_the_cpu(shape: tuple[int, ...], share: str) -> None:
    seed = torch.tensor([-7])
    there, here = (
        results(shape, torch.float32, share, seed),
        results(shape, torch.float32, share, seed, "cpu"),
    )
    for found, expected in zip(there, here, strict=True):
        # Elementary functions of two makers, amplified by the condition of θ, some tens.
        scale = float(expected.abs().max())
        torch.testing.assert_close(found.cpu(), expected, rtol=1e-4, atol=1e-5 * scale)


def net() -> nn.Module:
    torch.manual_seed(1)
    convolutional = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 20), nn.ReLU()
    )
    return insert_noise(nn.Sequential(*convolutional, nn.Linear(20, 2)), torch.ones(2, 3, 8, 8)).cuda()


def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    images = torch.randn(16, 3, 8, 8, generator=generator)
    return images.cuda(), torch.randint(2, (16,), generator=generator).cuda()


def loss_of(model: nn.Module, images: Tensor, labels: Tensor, kl_scale: str = "elbo") -> Tensor:
    misfit = nn.functional.cross_entropy(model(images), labels)
    return elbo_loss(misfit, model, num_samples=TRAINING_SET, kl_scale=kl_scale)  # type: ignore[arg-type]


@pytest.mark.parametrize("kl_scale", ["elbo", "published"])
def test_a_training_step_waits_for_nothing(kl_scale: str) -> None:
    model, (images, labels) = net(), batch()
    loss_of(model, images, labels, kl_scale).backward()  # compiles, and copies what does not change
    with no_waiting():
        loss_of(model, images, labels, kl_scale).backward()


def test_evaluation_waits_for_nothing() -> None:
    model, (images, _) = net().eval(), batch()
    model(images).sum().backward()
    with no_waiting():
        model(images).sum().backward()
        with torch.no_grad():
            model(images)


def test_a_captured_graph_draws_anew_at_each_replay() -> None:
    model, (images, labels) = net(), batch()
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        for _ in range(3):
            loss_of(model, images, labels).backward()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    model.zero_grad(set_to_none=True)
    with torch.cuda.graph(graph):
        loss = loss_of(model, images, labels)
        loss.backward()
    seen = []
    for _ in range(4):
        graph.replay()
        seen.append((loss.item(), *(p.grad.sum().item() for p in model.parameters() if p.grad is not None)))
    assert len(set(seen)) == 4
    assert all(value == value for replay in seen for value in replay)


def test_manual_seed_governs_the_noise() -> None:
    model, (images, labels) = net(), batch()
    found = []
    for _ in range(2):
        torch.manual_seed(3)
        found.append([loss_of(model, images, labels).item() for _ in range(2)])
    assert found[0] == found[1]
    assert found[0][0] != found[0][1]


def test_a_full_graph_is_compiled() -> None:
    model, (images, labels) = net(), batch()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the compiler's own making
        compiled = torch.compile(loss_of, fullgraph=True)
        compiled(model, images, labels).backward()
    found = [parameter.grad for parameter in model.parameters()]
    assert all(gradient is not None and bool(gradient.isfinite().all()) for gradient in found)


def test_the_divergence_is_that_of_the_cpu() -> None:
    model = net()
    on_gpu = kl_divergence(model)
    gradients = torch.autograd.grad(
        on_gpu, [p for n, p in model.named_parameters() if n.endswith(("mu", "sigma"))]
    )
    model.cpu()
    on_cpu = kl_divergence(model)
    expected = torch.autograd.grad(
        on_cpu, [p for n, p in model.named_parameters() if n.endswith(("mu", "sigma"))]
    )
    # Float32 against float64, of terms of one sign.
    torch.testing.assert_close(on_gpu.cpu(), on_cpu, rtol=1e-5, atol=0.0)
    for found, exact in zip(gradients, expected, strict=True):
        torch.testing.assert_close(found.cpu(), exact, rtol=1e-4, atol=1e-4)


def test_unusable_parameters_make_the_loss_nan() -> None:
    model, (images, labels) = net(), batch()
    layer = next(m for m in model.modules() if isinstance(m, MultiplicativeNoise))
    with torch.no_grad():
        layer.mu[0] = torch.nan
    assert loss_of(model, images, labels).isnan()


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="there is one CUDA device")
def test_work_is_queued_on_the_device_of_the_input() -> None:
    seed = torch.tensor([9])
    with torch.cuda.device(0):
        away = results((8, 12, 6, 6), torch.float32, "sample", seed, "cuda:1")
    here = results((8, 12, 6, 6), torch.float32, "sample", seed, "cuda:0")
    for one, other in zip(away, here, strict=True):
        assert one.device == torch.device("cuda:1")
        assert torch.equal(one.cpu(), other.cpu())


def test_more_elements_than_32_bits_count() -> None:
    free, _ = torch.cuda.mem_get_info()
    shape = (2**15 + 1, 2, 2**15)
    if free < 3 * 2 * (2**15 + 1) * 2**16:
        pytest.skip(f"takes 13 GB, there are {free / 1e9:.0f} free")
    x = torch.ones(shape, dtype=torch.bfloat16, device="cuda")
    y = multiplicative_noise(x, *(p.detach() for p in parameters(2)), seed=torch.tensor([1]))
    few = multiplicative_noise(x[:1], *(p.detach() for p in parameters(2)), seed=torch.tensor([1]))
    assert torch.equal(y[0], few[0])
    assert torch.equal(y.amin(2), y.amax(2))
    assert y[-1].float().log().isfinite().all()
    assert not torch.equal(y[-1], y[0])
