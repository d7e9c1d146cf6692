"""Uses of channels by torch's operations: whatever the rules make of one, none fails and answers stay."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bmrs_torch import MultiplicativeNoise, compact, plan_insertion
from tests.bindings.surgery.patterns import Functional

CHANNELS, ROWS = 6, 3
DEAD = [0, 3]


def set_column(x: Tensor) -> Tensor:
    y = x.clone()
    y[:, 0] = 0.0
    return y


def set_half(x: Tensor) -> Tensor:
    y = x.clone()
    y[:, :3] = x[:, 3:]
    return y


def set_by_mask(x: Tensor) -> Tensor:
    y = x.clone()
    y[y > 0] = 0.0
    return y


# From (rows, channels) to (rows or one, something).
USES: dict[str, Callable[[Tensor], Tensor]] = {
    "a number out of it": lambda x: x + x[0, 0].view(()),
    "sum of all": lambda x: x * x.sum().view(1).view(()),
    "unbind": lambda x: torch.stack(x.unbind(1), 1),
    "einsum": lambda x: torch.einsum("bi,bj->bij", x, x).flatten(1),
    "outer product": lambda x: x[:, :, None] @ x[:, None, :],
    "inner product": lambda x: (x[:, None] @ x[:, :, None]).flatten(1),
    "dot": lambda x: x * torch.dot(x[0], x[0]),
    "mv": lambda x: torch.mv(x, x[0])[:, None],
    "addmv": lambda x: torch.addmv(x[:, 0], x, x[0])[:, None],
    "baddbmm": lambda x: torch.baddbmm(torch.zeros(1, 1, 1), x[:, None], x[:, :, None]).flatten(1),
    "cdist": lambda x: torch.cdist(x, x),
    "cat with nothing": lambda x: torch.cat([torch.zeros(0), x], 1),
    "unfold": lambda x: x.unfold(1, 2, 1).flatten(1),
    "as_strided": lambda x: x.as_strided((3, 2), (6, 1)),
    "diag_embed": lambda x: torch.diag_embed(x).flatten(1),
    "all in a column": lambda x: x.flatten()[:, None],
    "repeat_interleave": lambda x: x.repeat_interleave(2, 1),
    "tile": lambda x: x.tile(1, 2),
    "transposed copy": lambda x: x.T.contiguous().T,
    "uneven chunks": lambda x: torch.cat(torch.tensor_split(x, 4, 1), 1),
    "chunks in another order": lambda x: torch.cat(x.chunk(3, 1)[::-1], 1),
    "narrow": lambda x: x.narrow(1, 1, 3),
    "every other": lambda x: x[:, ::2],
    "squeeze of some": lambda x: x[:, None, :, None].squeeze((1, 3)),
    "squeeze of all": lambda x: x[..., None].squeeze(),
    "fft": lambda x: torch.fft.fft(x).abs(),
    "complex": lambda x: torch.view_as_real(torch.complex(x, x)).flatten(1),
    "norm": lambda x: x / x.norm(),
    "normalize": F.normalize,
    "std": lambda x: x / x.std(1, keepdim=True),
    "var_mean": lambda x: x - torch.var_mean(x, 1, keepdim=True)[1],
    "variance over rows": lambda x: x / (1 + torch.var(x, 0, keepdim=True)),
    "logsumexp": lambda x: x.logsumexp(1, keepdim=True),
    "any": lambda x: x * (x > 0).any(1, keepdim=True),
    "glu": F.glu,
    "group_norm": lambda x: F.group_norm(x, 2),
    "layer_norm": lambda x: F.layer_norm(x, (CHANNELS,)),
    "rms_norm": lambda x: F.rms_norm(x, (CHANNELS,)),
    "instance_norm": lambda x: F.instance_norm(x[:, :, None].expand(-1, -1, 4)).flatten(1),
    "logsigmoid": F.logsigmoid,
    "prelu": lambda x: F.prelu(x, torch.tensor(0.2)),
    "frexp": lambda x: torch.frexp(x)[1].float(),
    "where": lambda x: torch.where(x > x.flip(0), x, -x),
    "clamp by a tensor": lambda x: x.clamp(min=torch.zeros(CHANNELS)),
    "lerp": lambda x: torch.lerp(x, -x, 0.3),
    "svd": lambda x: torch.linalg.svd(x)[1],
    "a column set": set_column,
    "a half set": set_half,
    "set by a mask": set_by_mask,
    "in place": lambda x: x.clone().relu_().mul_(2).add_(x),
    "filled": lambda x: x.clone().fill_(1),
    "copied into": lambda x: torch.empty(ROWS, CHANNELS).copy_(x),
    "a row copied into": lambda x: torch.empty(ROWS, CHANNELS).copy_(x[0]),
    "cross": lambda x: torch.cross(x[:, :3], x[:, 3:], dim=1),
    "diff": lambda x: x.diff(dim=1),
    "channel_shuffle": lambda x: F.channel_shuffle(x[:, :, None, None], 2).flatten(1),
    "pooling over them": lambda x: F.max_pool1d(x, 2),
    "positions of maxima": lambda x: (
        F.max_pool1d(x[:, :, None].expand(-1, -1, 4), 2, return_indices=True)[1].float().flatten(1)
    ),
    "convolution over them": lambda x: F.conv1d(x[:, None], torch.ones(2, 1, 3)).flatten(1),
    "convolution by a constant": lambda x: F.conv1d(x[:, :, None], torch.ones(2, CHANNELS, 1)).flatten(1),
    "convolution without rows": lambda x: F.conv1d(x, torch.ones(3, 3, 1)),
    "one_hot": lambda x: F.one_hot((x > 0).long(), 2).flatten(1).float(),
    "cross_entropy": lambda x: x * F.cross_entropy(x, torch.zeros(ROWS).long()),
    "attention": lambda x: F.scaled_dot_product_attention(x[:, None], x[:, None], x[:, None]).flatten(1),
    "rows by a mask": lambda x: x[torch.tensor([True, False, True])],
    "a row by a tensor": lambda x: x[torch.tensor(1)][None],
    "columns by a list": lambda x: x[:, [0, 2]],
    "another dtype": lambda x: x.bfloat16().float(),
    "bits": lambda x: x.view(torch.int32).float(),
    "slice_scatter": lambda x: torch.slice_scatter(x, torch.zeros(ROWS, 2), 1, 0, 2),
    "tolist": lambda x: torch.tensor(x.tolist()),
    "a branch": lambda x: x if bool((x > 0).any()) else -x,
}


def network(use: Callable[[Tensor], Tensor], gate: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    width = use(torch.randn(ROWS, CHANNELS)).shape[-1]
    return Functional(
        lambda m, x: m.last(use(m.gate(m.first(x)))),
        first=nn.Linear(4, CHANNELS),
        gate=gate,
        last=nn.Linear(width, 2),
    ).eval()


@pytest.mark.parametrize("name", USES)
def test_a_masked_network_answers_alike_when_it_is_shrunk(name: str) -> None:
    gate = MultiplicativeNoise(CHANNELS)
    gate.mask[DEAD] = 0
    model = network(USES[name], gate)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        smaller = compact(model, torch.randn(ROWS, 4))
    with torch.no_grad():
        for _ in range(20):
            x = 3 * torch.randn(ROWS, 4)
            # Sums of at most 36 float32 products in another order.
            torch.testing.assert_close(smaller(x), model(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", USES)
def test_a_plan_of_insertion_can_be_made(name: str) -> None:
    # No rule fails while gates are tried out, wherever they are put.
    plan_insertion(network(USES[name], nn.Identity()), torch.randn(ROWS, 4))
