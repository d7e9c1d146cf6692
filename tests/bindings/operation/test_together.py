"""Small layers that draw ahead for one another: the noise is what each would draw by itself."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from bmrs_core import log_quantile_grad, philox
from bmrs_torch import MultiplicativeNoise, elbo_loss, kl_divergence, multiplicative_noise, parameter_groups
from bmrs_torch.operation import together as together_module
from bmrs_torch.operation.together import DrawingTogether

SAMPLES = 8


def network(convolutional: bool = False) -> nn.Sequential:
    torch.manual_seed(0)
    head: list[nn.Module] = [nn.Linear(6, 5), MultiplicativeNoise(5)]
    if convolutional:
        head = [
            nn.Conv2d(1, 3, 2),
            MultiplicativeNoise(3),
            nn.Flatten(),
            nn.Linear(12, 5),
            MultiplicativeNoise(5),
        ]
    model = nn.Sequential(*head, nn.Tanh(), nn.Linear(5, 4), MultiplicativeNoise(4), nn.Linear(4, 1))
    for layer in noise_of(model):
        nn.init.normal_(layer.mu, -0.5, 0.3)
        nn.init.normal_(layer.log_sigma, -1.0, 0.3)
    return model


def noise_of(model: nn.Module) -> list[MultiplicativeNoise]:
    return [m for m in model.modules() if isinstance(m, MultiplicativeNoise)]


def together(model: nn.Sequential, x: Tensor) -> nn.Sequential:
    """Let the layers of a model know each other, and what they see."""
    kl_divergence(model)
    state = torch.get_rng_state()
    model(x)
    torch.set_rng_state(state)
    return model


def drawing_of(model: nn.Module) -> DrawingTogether:
    drawing = noise_of(model)[0].drawing
    assert drawing is not None
    return drawing


def recorded(model: nn.Module, x: Tensor) -> list[Tensor]:
    """y/x of each noise layer of one forward pass: the noise it multiplied by."""
    seen: list[Tensor] = []
    hooks = [
        layer.register_forward_hook(lambda _m, inputs, y: seen.append((y / inputs[0]).detach()))
        for layer in noise_of(model)
    ]
    model(x)
    for hook in hooks:
        hook.remove()
    return seen


@pytest.fixture
def x() -> Tensor:
    return torch.randn(SAMPLES, 6, generator=torch.Generator().manual_seed(1))


def drawn_seeds(number: int) -> list[int]:
    return [int(torch.randint(-(2**63), 2**63 - 1, (1,), dtype=torch.int64)) for _ in range(number)]


def test_noise_and_gradients_are_those_of_the_seed_that_each_layer_draws(x: Tensor) -> None:
    model = together(network(), x)
    layers = noise_of(model)
    torch.manual_seed(7)
    seeds = drawn_seeds(len(layers))
    torch.manual_seed(7)
    inputs: list[Tensor] = []
    outputs: list[Tensor] = []

    def record(_layer: nn.Module, given: tuple[Tensor, ...], y: Tensor) -> None:
        y.retain_grad()
        inputs.append(given[0])
        outputs.append(y)

    for layer in layers:
        layer.register_forward_hook(record)
    model(x).square().sum().backward()
    for layer, seed, given, y in zip(layers, seeds, inputs, outputs, strict=True):
        width = layer.num_structures
        mu = layer.mu.detach().double().numpy()
        sigma = layer.log_sigma.detach().double().exp().numpy()
        u = philox.uniform(seed, 0, SAMPLES * width).reshape(SAMPLES, width)
        log_theta, by_mu, by_sigma = log_quantile_grad(u, mu, sigma)
        theta = np.exp(log_theta)
        # θ to 16 eps of float32, products and sums of SAMPLES of them to a few more.
        torch.testing.assert_close(
            y.detach().double(), given.detach().double() * torch.from_numpy(theta), rtol=2e-6, atol=1e-7
        )
        assert y.grad is not None
        assert layer.mu.grad is not None
        assert layer.log_sigma.grad is not None
        weight = (y.grad * given).detach().double().numpy() * theta
        np.testing.assert_allclose(layer.mu.grad.numpy(), (weight * by_mu).sum(0), rtol=1e-4, atol=1e-5)
        d_log_sigma = (weight * by_sigma).sum(0) * sigma
        np.testing.assert_allclose(layer.log_sigma.grad.numpy(), d_log_sigma, rtol=1e-4, atol=1e-5)


def run(model: nn.Sequential, x: Tensor, steps: int, *, ahead: bool, fused: bool) -> list[Tensor]:
    """Losses, noise and parameters of some steps of training, the last bit of them."""
    torch.manual_seed(3)
    groups = parameter_groups(model, lr=0.01)
    optimizer = torch.optim.Adam(groups if fused else model.parameters(), lr=0.01)
    seen = []
    for _ in range(steps):
        if not ahead:
            for layer in noise_of(model):
                layer.drawing = None
        noise = recorded(model, x)
        optimizer.zero_grad()
        loss = elbo_loss(model(x).square().mean(), model, num_samples=3, kl_weight=1.0)
        loss.backward()
        optimizer.step()
        seen += [loss.detach(), *noise, *(p.detach().clone() for p in model.parameters())]
    return seen


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("convolutional", [False, True])
@pytest.mark.parametrize("dropout", [False, True])
def test_drawn_ahead_and_one_by_one_training_is_the_same_to_the_bit(
    x: Tensor, fused: bool, convolutional: bool, dropout: bool
) -> None:
    images = torch.randn(SAMPLES, 1, 3, 3, generator=torch.Generator().manual_seed(2))
    given = images if convolutional else x
    models = [network(convolutional) for _ in range(2)]
    if dropout:
        for model in models:
            model.insert(2, nn.Dropout(0.5))
    ahead, alone = (
        run(m, given, 6, ahead=first, fused=fused) for m, first in zip(models, (True, False), strict=True)
    )
    assert all(torch.equal(a, b) for a, b in zip(ahead, alone, strict=True))


def test_the_noise_is_that_of_the_operation_with_the_same_seed(x: Tensor) -> None:
    model = together(network(), x)
    layers = noise_of(model)
    torch.manual_seed(5)
    noise = recorded(model, x)
    torch.manual_seed(5)
    for layer, seed, theta in zip(layers, drawn_seeds(len(layers)), noise, strict=True):
        ones = torch.ones(SAMPLES, layer.num_structures)
        # y/x of the recorded noise is rounded once more.
        y = multiplicative_noise(ones, layer.mu, layer.log_sigma, seed=torch.tensor([seed]))
        torch.testing.assert_close(theta, y.detach(), rtol=2.4e-7, atol=0)


def test_noise_is_drawn_ahead_for_all_layers_that_follow(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    plain: Any = together_module.draw  # type: ignore[attr-defined]

    def counted(*arguments: object, **options: object) -> object:
        calls.append(arguments)
        return plain(*arguments, **options)

    model = together(network(convolutional=True), torch.ones(SAMPLES, 1, 3, 3))
    elbo_loss(torch.zeros(()), model, num_samples=3).backward()
    monkeypatch.setattr(together_module, "draw", counted)
    for _ in range(3):
        elbo_loss(model(torch.ones(SAMPLES, 1, 3, 3)).sum(), model, num_samples=3).backward()
    assert len(calls) == 3


def test_what_is_foreseen_in_vain_is_not_looked_for_long(x: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    model = together(network(), x)
    model.insert(2, nn.Dropout(0.5))
    foreseen = []
    plain = DrawingTogether._foreseen

    def counted(self: DrawingTogether, *arguments: object) -> object:
        foreseen.append(arguments)
        return plain(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(DrawingTogether, "_foreseen", counted)
    for _ in range(100):
        model(x)
    # Twice as long a pause each time: 2 + 4 + … + 128 > 200 calls of layers.
    assert len(foreseen) <= 10


def test_a_fused_optimizer_changes_the_divergence(x: Tensor) -> None:
    """It changes parameters without telling torch's version counters."""
    model = together(network(), x)
    optimizer = torch.optim.Adam(parameter_groups(model, lr=0.1))
    for _ in range(2):
        elbo_loss(model(x).sum(), model, num_samples=3).backward()
        before = kl_divergence(model)
        optimizer.step()
        assert kl_divergence(model).item() == kl_divergence(copy.deepcopy(model)).item() != before.item()


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_a_checkpoint_of_an_earlier_pass_sees_its_noise_again(x: Tensor, use_reentrant: bool) -> None:
    def gradients(checkpointed: bool) -> list[Tensor]:
        model = together(network(), x)
        torch.manual_seed(9)
        leaf = x.clone().requires_grad_()

        def forward() -> Tensor:
            h = model[1](model[0](leaf))
            if checkpointed:
                return checkpoint(model[2:], h, use_reentrant=use_reentrant).square().sum()  # type: ignore[no-any-return]
            return model[2:](h).square().sum()  # type: ignore[no-any-return]

        first, second = forward(), forward()
        (first + second).backward()
        return [p.grad for p in model.parameters() if p.grad is not None]

    for ours, plain in zip(gradients(True), gradients(False), strict=True):
        # Two passes' gradients in another order of addition.
        torch.testing.assert_close(ours, plain, rtol=1e-5, atol=1e-6)


def test_asking_between_two_steps_changes_nothing(x: Tensor) -> None:
    def steps(ask: bool) -> list[float]:
        model = network()
        torch.manual_seed(1)
        losses = []
        for k in range(6):
            if ask and k == 3:
                kl_divergence(model)
                copy.deepcopy(model)
                model.state_dict()
                model.eval()(x)
                model.train()
            model.zero_grad()
            loss = elbo_loss(model(x).square().mean(), model, num_samples=3)
            loss.backward()
            losses.append(loss.item())
        return losses

    assert steps(ask=True) == steps(ask=False)


def test_every_pass_and_every_layer_has_noise_of_its_own(x: Tensor) -> None:
    model = together(network(), x)
    passes = [recorded(model, x) for _ in range(3)]
    flat = torch.cat([torch.cat([theta.flatten() for theta in seen]) for seen in passes])
    assert len(flat.unique()) > 0.95 * len(flat)


def test_noise_drawn_before_a_change_of_the_parameters_is_not_used(x: Tensor) -> None:
    model = together(network(), x)
    layers = noise_of(model)
    model[0](x)
    h = layers[0](torch.ones(SAMPLES, 5))  # draws for both
    assert bool((h < 1).all())
    with torch.no_grad():
        layers[1].mu.fill_(-15.0)
    assert bool((layers[1](torch.ones(SAMPLES, 4)) < 1e-2).all())


def test_a_layer_used_twice_draws_twice(x: Tensor) -> None:
    model = together(network(), x)
    layer = noise_of(model)[0]
    ones = torch.ones(SAMPLES, 5)
    assert not torch.equal(layer(ones), layer(ones))


def test_passes_may_be_differentiated_in_any_order_and_parts(x: Tensor) -> None:
    model = together(network(), x)
    layer = noise_of(model)[1]
    torch.manual_seed(3)
    first, second = model(x).sum(), model(x).square().sum()
    second.backward(retain_graph=True)
    first.backward()
    assert layer.mu.grad is not None
    both = layer.mu.grad.clone()
    model.zero_grad()
    torch.manual_seed(3)
    (model(x).sum() + model(x).square().sum()).backward()
    torch.testing.assert_close(both, layer.mu.grad)


def test_elbo_is_the_likelihood_and_the_divergence_of_layers_that_draw_together_or_alone() -> None:
    images = torch.randn(SAMPLES, 1, 3, 3, generator=torch.Generator().manual_seed(2))
    model = together(network(convolutional=True), images)
    torch.manual_seed(5)
    nll = model(images).square().mean()
    loss = elbo_loss(nll, model, num_samples=3)
    alone = kl_divergence(copy.deepcopy(model))
    torch.testing.assert_close(loss - nll, (alone / 3).float())
    loss.backward()
    gradient = [
        p.grad.clone() for layer in noise_of(model) for p in (layer.mu, layer.log_sigma) if p.grad is not None
    ]
    model.zero_grad()
    torch.manual_seed(5)
    model(images).square().mean().backward()
    (kl_divergence(copy.deepcopy(model)) / 3).backward()
    separate = copy.deepcopy(model)
    separate.zero_grad()
    (kl_divergence(separate) / 3).backward()
    for (p, q), whole in zip(
        zip(_noise_parameters(model), _noise_parameters(separate), strict=True), gradient, strict=True
    ):
        assert p.grad is not None
        assert q.grad is not None
        torch.testing.assert_close(p.grad + q.grad, whole)


def _noise_parameters(model: nn.Module) -> list[nn.Parameter]:
    return [p for layer in noise_of(model) for p in (layer.mu, layer.log_sigma)]


def test_convolutional_layers_multiply_by_the_noise_drawn_jointly() -> None:
    images = torch.randn(SAMPLES, 1, 3, 3, generator=torch.Generator().manual_seed(2))
    model = together(network(convolutional=True), images)
    theta = recorded(model, images)[0]
    # One θ per sample and filter, up to the rounding of y/x.
    torch.testing.assert_close(theta, theta[..., :1, :1].expand_as(theta), rtol=1e-6, atol=0)
    assert bool(((theta > 0) & (theta < 1)).all())


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_a_checkpointed_segment_sees_its_noise_again(x: Tensor, use_reentrant: bool) -> None:
    model = together(network(), x)
    seen: list[Tensor] = []
    noise_of(model)[1].register_forward_hook(lambda _m, i, y: seen.append((y / i[0]).detach()))
    leaf = x.clone().requires_grad_()
    h = model[1](model[0](leaf))
    checkpoint(model[2:], h, use_reentrant=use_reentrant).sum().backward()
    assert len(seen) == 2
    torch.testing.assert_close(seen[0], seen[1], rtol=1e-6, atol=0)


@pytest.mark.parametrize("again", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_copy_draws_with_its_own_layers_only(
    x: Tensor, again: Callable[[nn.Sequential], nn.Sequential]
) -> None:
    model = together(network(), x)
    other = again(model)
    assert all(layer.drawing is None for layer in noise_of(other))
    for _ in range(3):
        other(x).sum().backward()
    assert all(layer.mu.grad is not None and bool(layer.mu.grad.any()) for layer in noise_of(other))
    assert all(layer.mu.grad is None for layer in noise_of(model))


def test_threads_draw_for_themselves(x: Tensor) -> None:
    model = together(network(), x)

    def noise(_: int) -> Tensor:
        return recorded_by_hand(model, x)

    with ThreadPoolExecutor(4) as pool:
        drawn = list(pool.map(noise, range(40)))
    assert len({tuple(theta.flatten().tolist()) for theta in drawn}) == 40


def recorded_by_hand(model: nn.Sequential, x: Tensor) -> Tensor:
    ones = [torch.ones(len(x), layer.num_structures) for layer in noise_of(model)]
    return torch.cat([layer(one) for layer, one in zip(noise_of(model), ones, strict=True)], dim=1).detach()


def test_other_batches_dtypes_and_modes_draw_as_they_should(x: Tensor) -> None:
    model = together(network(), x)
    layer = noise_of(model)[0]
    assert layer(torch.ones(3, 5)).shape == (3, 5)
    assert layer(torch.ones(0, 5)).shape == (0, 5)
    assert layer(torch.ones(SAMPLES, 5, dtype=torch.float64)).dtype == torch.float64
    assert layer(torch.ones(SAMPLES, 5, dtype=torch.bfloat16)).dtype == torch.bfloat16
    with torch.no_grad():
        assert not layer(torch.ones(SAMPLES, 5)).requires_grad
    with pytest.raises(ValueError, match="structures"):
        layer(torch.ones(SAMPLES, 4))


def test_a_pruned_structure_is_zero_and_learns_nothing(x: Tensor) -> None:
    model = together(network(), x)
    layer = noise_of(model)[0]
    with torch.no_grad():
        layer.mask[2] = 0.0
        layer.mu[2] = float("nan")
        first = model[0]
        assert isinstance(first, nn.Linear)
        first.bias[2] = float("inf")
    elbo_loss(model(x).square().mean(), model, num_samples=3).backward()
    assert layer.mu.grad is not None
    assert bool(torch.isfinite(model(x)).all())
    assert layer.mu.grad[2] == 0
    assert bool(layer.mu.grad[[0, 1, 3, 4]].all())


def test_unusable_parameters_are_an_error_that_names_the_layer(x: Tensor) -> None:
    model = together(network(), x)
    with torch.no_grad():
        noise_of(model)[1].log_sigma[3] = float("inf")
    with pytest.raises(ValueError, match=r"4: mu and log_sigma must be finite.*structure 3"):
        model(x)


def test_layers_that_are_gone_are_not_drawn_for_once_the_divergence_is_taken(x: Tensor) -> None:
    model = together(network(), x)
    model[4] = nn.Identity()
    elbo_loss(model(x).sum(), model, num_samples=3).backward()
    assert drawing_of(model).layers == [noise_of(model)[0]]
    model(x).sum().backward()


def test_noise_does_not_depend_on_what_was_before_it(x: Tensor) -> None:
    trained, fresh = together(network(), x), network()
    for _ in range(3):
        trained(x)
    torch.manual_seed(11)
    first = recorded(trained, x)
    torch.manual_seed(11)
    assert all(torch.equal(a, b) for a, b in zip(first, recorded(fresh, x), strict=True))
