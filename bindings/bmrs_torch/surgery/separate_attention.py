"""Attention whose heads can go, in the place of torch's module, which can't hold fewer of the same width."""

from __future__ import annotations

import math
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["SeparateAttention", "separate_attention"]

M = TypeVar("M", bound=nn.Module)


def separate_attention(model: M) -> M:
    """Replace each ``nn.MultiheadAttention``, in place, by an equal module whose heads can go.

    Torch's module holds as many heads as fit the width of what it takes, and the weights for queries, keys
    and values in one. The new one has a Linear layer for each, so that :func:`insert_noise` finds the heads.
    Do this before noise is inserted and before the optimizer is made. Heads can go where the attention
    weights aren't asked for (``need_weights=False``, as in torch's transformer layers).

    Parameters
    ----------
    model : nn.Module
        It answers as before, but for what torch's fused transformer layers leave at padded positions. A
        checkpoint of what it was no longer fits: load it before.

    Returns
    -------
    nn.Module
        The same `model`; a new module if it is itself an ``nn.MultiheadAttention``.

    Raises
    ------
    ValueError
        If there is none, or one has hooks, `bias_k` or `add_zero_attn`, which the new module has not; nothing
        is changed then.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from bmrs_torch import insert_noise, noise_layers, separate_attention
    >>> model = nn.Sequential(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), nn.Linear(8, 3))
    >>> list(noise_layers(insert_noise(separate_attention(model), torch.ones(1, 4, 8), where="heads")))
    ['0.self_attn.out_proj.noise']
    """
    old = {name: m for name, m in model.named_modules() if type(m) is nn.MultiheadAttention}
    if not old:
        raise ValueError(
            f"{type(model).__name__} has no nn.MultiheadAttention to replace (subclasses are left alone: "
            "what they do instead isn't known)"
        )
    new = {attention: SeparateAttention.like(attention, name) for name, attention in old.items()}
    if "" in old:
        return new[old[""]]  # type: ignore[return-value]
    for parent in list(model.modules()):
        for key, child in list(parent._modules.items()):
            if child in new:
                setattr(parent, key, new[child])
        if isinstance(parent, nn.TransformerEncoder):
            parent.use_nested_tensor = False  # of its fused layers, which take torch's module
    return model


class SeparateAttention(nn.Module):
    """Attention of several heads, called as ``nn.MultiheadAttention`` is, and with the same defaults.

    Parameters
    ----------
    num_heads, head_dim : int
        Heads at first, and the width of each.
    query_dim, key_dim, value_dim, output_dim : int
        Widths of what it takes and gives.
    dropout : float
        Of the attention weights, in training.
    bias : bool
    batch_first : bool
        Whether samples come before positions.

    Examples
    --------
    >>> import torch
    >>> from bmrs_torch import SeparateAttention
    >>> widths = {"query_dim": 8, "key_dim": 8, "value_dim": 8, "output_dim": 8}
    >>> attention = SeparateAttention(2, 4, **widths, dropout=0.0, bias=True, batch_first=True)
    >>> x = torch.ones(3, 5, 8)
    >>> attention(x, x, x)[0].shape
    torch.Size([3, 5, 8])
    """

    in_proj_bias = None  # by which torch's transformer layers know that they can't fuse it
    _qkv_same_embed_dim = False

    def __init__(
        self,
        num_heads: int,
        head_dim: int,
        query_dim: int,
        key_dim: int,
        value_dim: int,
        output_dim: int,
        *,
        dropout: float = 0.0,
        bias: bool = True,
        batch_first: bool = False,
    ) -> None:
        super().__init__()
        self.head_dim, self.dropout, self.batch_first = head_dim, dropout, batch_first
        width = num_heads * head_dim
        self.q_proj = nn.Linear(query_dim, width, bias)
        self.k_proj = nn.Linear(key_dim, width, bias)
        self.v_proj = nn.Linear(value_dim, width, bias)
        self.out_proj = nn.Linear(width, output_dim, bias)

    @classmethod
    def like(cls, attention: nn.MultiheadAttention, name: str) -> SeparateAttention:
        """Make one with the weights of torch's module, which is called `name` in errors."""
        if attention.bias_k is not None or attention.bias_v is not None or attention.add_zero_attn:
            raise ValueError(
                f"attention {name!r} has bias_k, bias_v or add_zero_attn, which Linear layers can't replace"
            )
        if attention._forward_hooks or attention._forward_pre_hooks:
            raise ValueError(f"attention {name!r} has hooks, which would be lost: register them afterwards")
        width, bias = attention.embed_dim, attention.in_proj_bias
        made = cls(
            attention.num_heads,
            attention.head_dim,
            *(width, attention.kdim, attention.vdim, width),
            dropout=attention.dropout,
            bias=bias is not None,
            batch_first=attention.batch_first,
        ).to(attention.out_proj.weight)
        packed = attention.in_proj_weight
        weights = [attention.q_proj_weight, attention.k_proj_weight, attention.v_proj_weight]
        learns = weights if packed is None else [packed] * 3
        parts = weights if packed is None else packed.chunk(3)
        for i, layer in enumerate((made.q_proj, made.k_proj, made.v_proj)):
            layer.weight = nn.Parameter(parts[i].detach().clone(), learns[i].requires_grad)
            if bias is not None:
                layer.bias = nn.Parameter(bias.chunk(3)[i].detach().clone(), bias.requires_grad)
        made.out_proj.weight, made.out_proj.bias = attention.out_proj.weight, attention.out_proj.bias
        return made.train(attention.training)

    @property
    def num_heads(self) -> int:
        """Heads that it has now."""
        return self.out_proj.in_features // self.head_dim

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Attend; all as for ``nn.MultiheadAttention``, whose mask is needed for `is_causal` too."""
        if is_causal and attn_mask is None:
            raise RuntimeError("is_causal is a hint about attn_mask, which is needed with it")
        samples = 0 if self.batch_first else 1
        batched = query.ndim == 3
        if not batched:
            query, key, value = (x.unsqueeze(samples) for x in (query, key, value))
            key_padding_mask = None if key_padding_mask is None else key_padding_mask.unsqueeze(0)
        layers = (self.q_proj, self.k_proj, self.v_proj)
        taken = zip(layers, (query, key, value), strict=True)
        q, k, v = (self._heads(layer(x)) for layer, x in taken)
        mask = _merged(attn_mask, key_padding_mask, len(q), q.dtype)
        dropout = self.dropout if self.training else 0.0
        weights = None
        if need_weights:
            scores = q @ k.transpose(-1, -2) / math.sqrt(self.head_dim)
            weights = F.dropout((scores if mask is None else scores + mask).softmax(-1), dropout)
            mixed = weights @ v
        else:
            mixed = F.scaled_dot_product_attention(q, k, v, mask, dropout)
        output: Tensor = self.out_proj(mixed.transpose(1, 2).flatten(2))
        output = output if self.batch_first else output.transpose(0, 1)
        if weights is not None and average_attn_weights:
            weights = weights.mean(1)
        if not batched:
            output = output.squeeze(samples)
            weights = None if weights is None else weights.squeeze(0)
        return output, weights

    def _heads(self, x: Tensor) -> Tensor:
        """From (samples, positions, width), or with positions first, to (samples, heads, positions, size)."""
        x = x if self.batch_first else x.transpose(0, 1)
        heads: Tensor = x.unflatten(-1, (-1, self.head_dim))
        return heads.transpose(1, 2)


def _merged(mask: Tensor | None, padding: Tensor | None, samples: int, dtype: torch.dtype) -> Tensor | None:
    """Both masks as one that is added to the scores, (samples or 1, heads or 1, queries or 1, keys)."""
    if mask is not None:
        mask = _added(mask, dtype)
        mask = mask.unflatten(0, (samples, -1)) if mask.ndim == 3 else mask[None, None]
    if padding is None:
        return mask
    padding = _added(padding, dtype)[:, None, None]
    return padding if mask is None else mask + padding


def _added(mask: Tensor, dtype: torch.dtype) -> Tensor:
    if mask.dtype != torch.bool:
        return mask.to(dtype)
    zeros = torch.zeros_like(mask, dtype=dtype)
    return zeros.masked_fill(mask, -math.inf)
