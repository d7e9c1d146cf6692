"""Attention in Linear layers answers as torch's module does, and its heads can go."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bmrs_torch import SeparateAttention, compact, fold, insert_noise, noise_layers, separate_attention
from bmrs_torch.surgery.verification import relative_difference
from tests.bindings.gates import close, scatter

WIDTH, HEADS, SAMPLES, QUERIES, KEYS = 12, 4, 2, 4, 5


def random(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(sum(shape)))


def both(**options: Any) -> tuple[nn.MultiheadAttention, nn.Module]:
    torch.manual_seed(0)
    attention = nn.MultiheadAttention(WIDTH, HEADS, **options).double().eval()
    with torch.no_grad():
        for parameter in attention.parameters():
            parameter.add_(0.1)  # biases begin as 0
    return attention, separate_attention(copy.deepcopy(attention))


MASKS: dict[str, dict[str, Tensor]] = {
    "none": {},
    "boolean": {"attn_mask": torch.ones(QUERIES, KEYS, dtype=torch.bool).triu(2)},
    "added": {"attn_mask": random(QUERIES, KEYS)},
    "of each head": {"attn_mask": random(SAMPLES * HEADS, QUERIES, KEYS)},
    "padding": {"key_padding_mask": torch.arange(KEYS).repeat(SAMPLES, 1) > 2},
    "both": {
        "attn_mask": random(QUERIES, KEYS),
        "key_padding_mask": random(SAMPLES, KEYS),
    },
}


@pytest.mark.parametrize("masks", MASKS.values(), ids=MASKS)
@pytest.mark.parametrize("asked", [{"need_weights": False}, {}, {"average_attn_weights": False}], ids=str)
@pytest.mark.parametrize("options", [{"batch_first": True}, {"bias": False}, {"kdim": 7, "vdim": 3}], ids=str)
def test_it_answers_as_torch_does(
    options: dict[str, Any], asked: dict[str, Any], masks: dict[str, Tensor]
) -> None:
    first, second = both(**options)
    assert isinstance(second, SeparateAttention)
    lengths = ((QUERIES, WIDTH), (KEYS, first.kdim), (KEYS, first.vdim))
    inputs = [random(SAMPLES, *shape) for shape in lengths]
    if not first.batch_first:
        inputs = [x.transpose(0, 1) for x in inputs]
    torch.testing.assert_close(second(*inputs, **masks, **asked), first(*inputs, **masks, **asked))


def test_a_single_sequence_may_come_without_samples() -> None:
    first, second = both()
    x = random(QUERIES, WIDTH)
    torch.testing.assert_close(second(x, x, x), first(x, x, x))


@pytest.mark.parametrize("batch_first", [True, False])
def test_heads_of_torchs_transformer_go(batch_first: bool) -> None:
    torch.manual_seed(0)
    layer = nn.TransformerDecoderLayer(WIDTH, HEADS, 16, batch_first=batch_first)
    model = nn.TransformerDecoder(layer, 1).double().eval()

    def pair(samples: int, queries: int, keys: int) -> tuple[Tensor, Tensor]:
        x, y = random(samples, queries, WIDTH), random(samples, keys, WIDTH)
        return (x, y) if batch_first else (x.transpose(0, 1), y.transpose(0, 1))

    inputs = pair(SAMPLES, QUERIES, KEYS)
    before = model(*inputs)
    separate_attention(model)
    torch.testing.assert_close(model(*inputs), before)
    insert_noise(model, inputs, where="heads")
    assert len(noise_layers(model)) == 2
    smaller: Any = compact(close(scatter(model), 0.5), inputs)
    attention = smaller.layers[0].self_attn
    assert (attention.num_heads, attention.q_proj.out_features) == (2, 2 * WIDTH // HEADS)
    for x in (inputs, pair(3, 6, 7)):
        assert relative_difference(model, smaller, x) < 1e-12
        assert relative_difference(model, fold(smaller, inputs), x) < 1e-9


def test_padding_in_torchs_encoder_bypasses_nothing() -> None:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 16, batch_first=True)
    model = separate_attention(nn.TransformerEncoder(layer, 2).double().eval())
    answer = model(random(SAMPLES, KEYS, WIDTH), src_key_padding_mask=MASKS["padding"]["key_padding_mask"])
    assert answer.shape == (SAMPLES, KEYS, WIDTH)
    assert answer[:, :3].isfinite().all()


def test_a_module_in_several_places_stays_one() -> None:
    attention = nn.MultiheadAttention(WIDTH, HEADS)
    attention.in_proj_weight.requires_grad_(False)
    model: Any = separate_attention(nn.ModuleList([attention, nn.Linear(2, 2), attention]))
    assert model[0] is model[2]
    assert [layer.weight.requires_grad for layer in (model[0].q_proj, model[0].out_proj)] == [False, True]


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (nn.Linear(2, 2), "no nn.MultiheadAttention"),
        (nn.MultiheadAttention(4, 2, add_bias_kv=True), "bias_k"),
        (nn.Sequential(nn.MultiheadAttention(4, 2, add_zero_attn=True)), "'0' has"),
    ],
)
def test_what_it_can_not_replace_it_refuses(model: nn.Module, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        separate_attention(model)


def test_hooks_are_not_lost() -> None:
    attention = nn.MultiheadAttention(4, 2)
    attention.register_forward_hook(lambda *_: None)
    with pytest.raises(ValueError, match="hooks"):
        separate_attention(attention)
