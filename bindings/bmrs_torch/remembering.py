"""The example that noise was inserted with, kept with the model so that folding can verify itself."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

__all__ = ["forget", "remember", "remembered"]

MOST_BYTES = 1 << 24
"""Of an example that is kept: a minibatch of small images. Larger ones would hold memory unexpectedly."""

_ATTRIBUTE = "_bmrs_example"


class _Example:
    """Inputs, the same for all copies of a model; not pickled with it."""

    def __init__(self, inputs: Any = None) -> None:
        self.inputs = inputs

    def __deepcopy__(self, _memo: dict[int, Any]) -> _Example:
        return self

    def __reduce__(self) -> tuple[type[_Example], tuple[()]]:
        return _Example, ()


def remember(model: nn.Module, example_inputs: Any) -> None:
    """Keep an example with a model, unless it is large."""
    tensors = [leaf for leaf in tree_leaves(example_inputs) if isinstance(leaf, Tensor)]
    if sum(tensor.nbytes for tensor in tensors) <= MOST_BYTES:
        kept = tree_map(lambda x: x.detach() if isinstance(x, Tensor) else x, example_inputs)
        vars(model)[_ATTRIBUTE] = _Example(kept)


def remembered(model: nn.Module) -> Any:
    """The example that is kept with a model, on the model's device, or None."""
    kept = vars(model).get(_ATTRIBUTE)
    like = next(model.parameters(), None)
    if kept is None or kept.inputs is None or like is None:
        return None
    return tree_map(lambda x: x.to(like.device) if isinstance(x, Tensor) else x, kept.inputs)


def forget(model: nn.Module) -> None:
    """Keep no example with a model any more."""
    vars(model).pop(_ATTRIBUTE, None)
