"""Every implementation of the noise operation against its contract: forward, gradients, masks, errors."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from bmrs_kernels.contract import SHARES, NoiseLayout
from tests.kernels.noise_implementations import IMPLEMENTATIONS, INTERPRETED, TRUTH, Implementation, Outcome
from tests.kernels.noise_tolerances import tolerances

SEED = torch.tensor([-1234567890123456789])
EVERY_SHARE = pytest.mark.parametrize("share", SHARES)
DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


HERE = [one for one in IMPLEMENTATIONS if not one.missing()]
"""What can't run here isn't collected: CUDA without a device, Triton where another process interprets it."""


@pytest.fixture(params=HERE, ids=lambda implementation: implementation.name)
def implementation(request: pytest.FixtureRequest) -> Implementation:
    chosen: Implementation = request.param
    return chosen


@pytest.fixture(autouse=True)
def _poisoned_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory that nobody has written to holds NaN, so that a result left out shows."""
    empty_like, new_empty = torch.empty_like, Tensor.new_empty

    def poisoned(tensor: Tensor) -> Tensor:
        return tensor.fill_(math.nan) if tensor.is_floating_point() else tensor

    def poisoned_new_empty(self: Tensor, *arguments: Any, **options: Any) -> Tensor:
        return poisoned(new_empty(self, *arguments, **options))

    monkeypatch.setattr(
        torch, "empty_like", lambda *given, **options: poisoned(empty_like(*given, **options))
    )
    monkeypatch.setattr(Tensor, "new_empty", poisoned_new_empty)


def normal(shape: tuple[int, ...], number: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(number)).to(dtype)


def everyday(count: int) -> tuple[Tensor, Tensor]:
    """Parameters in all three regimes of the draw: inside the support, far outside it, σ beyond it."""
    mu = normal((count,), 1) * 6 - 2
    log_sigma = normal((count,), 2) * 2 - 0.5
    mu[1::5] = 30.0
    log_sigma[2::7] = 5.0
    return mu, log_sigma


def assert_exact(
    implementation: Implementation,
    x: Tensor,
    dy: Tensor,
    parameters: tuple[Tensor, Tensor],
    layout: NoiseLayout,
    mask: Tensor | None = None,
) -> Outcome:
    """Compare both passes with the reference in float64, within what rounding explains."""
    if x.dtype == torch.float64:
        parameters = (parameters[0].double(), parameters[1].double())
    mask = torch.ones_like(parameters[0]) if mask is None else mask
    ours = implementation.run(x, dy, parameters, mask, SEED, layout)
    exact_parameters = (parameters[0].double(), parameters[1].double())
    truth = TRUTH.run(x.double(), dy.double(), exact_parameters, mask.double(), SEED, layout)
    assert ours.y.dtype == ours.dx.dtype == x.dtype
    assert ours.d_mu.dtype == ours.d_log_sigma.dtype == parameters[0].dtype
    for name, result, exact, tolerance in zip(
        Outcome._fields, ours, truth, tolerances(x, dy, parameters, mask, SEED, layout), strict=True
    ):
        excess = (result.double() - exact).abs() - tolerance
        worst = int(excess.argmax()) if excess.numel() else 0
        assert result.shape == exact.shape
        # What overflows in a 16-bit format does so in both: its largest number is far below float32's.
        fits = exact.abs() <= torch.finfo(result.dtype).max
        assert bool((excess <= 0)[fits].all()), (
            f"{name}[{worst}] is {result.flatten()[worst].item()}, not {exact.flatten()[worst].item()}, "
            f"tolerance {tolerance.flatten()[worst].item():.2g}"
        )
    return ours


SHAPES = [
    ((5, 3), 1),
    ((5, 3), 0),
    ((1, 3), 1),
    ((4, 1), 1),
    ((1, 1), 1),
    ((32, 100), 1),
    ((33, 7), 1),
    ((3,), 0),
    ((1,), 0),
    ((700,), 0),
    ((4, 3, 2, 5), 1),
    ((4, 3, 2, 5), 0),
    ((4, 3, 2, 5), 2),
    ((4, 3, 1, 1), 1),
    ((1, 1, 1, 1), 1),
    ((1, 3, 7, 7), 1),
    ((2, 1, 5, 3), 1),
    ((2, 3, 40, 41), 1),  # 1,640 draws of one structure in a row, in two runs, per element
    ((4, 6, 3), 2),
    ((2, 70, 33), 2),  # more positions than one stretch of the sum
    ((3, 5, 4, 6), 3),
    ((2, 2, 3, 40, 41), 2),
    ((5, 2, 3, 4), 2),
    ((0, 3), 1),
    ((0, 3, 2, 2), 1),
    ((4, 3, 0), 1),
    ((4, 0, 3), 2),
]


def layouts(shape: tuple[int, ...], axis: int) -> list[str]:
    return [share for share in SHARES if share != "sample" or axis > 0 or len(shape) == 1]


@pytest.mark.parametrize(
    ("shape", "axis", "share"),
    [(shape, axis, share) for shape, axis in SHAPES for share in layouts(shape, axis)],
    ids=str,
)
def test_every_shape_axis_and_share(
    implementation: Implementation, shape: tuple[int, ...], axis: int, share: str
) -> None:
    layout = NoiseLayout(axis, share, -20.0, 0.0)
    mask = torch.ones(shape[axis])
    mask[3::4] = 0
    assert_exact(implementation, normal(shape, 3), normal(shape, 4), everyday(shape[axis]), layout, mask)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    ("shape", "axis"), [((9, 5), 1), ((4, 6, 3), 2), ((2, 3, 40, 41), 1), ((0, 3), 1)], ids=str
)
@EVERY_SHARE
def test_every_dtype(
    implementation: Implementation, dtype: torch.dtype, shape: tuple[int, ...], axis: int, share: str
) -> None:
    layout = NoiseLayout(axis, share, -20.0, 0.0)
    x, dy = normal(shape, 3, dtype), normal(shape, 4, dtype)
    assert_exact(implementation, x, dy, everyday(shape[axis]), layout)


def _contiguous(x: Tensor) -> Tensor:
    return x.contiguous()


def _channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)


def _transposed(x: Tensor) -> Tensor:
    return x.transpose(2, 3).contiguous().transpose(2, 3)


def _batch_inside(x: Tensor) -> Tensor:
    """Dense, but the axes around that of the structures do not lie as one."""
    return x.permute(2, 0, 3, 1).contiguous().permute(1, 3, 0, 2)


def _sliced(x: Tensor) -> Tensor:
    wide = torch.full((x.shape[0], x.shape[1] + 2, x.shape[2], 2 * x.shape[3]), math.inf, dtype=x.dtype)
    view = wide[:, 1:-1, :, ::2]
    view.copy_(x)
    return view


def _of_one_number(x: Tensor) -> Tensor:
    return x.flatten()[:1].view(1, 1, 1, 1).expand(x.shape)


def _of_one_sample(x: Tensor) -> Tensor:
    return x[:1].expand(x.shape)


def _of_one_map(x: Tensor) -> Tensor:
    return x[:, :, :1, :1].expand(x.shape)


MEMORY: list[Callable[[Tensor], Tensor]] = [
    _contiguous,
    _channels_last,
    _transposed,
    _batch_inside,
    _sliced,
    _of_one_number,
    _of_one_sample,
    _of_one_map,
]


# The interpreter takes a tenth of a second for each: there not every pair, but each of the two with all.
PAIRS = [
    (of_x, of_dy)
    for of_x in MEMORY
    for of_dy in MEMORY
    if not INTERPRETED or _contiguous in (of_x, of_dy) or of_x is of_dy
]


@pytest.mark.parametrize(("of_x", "of_dy"), PAIRS, ids=lambda function: function.__name__)
@EVERY_SHARE
def test_every_layout_in_memory(
    implementation: Implementation,
    of_x: Callable[[Tensor], Tensor],
    of_dy: Callable[[Tensor], Tensor],
    share: str,
) -> None:
    shape = (3, 5, 4, 6)
    layout = NoiseLayout(1, share, -20.0, 0.0)
    mask = torch.tensor([1.0, 0.0, 1.0, 1.0, 1.0])
    assert_exact(implementation, of_x(normal(shape, 3)), of_dy(normal(shape, 4)), everyday(5), layout, mask)


@pytest.mark.parametrize("arrange", MEMORY[1:], ids=lambda function: function.__name__)
@EVERY_SHARE
def test_memory_layouts_of_many_elements(
    implementation: Implementation, arrange: Callable[[Tensor], Tensor], share: str
) -> None:
    shape = (2, 3, 40, 41)
    x, dy = arrange(normal(shape, 3)), arrange(normal(shape, 4))
    assert_exact(
        implementation, x, dy, everyday(3), NoiseLayout(1, share, -20.0, 0.0), torch.tensor([1.0, 0, 1])
    )


@pytest.mark.parametrize("implementation", [one for one in HERE if one is not TRUTH], indirect=True)
def test_the_output_has_the_strides_that_compilers_are_told(implementation: Implementation) -> None:
    for arrange in MEMORY:
        x, dy = arrange(normal((3, 5, 4, 6), 3)), normal((3, 5, 4, 6), 4)
        ours = implementation.run(
            x, dy, everyday(5), torch.ones(5), SEED, NoiseLayout(1, "sample", -20.0, 0.0)
        )
        assert ours.y.stride() == ours.dx.stride() == torch.empty_like(x).stride()


# mu, log sigma
REGIMES = {
    "interior": ((-20.0, 0.0), (-5.0, 0.5)),
    "tail": ((1.0, 40.0), (-3.0, 1.0)),
    "short": ((-40.0, 20.0), (3.0, 6.0)),
    "narrow": ((-20.0, 0.0), (-20.0, -8.0)),
}


@pytest.mark.parametrize("regime", REGIMES)
@pytest.mark.parametrize("shape", [(64, 40), (2, 9, 8, 80)], ids=str)
@EVERY_SHARE
def test_every_regime_of_the_draw(
    implementation: Implementation, regime: str, shape: tuple[int, ...], share: str
) -> None:
    uniform = torch.rand(2, shape[1], generator=torch.Generator().manual_seed(5))
    mu, log_sigma = (low + (high - low) * u for (low, high), u in zip(REGIMES[regime], uniform, strict=True))
    x, dy = normal(shape, 3), normal(shape, 4)
    assert_exact(implementation, x, dy, (mu, log_sigma), NoiseLayout(1, share, -20.0, 0.0))


@pytest.mark.parametrize("bounds", [(-20.0, 0.0), (-1.0, 1.0), (-80.0, -60.0), (0.5, 1.5), (-200.0, 3.0)])
@EVERY_SHARE
def test_other_bounds_and_extreme_parameters(
    implementation: Implementation, bounds: tuple[float, float], share: str
) -> None:
    # Farther than a thousand widths from a short support, float32 loses more of dx/dlog sigma.
    mu = torch.tensor([-1e3, -90.0, -20.0, -10.0, 0.0, 0.6, 5.0, 1e3]).repeat(6)
    log_sigma = torch.tensor([-40.0, -20.0, -8.0, 0.0, 6.0, 30.0]).repeat_interleave(8)
    x, dy = normal((16, 48), 3), normal((16, 48), 4)
    assert_exact(implementation, x, dy, (mu, log_sigma), NoiseLayout(1, share, *bounds))


HOSTILE = (math.nan, math.inf, -math.inf)


@pytest.mark.parametrize("arrange", MEMORY[: 2 if INTERPRETED else 5], ids=lambda function: function.__name__)
@pytest.mark.parametrize("pruned", [(1,), (0, 2), (0, 1, 2)], ids=str)
@pytest.mark.parametrize("shape", [(5, 3, 2, 4), (2, 3, 40, 41)], ids=str)
@EVERY_SHARE
def test_a_pruned_structure_hides_whatever_is_there(
    implementation: Implementation,
    shape: tuple[int, ...],
    pruned: tuple[int, ...],
    arrange: Callable[[Tensor], Tensor],
    share: str,
) -> None:
    x, dy, (mu, log_sigma), mask = normal(shape, 3), normal(shape, 4), everyday(3), torch.ones(3)
    layout = NoiseLayout(1, share, -20.0, 0.0)
    clean = implementation.run(arrange(x), arrange(dy), (mu, log_sigma), mask, SEED, layout)
    for place, c in enumerate(pruned):
        bad = HOSTILE[place]
        x[:, c], dy[:, c], mu[c], log_sigma[c], mask[c] = bad, -bad, bad, bad, 0.0
    ours = implementation.run(arrange(x), arrange(dy), (mu, log_sigma), mask, SEED, layout)
    for c in range(3):
        if c in pruned:
            assert not any(part[:, c].any() for part in (ours.y, ours.dx))
            assert ours.d_mu[c] == ours.d_log_sigma[c] == 0
        else:
            assert torch.equal(ours.y[:, c], clean.y[:, c])
            assert torch.equal(ours.dx[:, c], clean.dx[:, c])
            # The same sums, but sorted with others beside them: the compiler may fuse them otherwise.
            torch.testing.assert_close(ours.d_mu[c], clean.d_mu[c], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_boolean_mask_and_parameters_of_other_dtypes(
    implementation: Implementation, dtype: torch.dtype
) -> None:
    x, dy, mask = normal((6, 4), 3, dtype), normal((6, 4), 4, dtype), torch.tensor([True, False, True, True])
    mu, log_sigma = (parameter.bfloat16() for parameter in everyday(4))
    ours = implementation.run(x, dy, (mu, log_sigma), mask, SEED, NoiseLayout(1, "sample", -20.0, 0.0))
    assert ours.d_mu.dtype == torch.bfloat16
    wide = implementation.run(
        x, dy, (mu.double(), log_sigma.double()), mask.double(), SEED, NoiseLayout(1, "sample", -20.0, 0.0)
    )
    assert torch.equal(ours.y, wide.y)
    assert torch.equal(ours.d_mu, wide.d_mu.bfloat16())


UNUSABLE = pytest.mark.parametrize(
    ("mu", "log_sigma"), [(math.nan, 0.0), (math.inf, 0.0), (0.0, math.nan), (0.0, 81.0)]
)


@UNUSABLE
@EVERY_SHARE
@pytest.mark.parametrize(
    "implementation", [one for one in HERE if one.waits and one is not TRUTH], indirect=True
)
def test_unusable_parameters_are_refused_in_both_passes(
    implementation: Implementation, mu: float, log_sigma: float, share: str
) -> None:
    mus, log_sigmas = everyday(4)
    layout = NoiseLayout(1, share, -20.0, 0.0)
    x = normal((6, 4), 3).requires_grad_()

    def forward() -> Tensor:
        return implementation.operation(x, mus, log_sigmas, torch.ones(4), SEED, layout)

    y = forward()
    mus.data[2], log_sigmas.data[2] = mu, log_sigma  # behind autograd's back
    with pytest.raises(ValueError, match="structure 2"):
        forward()
    with pytest.raises(ValueError, match="structure 2"):
        y.sum().backward()


@UNUSABLE
@pytest.mark.parametrize("shape", [(6, 4), (6, 4, 5)], ids=str)
@EVERY_SHARE
@pytest.mark.parametrize("implementation", [one for one in HERE if not one.waits], indirect=True)
def test_who_does_not_wait_answers_nan_for_unusable_parameters(
    implementation: Implementation, mu: float, log_sigma: float, shape: tuple[int, ...], share: str
) -> None:
    mus, log_sigmas = everyday(4)
    layout = NoiseLayout(1, share, -20.0, 0.0)
    x, dy = normal(shape, 3), normal(shape, 4)
    usable = implementation.run(x, dy, (mus, log_sigmas), torch.ones(4), SEED, layout)
    mus[2], log_sigmas[2] = mu, log_sigma
    ours = implementation.run(x, dy, (mus, log_sigmas), torch.ones(4), SEED, layout)
    for part, good, structures in zip(ours, usable, (1, 1, 0, 0), strict=True):
        found, expected = part.movedim(structures, 0), good.movedim(structures, 0)
        assert found[2].isnan().all()
        kept = [0, 1, 3]
        assert torch.equal(found[kept], expected[kept])


def test_nothing_is_asked_of_x_when_it_needs_no_gradient(implementation: Implementation) -> None:
    mu, log_sigma = (parameter.requires_grad_() for parameter in everyday(4))
    x, layout = normal((6, 4), 3), NoiseLayout(1, "sample", -20.0, 0.0)
    with_x = implementation.run(x, torch.ones(6, 4), (mu, log_sigma), torch.ones(4), SEED, layout)
    y = implementation.operation(x, mu, log_sigma, torch.ones(4), SEED, layout)
    assert torch.equal(torch.autograd.grad(y.sum(), mu)[0], with_x.d_mu)
