"""Other inputs of the example's kind: what they change, and what they leave so that a model still runs."""

from __future__ import annotations

import torch

from bmrs_torch.channels.calling import tensors_of
from bmrs_torch.channels.variants import another_batch, other_values, variants


def normal(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def test_floating_point_numbers_are_permuted_and_scaled() -> None:
    x = normal(4, 5)
    permuted, *scaled = other_values(x)
    assert permuted.flatten().sort()[0].equal(x.flatten().sort()[0])
    for other in (permuted, *scaled):
        assert other.shape == x.shape
        assert not other.equal(x)
    assert (scaled[0] / x).std() > 0.1, "each entry by a factor of its own: the order changes"


def test_constants_vary_too() -> None:
    assert any(other.std() > 0.1 for other in other_values(torch.ones(4, 5)))


def test_whole_numbers_stay_among_those_of_their_column() -> None:
    ids = torch.randint(0, 9, (6, 3), generator=torch.Generator().manual_seed(0)) + torch.tensor([0, 10, 20])
    others = list(other_values(ids))
    assert any(not other.equal(ids) for other in others)
    for other in others:
        assert other.sort(0)[0].equal(ids.sort(0)[0])


def test_masks_and_infinities_stay() -> None:
    mask, scores = torch.tensor([[True, False]]), torch.tensor([[0.0, float("-inf")]])
    for other in other_values((normal(1, 2), mask, scores)):
        assert other[1].equal(mask)
        assert other[2].equal(scores)


def test_the_batch_changes_in_all_inputs() -> None:
    for number, other in ((1, 2), (3, 4), (4, 3), (100, 3)):
        given = {"x": normal(number, 3, 5), "lengths": torch.ones(number), "scale": normal(7)}
        changed = another_batch(given)
        assert [t.shape[0] for t in tensors_of(changed)] == [other, other, 7]


def test_lengths_change_together() -> None:
    group = variants((torch.zeros(2, 7, dtype=torch.long), torch.ones(2, 7)))[-1]
    sizes = {tuple(t.shape[1] for t in variant.inputs) for variant in group}
    assert {(11, 11), (3, 3)} <= sizes


def test_images_change_in_both_sizes() -> None:
    group = variants(normal(2, 3, 32, 24))[-1]
    assert (16, 12) in {tuple(variant.inputs.shape[2:]) for variant in group}


def test_inputs_without_samples_have_no_other_sizes() -> None:
    assert another_batch(torch.ones(3)).equal(torch.ones(3))
    assert all(len(tensors_of(v.inputs)) == 1 for group in variants(torch.ones(3)) for v in group)
