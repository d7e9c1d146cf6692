"""How the GPU kernels are told to walk: which axis is innermost, what merges, what comes in wide units."""

from __future__ import annotations

import pytest
import torch

from bmrs_kernels.contract import NoiseLayout
from bmrs_kernels.gpu.walk import LONGEST, Walk, tile_of, walk

SAMPLE = NoiseLayout(1, "sample", -20.0, 0.0)


def walk_of(x: torch.Tensor, layout: NoiseLayout = SAMPLE) -> Walk:
    found = walk(tuple(x.shape), (x.stride(),) * 2, layout)
    assert found is not None
    return found


def test_maps_are_walked_in_rows_and_channels_last_in_columns() -> None:
    x = torch.empty(4, 8, 6, 10, device="meta")
    rows, columns = walk_of(x), walk_of(x.contiguous(memory_format=torch.channels_last))
    assert (rows.columns, rows.merged, rows.rows, rows.unit) == (False, True, 32, 4)
    assert (columns.columns, columns.tokens, columns.unit) == (True, 60, 8)


def test_noise_per_element_needs_no_samples_of_its_own() -> None:
    found = walk_of(torch.empty(4, 8, device="meta"))
    assert (found.per_element, found.columns, found.samples, found.tokens) == (True, True, 1, 4)
    maps = walk_of(torch.empty(4, 8, 3, 3, device="meta"), SAMPLE._replace(share="element"))
    assert (maps.per_element, maps.samples, maps.positions, maps.merged) == (True, 4, 1, True)


def test_a_slice_is_walked_in_place_and_what_does_not_merge_is_not_walked() -> None:
    x = torch.empty(4, 8, 6, 10, device="meta")
    found = walk_of(x[:, :6])
    assert not found.merged
    assert found.outer(0) == (120, 0, 15)
    cut = x[..., :5]
    assert walk(tuple(cut.shape), (cut.stride(),), SAMPLE) is None


def test_an_axis_too_long_to_be_counted_is_refused() -> None:
    with pytest.raises(ValueError, match="innermost axis may have at most"):
        walk((1, 1, LONGEST + 1), ((LONGEST + 1, LONGEST + 1, 1),), SAMPLE)


@pytest.mark.parametrize("inner", [1, 3, 49, 100, 196, 768, 3136, 100_000])
@pytest.mark.parametrize("elements", [64, 512, 4096])
def test_tiles_are_no_larger_than_asked_and_leave_few_lanes_idle(elements: int, inner: int) -> None:
    tile = tile_of(elements, 1000, inner, 1024)
    assert tile.rows * tile.columns <= elements
    assert tile.rows & (tile.rows - 1) == tile.columns & (tile.columns - 1) == 0
    widths = [1 << k for k in range(11) if 32 <= 1 << k <= elements]
    padded, *others = (-(-inner // width) * width for width in (tile.columns, *widths))
    assert padded <= max(1.1 * inner, min(others))
