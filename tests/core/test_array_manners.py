"""The array functions behave like NumPy's own: shapes, types, memory layouts, ``out=`` and NaN."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import bmrs_core

from .signatures import ELEMENTWISE, EVERY, GRADIENTS, OF_A_POSTERIOR, Signature, name_of

EVERY_FUNCTION = pytest.mark.parametrize("signature", EVERY, ids=name_of)
EVERY_POSTERIOR_FUNCTION = pytest.mark.parametrize("signature", OF_A_POSTERIOR, ids=name_of)


def same(found: list[Any], expected: list[Any]) -> None:
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


@EVERY_FUNCTION
def test_an_array_is_its_elements_one_by_one(signature: Signature) -> None:
    arrays = signature.arrays()
    together = signature.call(*arrays)
    for i in range(len(arrays[0])):
        alone = signature.call(*(float(array[i]) for array in arrays))
        # Vectorised and scalar loops may round differently, by fused operations: a few eps of well-
        # conditioned values.
        for one, many in zip(alone, together, strict=True):
            np.testing.assert_allclose(one, many[i], rtol=1e-13, atol=1e-300)


@pytest.mark.parametrize("signature", ELEMENTWISE + GRADIENTS, ids=name_of)
def test_an_element_does_not_depend_on_its_neighbours_or_its_place(signature: Signature) -> None:
    # More elements than any block, and not a multiple of one; every regime of the default support, shuffled.
    rng = np.random.default_rng(4)
    size = 20_011
    columns = {
        "mu": rng.uniform(-40.0, 20.0, size),
        "sigma": np.exp(rng.uniform(-20.0, 5.0, size)),
        "u": rng.random(size),
        "theta": np.exp(rng.uniform(-20.0, 0.0, size)),
        "log_lower": rng.uniform(-20.0, -10.0, size),
        "log_upper": rng.uniform(-10.0, 0.0, size),
    }
    arrays = [columns[name] for name in signature.arguments]
    whole = signature.call(*arrays)
    order = rng.permutation(size)[: size - 8]
    same(signature.call(*(array[order] for array in arrays)), [answer[order] for answer in whole])


@EVERY_FUNCTION
def test_python_floats_give_a_numpy_scalar(signature: Signature) -> None:
    for answer in signature.call(*(float(array[0]) for array in signature.arrays())):
        assert isinstance(answer, np.float64)


@EVERY_FUNCTION
def test_zero_dimensional_arrays_give_a_scalar(signature: Signature) -> None:
    arrays = signature.arrays()
    found = signature.call(*(np.array(array[0]) for array in arrays))
    assert all(isinstance(answer, np.float64) for answer in found)
    same(found, signature.call(*(float(array[0]) for array in arrays)))


@EVERY_FUNCTION
def test_lists_are_arrays(signature: Signature) -> None:
    same(
        signature.call(*(array.tolist() for array in signature.arrays())), signature.call(*signature.arrays())
    )


@EVERY_FUNCTION
def test_float32_gives_float32_computed_in_float64(signature: Signature) -> None:
    singles = signature.arrays(np.float32)
    found = signature.call(*singles)
    expected = signature.call(*(array.astype(np.float64) for array in singles))
    assert all(answer.dtype == np.float32 for answer in found)
    same(found, [answer.astype(np.float32) for answer in expected])


@EVERY_POSTERIOR_FUNCTION
def test_float32_and_float64_together_give_float64(signature: Signature) -> None:
    first, *rest = signature.arrays()
    found = signature.call(first.astype(np.float32), *rest)
    assert all(answer.dtype == np.float64 for answer in found)


@EVERY_POSTERIOR_FUNCTION
def test_python_floats_leave_float32_alone(signature: Signature) -> None:
    *rest, sigma = signature.arrays(np.float32)
    for answer in signature.call(*rest, float(sigma[0])):
        assert answer.dtype == np.float32


@EVERY_FUNCTION
def test_empty_arrays_give_empty_arrays(signature: Signature) -> None:
    for answer in signature.call(*(array[:0].reshape(0, 3) for array in signature.arrays())):
        assert answer.shape == (0, 3)
        assert answer.dtype == np.float64


@EVERY_FUNCTION
@pytest.mark.parametrize(
    "layout", ["strided", "reversed", "transposed", "read-only", "byte-swapped", "unaligned"]
)
def test_memory_layout_does_not_matter(signature: Signature, layout: str) -> None:
    arrays = signature.arrays()
    expected = signature.call(*arrays)
    found = signature.call(*(laid_out(array, layout) for array in arrays))
    if layout == "transposed":
        expected = [answer.reshape(3, 2).T for answer in expected]
    same(found, expected)
    for answer in found:
        assert answer.dtype == np.float64
        assert answer.dtype.isnative


def laid_out(array: Any, layout: str) -> Any:
    """The same numbers somewhere else in memory."""
    if layout == "strided":
        return np.stack([array, np.full_like(array, np.nan)], axis=1)[:, 0]
    if layout == "reversed":
        return array[::-1].copy()[::-1]
    if layout == "transposed":
        return array.reshape(3, 2).T
    if layout == "read-only":
        array = array.copy()
        array.flags.writeable = False
        return array
    if layout == "byte-swapped":
        return array.astype(array.dtype.newbyteorder())
    raw = np.zeros(array.nbytes + 1, dtype=np.uint8)
    view = raw[1:].view(array.dtype)
    view[:] = array
    return view


@EVERY_FUNCTION
def test_arguments_are_left_as_they_were(signature: Signature) -> None:
    arrays = signature.arrays()
    signature.call(*arrays)
    same(arrays, signature.arrays())


@EVERY_POSTERIOR_FUNCTION
def test_arguments_broadcast(signature: Signature) -> None:
    *rest, sigma = signature.arrays()
    found = signature.call(*(array[:, None] for array in rest), sigma[None, :3])
    grid = [np.repeat(array, 3).reshape(-1, 3) for array in rest]
    expected = signature.call(*grid, np.tile(sigma[:3], (len(sigma), 1)))
    same(found, expected)


@EVERY_POSTERIOR_FUNCTION
def test_bounds_broadcast_too(signature: Signature) -> None:
    arrays = signature.arrays()
    log_a = np.array([[-20.0], [-24.0]])
    log_b = np.array([[[0.0]], [[0.25]], [[2.0]]])
    found = signature.call(*arrays, log_a=log_a, log_b=log_b)
    for answer in found:
        assert answer.shape == (3, 2, len(arrays[0]))
    for i in range(3):
        for j in range(2):
            alone = signature.call(*arrays, log_a=float(log_a[j, 0]), log_b=float(log_b[i, 0, 0]))
            for one, many in zip(alone, found, strict=True):
                # As for scalars: another loop may round differently.
                np.testing.assert_allclose(many[i, j], one, rtol=1e-13, atol=1e-300)


def test_the_other_keywords_of_delta_f_broadcast() -> None:
    mu, sigma = np.array([-3.0, -18.0]), np.array([0.5, 2.0])
    mu_p, sigma_p = np.array([[-20.0], [-5.0]]), np.array([[1e-6], [0.1]])
    normal = bmrs_core.delta_f_normal(mu, sigma, mu_p=mu_p, sigma_p=sigma_p)
    lower, upper = np.array([[-16.0], [-20.0], [-3.0]]), np.array([[[-2.0]], [[-0.5]]])
    uniform = bmrs_core.delta_f_uniform(mu, sigma, log_a_reduced=lower, log_b_reduced=upper)
    assert (normal.shape, uniform.shape) == ((2, 2), (2, 3, 2))
    for i in range(2):
        alone = bmrs_core.delta_f_normal(mu, sigma, mu_p=float(mu_p[i, 0]), sigma_p=float(sigma_p[i, 0]))
        np.testing.assert_allclose(normal[i], alone, rtol=1e-13)
        reduced: dict[str, Any] = {
            "log_a_reduced": float(lower[2, 0]),
            "log_b_reduced": float(upper[i, 0, 0]),
        }
        alone = bmrs_core.delta_f_uniform(mu, sigma, **reduced)
        np.testing.assert_allclose(uniform[i, 2], alone, rtol=1e-13)


@pytest.mark.parametrize("signature", ELEMENTWISE, ids=name_of)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_out_is_filled_and_returned(signature: Signature, dtype: Any) -> None:
    arrays = signature.arrays(dtype)
    out = np.full(arrays[0].shape, np.nan, dtype=dtype)
    (answer,) = signature.call(*arrays, out=out)
    assert answer is out
    same([out], signature.call(*arrays))


@pytest.mark.parametrize("signature", ELEMENTWISE, ids=name_of)
def test_out_may_be_an_argument_or_not_contiguous(signature: Signature) -> None:
    arrays = signature.arrays()
    expected = signature.call(*arrays)
    strided = np.full((len(arrays[0]), 2), np.nan)
    signature.call(*arrays, out=strided[:, 1])
    same([strided[:, 1]], expected)
    assert np.isnan(strided[:, 0]).all()
    signature.call(*arrays, out=arrays[0])
    same([arrays[0]], expected)


@pytest.mark.parametrize("signature", ELEMENTWISE, ids=name_of)
def test_out_of_another_shape_is_refused(signature: Signature) -> None:
    with pytest.raises(ValueError, match=r"out.*\(6,\)"):
        signature.call(*signature.arrays(), out=np.empty(5))


@pytest.mark.parametrize("signature", ELEMENTWISE + GRADIENTS, ids=name_of)
def test_nan_gives_nan_in_its_own_element_only(signature: Signature) -> None:
    clean = signature.call(*signature.arrays())
    for position in range(len(signature.arguments)):
        arrays = signature.arrays()
        arrays[position][2] = np.nan
        for answer, expected in zip(signature.call(*arrays), clean, strict=True):
            assert np.isnan(answer[2])
            np.testing.assert_array_equal(np.delete(answer, 2), np.delete(expected, 2))


def test_nan_in_the_reduced_posterior() -> None:
    mu, sigma = bmrs_core.reduced_posterior(np.array([np.nan, -3.0, -3.0]), np.array([0.5, np.nan, 0.5]))
    assert np.isnan(mu).tolist() == [True, True, False]
    # The reduced spread does not depend on the mean.
    assert np.isnan(sigma).tolist() == [False, True, False]


def test_every_public_name_is_there() -> None:
    assert {signature.name for signature in EVERY} <= set(bmrs_core.__all__)
    for name in bmrs_core.__all__:
        assert getattr(bmrs_core, name).__doc__, name
