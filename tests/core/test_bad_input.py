"""Bad input is refused with an error that names the argument and what came."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import bmrs_core

from .signatures import EVERY, OF_A_POSTERIOR, Signature, name_of

EVERY_POSTERIOR_FUNCTION = pytest.mark.parametrize("signature", OF_A_POSTERIOR, ids=name_of)
WITH_A_LEVEL = [signature for signature in EVERY if "u" in signature.arguments]


def replaced(signature: Signature, name: str, value: Any, at: int = 1) -> list[Any]:
    """Valid arguments with one element of one of them replaced."""
    arrays = signature.arrays()
    arrays[signature.arguments.index(name)][at] = value
    return arrays


@EVERY_POSTERIOR_FUNCTION
@pytest.mark.parametrize("value", [0.0, -0.0, -0.5, -np.inf, np.inf])
def test_sigma_must_be_positive_and_finite(signature: Signature, value: float) -> None:
    with pytest.raises(ValueError, match=rf"sigma.*{value}"):
        signature.call(*replaced(signature, "sigma", value))


@EVERY_POSTERIOR_FUNCTION
def test_a_single_bad_sigma_is_found_in_a_scalar_too(signature: Signature) -> None:
    *rest, _ = (float(array[0]) for array in signature.arrays())
    with pytest.raises(ValueError, match=r"sigma.*-1"):
        signature.call(*rest, -1.0)


@EVERY_POSTERIOR_FUNCTION
@pytest.mark.parametrize("value", [np.inf, -np.inf])
def test_mu_must_be_finite(signature: Signature, value: float) -> None:
    with pytest.raises(ValueError, match=rf"mu.*{value}"):
        signature.call(*replaced(signature, "mu", value))


@EVERY_POSTERIOR_FUNCTION
@pytest.mark.parametrize(("log_a", "log_b"), [(0.0, -20.0), (-20.0, -20.0), (0.0, 0.0)])
def test_bounds_must_be_in_order(signature: Signature, log_a: float, log_b: float) -> None:
    with pytest.raises(ValueError, match=r"log_a.*log_b"):
        signature.call(*signature.arrays(), log_a=log_a, log_b=log_b)


@EVERY_POSTERIOR_FUNCTION
def test_one_pair_of_bounds_out_of_order_is_enough(signature: Signature) -> None:
    log_a = np.full(6, -20.0)
    log_a[4] = 0.5
    with pytest.raises(ValueError, match=r"log_a.*log_b.*0\.5"):
        signature.call(*signature.arrays(), log_a=log_a)


@pytest.mark.parametrize("signature", WITH_A_LEVEL, ids=name_of)
@pytest.mark.parametrize("value", [-0.125, 1.125, np.inf])
def test_u_must_be_a_probability(signature: Signature, value: float) -> None:
    with pytest.raises(ValueError, match=rf"u .*{value}"):
        signature.call(*replaced(signature, "u", value))


@pytest.mark.parametrize(
    ("reduced", "message"),
    [
        ({"log_a_reduced": -20.5, "log_b_reduced": -1.0}, r"log_a_reduced.*-20\.5"),
        ({"log_a_reduced": -5.0, "log_b_reduced": 0.25}, r"log_b_reduced.*0\.25"),
        ({"log_a_reduced": -1.0, "log_b_reduced": -5.0}, r"log_a_reduced.*log_b_reduced"),
        ({"log_a_reduced": -5.0, "log_b_reduced": -5.0}, r"log_a_reduced.*log_b_reduced"),
        ({"p1": 23, "p2": 8}, r"p1=23.*p2=8"),
        ({"p1": 8, "p2": 8}, r"p1=8.*p2=8"),
        ({"p1": 8, "p2": 30}, r"p2.*30"),  # 30 log 2 = 20.8: below the support
        ({"p1": -1, "p2": 8}, r"p1.*-1"),  # above it
        ({"p1": 30, "p2": None}, r"p1.*30"),
    ],
)
def test_the_reduced_support_must_lie_in_the_support_and_not_be_empty(
    reduced: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        bmrs_core.delta_f_uniform(-3.0, 0.5, **reduced)


@pytest.mark.parametrize(
    "bits", [{"p1": 2.5}, {"p2": 12.5}, {"p1": "8"}, {"p1": np.array([2, 4])}, {"p1": None}]
)
def test_bits_are_integers(bits: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match=next(iter(bits))):
        bmrs_core.delta_f_uniform(-3.0, 0.5, **bits)


def test_log_mass_wants_its_interval_in_order() -> None:
    with pytest.raises(ValueError, match=r"log_lower.*log_upper"):
        bmrs_core.log_mass(-1.0, -5.0, -3.0, 0.5)


@pytest.mark.parametrize("value", [-20.5, 0.5, np.inf])
@pytest.mark.parametrize("function", [bmrs_core.delta_f_normal, bmrs_core.reduced_posterior])
def test_mu_p_must_lie_in_the_support(function: Any, value: float) -> None:
    with pytest.raises(ValueError, match=rf"mu_p.*{value}"):
        function(-3.0, 0.5, mu_p=value)


@pytest.mark.parametrize("value", [0.0, -1e-6, np.inf])
@pytest.mark.parametrize("function", [bmrs_core.delta_f_normal, bmrs_core.reduced_posterior])
def test_sigma_p_must_be_positive_and_finite(function: Any, value: float) -> None:
    with pytest.raises(ValueError, match=rf"sigma_p.*{value}"):
        function(-3.0, 0.5, sigma_p=value)


@pytest.mark.parametrize("signature", EVERY, ids=name_of)
@pytest.mark.parametrize("dtype", ["int64", "int8", "bool", "object", "float16", "complex128", "str"])
def test_only_real_floating_point_arrays_are_taken(signature: Signature, dtype: str) -> None:
    for position, name in enumerate(signature.arguments):
        arrays: list[Any] = signature.arrays()
        arrays[position] = np.ones(6).astype(dtype)
        expected = arrays[position].dtype.name.rstrip("0123456789") if dtype == "str" else dtype
        with pytest.raises(TypeError, match=rf"{name}.*{expected}"):
            signature.call(*arrays)


@EVERY_POSTERIOR_FUNCTION
def test_integer_bounds_as_arrays_are_refused_but_python_integers_are_numbers(signature: Signature) -> None:
    with pytest.raises(TypeError, match=r"log_a.*int64"):
        signature.call(*signature.arrays(), log_a=np.full(6, -20))
    found = signature.call(*signature.arrays(), log_a=-20, log_b=0)
    for one, other in zip(found, signature.call(*signature.arrays()), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("value", ["-3", None, {"mu": 1.0}, 1j])
def test_what_is_no_number_is_refused(value: Any) -> None:
    with pytest.raises(TypeError, match="mu"):
        bmrs_core.log_normalizer(value, 0.5)


@EVERY_POSTERIOR_FUNCTION
def test_shapes_that_do_not_broadcast_are_refused(signature: Signature) -> None:
    first, *rest = signature.arrays()
    with pytest.raises(ValueError, match=r"broadcast.*\(5,\)|\(5,\).*broadcast"):
        signature.call(first[:5], *rest)


def test_out_must_be_able_to_hold_the_answer() -> None:
    mu, sigma = np.full(3, -3.0), np.full(3, 0.5)
    with pytest.raises(TypeError, match=r"out.*int64"):
        bmrs_core.mean(mu, sigma, out=np.zeros(3, dtype=np.int64))
    with pytest.raises(ValueError, match=r"out.*\(4,\)"):
        bmrs_core.mean(mu, sigma, out=np.zeros(4))
    frozen = np.zeros(3)
    frozen.flags.writeable = False
    with pytest.raises(ValueError, match=r"out.*(read-only|writ)"):
        bmrs_core.mean(mu, sigma, out=frozen)


@pytest.mark.parametrize("seed", [0.5, "7", None])
def test_a_seed_must_be_an_integer(seed: Any) -> None:
    with pytest.raises(TypeError, match="seed"):
        bmrs_core.sample(-3.0, 0.5, seed=seed)


def test_draws_need_a_seed_or_a_generator_not_both() -> None:
    rng = np.random.default_rng(1)
    with pytest.raises(TypeError, match=r"either seed=.*or rng=.*neither"):
        bmrs_core.sample(-3.0, 0.5)
    with pytest.raises(TypeError, match=r"either seed=.*or rng=.*both"):
        bmrs_core.sample(-3.0, 0.5, seed=1, rng=rng)
    for other in (1, np.random):
        with pytest.raises(TypeError, match=r"rng must be a numpy\.random\.Generator"):
            bmrs_core.sample(-3.0, 0.5, rng=other)  # type: ignore[arg-type]


def test_a_sample_of_a_size_that_parameters_do_not_broadcast_to_is_refused() -> None:
    with pytest.raises(ValueError, match=r"size.*\(4,\)|\(4,\).*size"):
        bmrs_core.sample(np.full(3, -3.0), 0.5, seed=1, size=(4,))


def test_parameters_whose_squares_cannot_be_computed_are_refused() -> None:
    for mu, sigma in ((-1.0, 1e151), (1e200, 1.0), (5.0, 1e-160)):
        with pytest.raises(ValueError, match=r"(mu|sigma) must be .*1e\+?60"):
            bmrs_core.kl_divergence(mu, sigma)
    with pytest.raises(ValueError, match=r"sigma_p must be between"):
        bmrs_core.delta_f_normal(-1.0, 1.0, sigma_p=1e200)


def test_shapes_that_do_not_broadcast_are_named() -> None:
    with pytest.raises(ValueError, match=r"mu \(3,\), sigma \(2,\)"):
        bmrs_core.delta_f_normal(np.zeros(3), np.ones(2))


def test_one_array_cannot_take_three_results() -> None:
    out = np.empty(3)
    with pytest.raises(ValueError, match="different arrays"):
        bmrs_core.kl_divergence_grad(np.zeros(3), np.ones(3), out=(out, out, out))
