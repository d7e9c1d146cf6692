"""Operations that pick or reorder entries by value: channels they mix stay, those they pass by can go."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from bmrs_torch import MultiplicativeNoise as Gate
from bmrs_torch import compact, insert_noise, noise_layers
from tests.bindings.surgery.patterns import Functional

CHANNELS, TOKENS, ROWS = 16, 6, 1000
Operation = Callable[[Tensor], Tensor]

# From (rows, channels) to (rows, something), by the values or the order of the channels.
OVER_CHANNELS: dict[str, Operation] = {
    "sort": lambda x: x.sort()[0],
    "sort, dim given": lambda x: x.sort(dim=1, descending=True)[0],
    "stable sort": lambda x: x.sort(stable=True, dim=-1)[0],
    "msort": lambda x: torch.msort(x.T).T,
    "argsort": lambda x: x.argsort().to(x.dtype),
    "topk": lambda x: x.topk(5)[0],
    "positions of topk": lambda x: x.topk(5)[1].to(x.dtype),
    "kthvalue": lambda x: x.kthvalue(3)[0][:, None],
    "position of kthvalue": lambda x: x.kthvalue(3, keepdim=True)[1].to(x.dtype),
    "median": lambda x: x.median(1, keepdim=True)[0],
    "nanmedian": lambda x: x.nanmedian(1, keepdim=True)[0],
    "median of all": lambda x: x - x.median(),
    "mode": lambda x: x.round().mode()[0][:, None],
    "max": lambda x: x.max(1, keepdim=True)[0],
    "position of max": lambda x: x.max(1, keepdim=True)[1].to(x.dtype),
    "min": lambda x: x.min(dim=-1, keepdim=True).values,
    "aminmax": lambda x: torch.cat(torch.aminmax(x, dim=1, keepdim=True), 1),
    "argmin": lambda x: x.argmin(1, keepdim=True).to(x.dtype),
    "argmax of all": lambda x: x * x.argmax(),
    "cummax": lambda x: x.cummax(1)[0],
    "positions of cummin": lambda x: x.cummin(1)[1].to(x.dtype),
    "cumprod": lambda x: x.cumprod(1),
    "cumsum": lambda x: x.cumsum(-1),
    "logcumsumexp": lambda x: x.logcumsumexp(1),
    "softmax": lambda x: x.softmax(-1),
    "flip": lambda x: x.flip(1),
    "roll": lambda x: x.roll(3, 1),
    "roll of all": lambda x: x.roll(3),
    "searchsorted among them": lambda x: torch.searchsorted(x.sort()[0].contiguous(), x).to(x.dtype),
    "searchsorted": lambda x: torch.searchsorted(torch.linspace(-1, 1, CHANNELS), x).to(x.dtype),
    "bucketize": lambda x: torch.bucketize(x, torch.linspace(-1, 1, CHANNELS)).to(x.dtype),
    "unique": lambda x: x.round().unique(return_inverse=True)[1].to(x.dtype),
    "unique_consecutive": lambda x: x.round().unique_consecutive(return_inverse=True)[1].to(x.dtype),
    "gather": lambda x: x.gather(1, x.argsort()),
    "gather by the largest": lambda x: x.gather(1, x.argmax(1, keepdim=True).expand(-1, 3)),
    "take_along_dim": lambda x: x.take_along_dim(x.topk(4)[1], 1),
    "take": lambda x: x.take(x.argmax(1))[:, None],
    "scatter": lambda x: torch.zeros_like(x).scatter(1, x.argsort(), x),
    "scatter_": lambda x: torch.zeros_like(x).scatter_(1, x.topk(4)[1], 1.0),
    "scatter_add": lambda x: torch.zeros_like(x).scatter_add(1, x.argsort(), x),
    "scatter_reduce": lambda x: torch.zeros_like(x).scatter_reduce(1, x.argsort(), x, "amax"),
    "index_put": lambda x: x.index_put((torch.arange(len(x)), x.argmax(1)), torch.tensor(9.0)),
    "index": lambda x: x[torch.arange(len(x)), x.argmax(1)][:, None],
    "index by columns": lambda x: x[:, x[0].argsort()],
    "index by a mask": lambda x: x[:, x[0] > 0].sum(1, keepdim=True),
    "index by a mask of all": lambda x: x - x[x > 0].mean(),
    "a table by their signs": lambda x: torch.eye(2)[(x > 0).long()].flatten(1),
    "index_select": lambda x: x.index_select(1, x[0].topk(4)[1]),
    "index_add": lambda x: x.index_add(1, x[0].argsort(), x),
    "masked_select": lambda x: x - x.masked_select(x > 0).mean(),
    "masked_scatter": lambda x: x.masked_scatter(x > 0, x.flatten()),
    "nonzero": lambda x: x * x.nonzero()[-1, 1],
    "where": lambda x: x * torch.where(x > 0)[1].max(),
    "equal": lambda x: x.flip(0) if torch.equal(x[:, 0], x[:, 1].relu()) else x,
    "item": lambda x: x.flip(0) if x.sum().item() > 0 else x,
}

# From (rows, tokens, channels) to (rows, something, channels): what happens is each channel's own affair.
OVER_TOKENS: dict[str, Operation] = {
    "sort": lambda x: x.sort(1)[0],
    "topk": lambda x: x.topk(3, dim=1)[0],
    "kthvalue": lambda x: x.kthvalue(2, dim=1, keepdim=True)[0],
    "median": lambda x: x.median(1, keepdim=True)[0],
    "max": lambda x: x.max(1, keepdim=True)[0],
    "cummax": lambda x: x.cummax(1)[0],
    "cumsum": lambda x: x.cumsum(1),
    "cumprod": lambda x: x.cumprod(1),
    "flip": lambda x: x.flip(1),
    "roll": lambda x: x.roll(2, 1),
    "gather by its own order": lambda x: x.gather(1, x.argsort(1)),
    "max pooling": lambda x: nn.functional.max_pool1d(x.mT, 2).mT,
    "index": lambda x: x[:, x.sum((0, 2)).topk(3)[1]],
    "index_select": lambda x: x.index_select(1, x.sum((0, 2)).argsort()),
    "index by a mask": lambda x: x[:, torch.arange(TOKENS) % 2 == 0],
}


def network(operation: Operation, shape: tuple[int, ...], *, gate: bool) -> nn.Module:
    """A layer of channels, a gate after it if one is wanted, the operation, and a layer that reads it."""
    width = operation(torch.zeros(*shape[:-1], CHANNELS) + torch.arange(CHANNELS)).shape[-1]
    return Functional(
        lambda m, x: m.last(operation(m.gate(m.first(x)))),
        first=nn.Linear(8, CHANNELS),
        gate=Gate(CHANNELS, axis=-1) if gate else nn.Identity(),
        last=nn.Linear(width, 2),
    ).eval()


def halved(model: nn.Module, example: Tensor) -> nn.Module:
    """The model with half of each noise layer masked, and what is left of it when they are taken out."""
    with torch.no_grad():
        for layer in noise_layers(model).values():
            layer.mu.uniform_(-2.0, 0.0)
            layer.mask[torch.randperm(layer.num_structures)[: layer.num_structures // 2]] = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return compact(model, example)


def assert_alike(model: nn.Module, smaller: nn.Module, rows: Tensor) -> None:
    with torch.no_grad():
        # Sums of at most 16 float32 products in another order; the values are of order 10.
        torch.testing.assert_close(smaller(rows), model(rows), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("by_hand", [True, False], ids=["gate by hand", "insert_noise"])
@pytest.mark.parametrize("name", OVER_CHANNELS)
def test_channels_that_are_picked_by_value_are_kept_or_the_smaller_network_is_right_everywhere(
    name: str, by_hand: bool
) -> None:
    for seed in range(4):
        torch.manual_seed(seed)
        example = torch.randn(4, 8)
        model = network(OVER_CHANNELS[name], (4, 8), gate=by_hand)
        if not by_hand:
            try:
                model = insert_noise(model, example)
            except ValueError:
                return  # no place for noise: refused
        assert_alike(model, halved(model, example), 3 * torch.randn(ROWS, 8))


@pytest.mark.parametrize("name", OVER_TOKENS)
def test_channels_that_are_passed_by_can_go(name: str) -> None:
    torch.manual_seed(0)
    example = torch.randn(4, TOKENS, 8)
    model = network(OVER_TOKENS[name], (4, TOKENS, 8), gate=True)
    smaller = halved(model, example)
    assert noise_layers(smaller)["gate"].num_structures == CHANNELS // 2
    assert_alike(model, smaller, 3 * torch.randn(ROWS // TOKENS, TOKENS, 8))


def test_tokens_picked_by_a_score_leave_the_channels_free() -> None:
    def forward(m: nn.Module, x: Tensor) -> Tensor:
        tokens = m.gate(m.first(x))  # type: ignore[operator]
        best = m.score(tokens).squeeze(-1).topk(3)[1]  # type: ignore[operator]
        picked = tokens.gather(1, best[:, :, None].expand(-1, -1, tokens.shape[-1]))
        answer: Tensor = m.last(picked)  # type: ignore[operator]
        return answer

    torch.manual_seed(0)
    model = Functional(
        forward,
        first=nn.Linear(8, CHANNELS),
        gate=Gate(CHANNELS, axis=-1),
        score=nn.Linear(CHANNELS, 1),
        last=nn.Linear(CHANNELS, 2),
    ).eval()
    smaller = halved(model, torch.randn(4, TOKENS, 8))
    assert noise_layers(smaller)["gate"].num_structures == CHANNELS // 2
    assert_alike(model, smaller, 3 * torch.randn(ROWS, TOKENS, 8))
