"""Series of pandas among the arguments; pandas is no dependency."""

from __future__ import annotations

import numpy as np
import pytest

import bmrs_core

pandas = pytest.importorskip("pandas")

MU = np.array([-3.0, -25.5, 1.25])
SIGMA = np.array([0.25, 2.0, 0.5])
NAMES = ["first", "second", "third"]


def series(values: object, dtype: object = None) -> object:
    return pandas.Series(values, index=NAMES, dtype=dtype, name="mu")


def test_a_series_answers_with_its_index() -> None:
    result = bmrs_core.delta_f_normal(series(MU), SIGMA)
    assert isinstance(result, pandas.Series)
    assert result.index.equals(pandas.Index(NAMES))
    assert result.name is None
    assert np.array_equal(result, bmrs_core.delta_f_normal(MU, SIGMA))


def test_every_answer_of_several_is_a_series() -> None:
    answers = bmrs_core.kl_divergence_grad(series(MU), series(SIGMA))
    assert all(answer.index.equals(pandas.Index(NAMES)) for answer in answers)


def test_a_series_of_float32_stays_so() -> None:
    assert bmrs_core.mean(series(MU, "float32"), series(SIGMA, "float32")).dtype == np.float32


@pytest.mark.parametrize("dtype", ["int64", "Int64", "Float64"])
def test_whole_numbers_and_nullable_types_are_read_as_float64(dtype: str) -> None:
    result = bmrs_core.mean(series([-3, -2, -1], dtype), 0.5)
    assert np.array_equal(result, bmrs_core.mean([-3, -2, -1], 0.5))


def test_what_is_missing_stays_missing() -> None:
    result = bmrs_core.mean(series([-3.0, None, -1.0], "Float64"), 0.5)
    assert np.isnan(result).tolist() == [False, True, False]


def test_series_of_different_indices_are_refused() -> None:
    other = pandas.Series(SIGMA, index=NAMES[::-1])
    with pytest.raises(ValueError, match=r"mu and sigma are Series of different indices.*align"):
        bmrs_core.mean(series(MU), other)


def test_a_result_of_another_shape_is_refused() -> None:
    with pytest.raises(ValueError, match=r"shape \(3,\).*shape \(2, 3\).*to_numpy"):
        bmrs_core.mean(series(MU), np.ones((2, 1)))


@pytest.mark.parametrize("values", [["a", "b", "c"], [True, False, True]])
def test_what_holds_no_numbers_is_refused(values: list[object]) -> None:
    with pytest.raises(TypeError, match="mu must hold numbers"):
        bmrs_core.mean(series(values), 0.5)


def test_a_frame_is_refused() -> None:
    with pytest.raises(TypeError, match=r"mu is a DataFrame.*one of them"):
        bmrs_core.mean(pandas.DataFrame({"mu": MU, "sigma": SIGMA}), 0.5)


def test_results_go_to_the_array_given() -> None:
    out = np.empty(3)
    bmrs_core.mean(series(MU), SIGMA, out=out)
    assert np.array_equal(out, bmrs_core.mean(MU, SIGMA))


def test_draws_have_the_index_unless_there_are_more_of_them() -> None:
    one = bmrs_core.sample(series(MU), SIGMA, seed=1)
    assert one.index.equals(pandas.Index(NAMES))
    several = bmrs_core.sample(series(MU), SIGMA, seed=1, size=(2, 3))
    assert isinstance(several, np.ndarray)
    assert several.shape == (2, 3)
