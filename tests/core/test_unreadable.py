"""Arrays whose values can't be had are refused; lists are read as the numbers that they hold."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bmrs_core import snr

from .signatures import EVERY, Signature, name_of

EVERY_FUNCTION = pytest.mark.parametrize("signature", EVERY, ids=name_of)


@EVERY_FUNCTION
def test_a_masked_array_is_refused_by_name(signature: Signature) -> None:
    for place, name in enumerate(signature.arguments):
        arrays: list[Any] = list(signature.arrays())
        arrays[place] = np.ma.masked_invalid(arrays[place])
        with pytest.raises(TypeError, match=rf"{name} is a masked array.*{name}\.compressed\(\)"):
            signature.call(*arrays)


def test_results_are_not_written_below_a_mask() -> None:
    with pytest.raises(TypeError, match="out must be a NumPy array without a mask"):
        snr(np.array([-1.0, -2.0]), 1.0, out=np.ma.zeros(2))


@pytest.mark.parametrize("kind", [list, tuple, lambda values: [[value] for value in values]])
def test_lists_of_whole_numbers_are_float64(kind: Any) -> None:
    found = snr(kind([-1, -2, -3]), kind([1, 1, 2]))
    expected = snr(np.array(kind([-1.0, -2.0, -3.0])), np.array(kind([1.0, 1.0, 2.0])))
    assert found.dtype == np.float64
    assert np.array_equal(found, expected)
    assert np.array_equal(snr(range(-3, 0), 1.0), snr(np.array([-3.0, -2.0, -1.0]), 1.0))


@pytest.mark.parametrize(
    "value", [[True, False], ["1", "2"], [None, 1.0], [1j], [[1.0], [1.0, 2.0]], [1.0, [2.0]]]
)
def test_lists_of_anything_else_are_refused_by_name(value: Any) -> None:
    with pytest.raises(TypeError, match="mu must be a number or a"):
        snr(value, 1.0)


def test_arrays_of_whole_numbers_stay_refused() -> None:
    with pytest.raises(TypeError, match=r"int64.*convert explicitly"):
        snr(np.array([-1, -2]), 1.0)


class TestTorch:
    @pytest.fixture(autouse=True)
    def torch(self) -> Any:
        return pytest.importorskip("torch")

    def test_tensors_without_values_are_refused(self, torch: Any) -> None:
        from torch._subclasses import FakeTensorMode

        with FakeTensorMode():
            fake = torch.zeros(3)
        freed = torch.zeros(3)
        freed.untyped_storage().resize_(0)
        for value in (torch.zeros(3, device="meta"), fake, freed):
            with pytest.raises(TypeError, match="has a shape but no values to compute with"):
                snr(value, 1.0)
        with pytest.raises(TypeError, match=r"layout torch.sparse_coo can't be read"):
            snr(torch.zeros(3).to_sparse(), 1.0)
        with pytest.raises(TypeError, match="no values to compute with"):
            torch.func.vmap(lambda mu: snr(mu, 1.0))(torch.zeros(2, 3))

    def test_negated_views_and_parameters_are_read_as_what_they_are(self, torch: Any) -> None:
        ones = torch.full((3,), 0.5)
        assert torch.equal(snr(torch._neg_view(ones), ones), snr(-ones, ones))
        assert torch.equal(snr(torch.nn.Parameter(-ones, requires_grad=False), ones), snr(-ones, ones))
