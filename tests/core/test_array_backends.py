"""PyTorch tensors and JAX arrays are answered in kind, with NumPy's numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from .signatures import EVERY, Signature, name_of
from .table_answers import answer
from .truth_tables import QUANTITIES, Quantity, Table, load, score

EVERY_FUNCTION = pytest.mark.parametrize("signature", EVERY, ids=name_of)
# The array-API text evaluates exp and log with another library's rounding; values here have κ below about
# 100.
FLOAT64 = 1e-12


def in_float64(jax: Any) -> Any:
    """JAX with float64 switched on; in the releases for Python 3.10 the switch is experimental still."""
    if hasattr(jax, "enable_x64"):
        return jax.enable_x64(True)
    from jax.experimental import enable_x64  # type: ignore[attr-defined]

    return enable_x64(True)


def assert_agrees(found: list[Any], expected: list[Any], rtol: float) -> None:
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(np.asarray(one), other, rtol=rtol, atol=1e-300)


@EVERY_FUNCTION
def test_torch_float64(signature: Signature) -> None:
    torch = pytest.importorskip("torch")
    arrays = signature.arrays()
    found = signature.call(*(torch.from_numpy(array) for array in arrays))
    assert all(isinstance(answer, torch.Tensor) and answer.dtype == torch.float64 for answer in found)
    assert_agrees(found, signature.call(*arrays), FLOAT64)


@EVERY_FUNCTION
def test_torch_float32(signature: Signature) -> None:
    torch = pytest.importorskip("torch")
    arrays = signature.arrays(np.float32)
    found = signature.call(*(torch.from_numpy(array) for array in arrays))
    assert all(answer.dtype == torch.float32 for answer in found)
    # Computed in float64 and rounded once, so at most one float32 rounding apart.
    assert_agrees(found, signature.call(*arrays), 1.2e-7)


@EVERY_FUNCTION
def test_jax_float64(signature: Signature) -> None:
    jax = pytest.importorskip("jax")
    arrays = signature.arrays()
    with in_float64(jax):
        found = signature.call(*(jax.numpy.asarray(array) for array in arrays))
        assert all(isinstance(answer, jax.Array) and answer.dtype == np.float64 for answer in found)
        assert_agrees(found, signature.call(*arrays), FLOAT64)


@EVERY_FUNCTION
def test_tensors_keep_their_shape_and_broadcast(signature: Signature) -> None:
    torch = pytest.importorskip("torch")
    first, *rest = (torch.from_numpy(array) for array in signature.arrays())
    for value in signature.call(first[:, None], *(tensor[:3] for tensor in rest)):
        assert tuple(value.shape) == ((6, 3) if rest else (6, 1))
    for value in signature.call(first[:0], *(tensor[:0] for tensor in rest)):
        assert tuple(value.shape) == (0,)
    for value in signature.call(first[0], *(tensor[0] for tensor in rest)):
        assert tuple(value.shape) == ()


@pytest.mark.parametrize("domain", ["training", "hostile"])
@pytest.mark.parametrize("quantity", QUANTITIES, ids=lambda quantity: quantity.column)
def test_torch_is_held_to_the_tables_too(quantity: Quantity, domain: str) -> None:
    torch = pytest.importorskip("torch")
    table = load(domain, "float64")
    assert_within_bounds(table, quantity, answer(table, quantity.column, torch.from_numpy))


@pytest.mark.parametrize("quantity", QUANTITIES, ids=lambda quantity: quantity.column)
def test_jax_is_held_to_the_training_table_too(quantity: Quantity) -> None:
    jax = pytest.importorskip("jax")
    table = load("training", "float64")
    with in_float64(jax):
        assert_within_bounds(table, quantity, answer(table, quantity.column, jax.numpy.asarray))


def assert_within_bounds(table: Table, quantity: Quantity, computed: Any) -> None:
    result = score(table, quantity, computed)
    assert result.not_finite == 0
    assert quantity.worst is None or result.worst <= quantity.worst
    assert quantity.p99 is None or result.p99 <= quantity.p99
    assert not quantity.sign or result.wrong_signs == 0


def test_a_tensor_that_requires_grad_is_refused() -> None:
    torch = pytest.importorskip("torch")
    import bmrs_core

    mu = torch.tensor([-3.0], requires_grad=True)
    with pytest.raises(TypeError, match="detach"):
        bmrs_core.delta_f_normal(mu, torch.tensor([0.5]))


def test_bounds_may_be_tensors() -> None:
    torch = pytest.importorskip("torch")
    import bmrs_core

    mu, sigma = torch.tensor([-3.0, -1.0]).double(), torch.tensor([0.5, 2.0]).double()
    log_a = torch.tensor([-20.0, -10.0]).double()
    found = bmrs_core.log_normalizer(mu, sigma, log_a=log_a)
    expected = bmrs_core.log_normalizer(mu.numpy(), sigma.numpy(), log_a=log_a.numpy())
    np.testing.assert_allclose(found.numpy(), expected, rtol=FLOAT64)
