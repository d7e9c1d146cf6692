"""Which structures go: by the rules of the paper's methods, or a number of them in the order of their scores.

Unlike :func:`bmrs_torch.prune` nothing is spared here, since the published results were made without it: a
layer may lose all its structures, and then the network's answer is the same for all images.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from benchmarks.paper.experiments import Method
from bmrs_torch import Scores, noise_layers, ranks, scores

if TYPE_CHECKING:
    from numpy.typing import NDArray


def superfluous(model: nn.Module, method: Method) -> NDArray[np.bool_]:
    """The structures that meet a method's rule, pruned ones included, all layers one after another."""
    assert method.limit is not None
    found = _scores(model, method)
    values = np.concatenate(list(found.values()))
    return values >= method.limit if found.criterion.is_evidence else values < method.limit


def order(model: nn.Module, method: Method, example: Any) -> NDArray[np.int64]:
    """The rank of each structure over all layers: 0 is the first to go."""
    return np.concatenate(list(ranks(_scores(model, method, example)).values()))


def _scores(model: nn.Module, method: Method, example: Any = None) -> Scores:
    options = {"p1": method.p1} if method.criterion == "bmrs_u" else {}
    return scores(model, str(method.criterion), example_inputs=example, **options)


@torch.no_grad()
def close(model: nn.Module, goes: NDArray[np.bool_], *, anew: bool = False) -> bool:
    """Prune structures, in place.

    Parameters
    ----------
    model : nn.Module
        The network.
    goes : ndarray of bool, shape (structures,)
        All layers one after another.
    anew : bool
        Whether those that were pruned before come back unless they go now.

    Returns
    -------
    bool
        Whether any mask changed.
    """
    changed, start = False, 0
    for layer in noise_layers(model).values():
        end = start + layer.num_structures
        mask = torch.from_numpy(~goes[start:end]).to(layer.mask)
        mask = mask if anew else mask * layer.mask
        changed |= not torch.equal(mask, layer.mask)
        layer.mask.copy_(mask)
        start = end
    return changed


def kept(model: nn.Module) -> NDArray[np.bool_]:
    """The structures that are left, all layers one after another."""
    return np.concatenate([layer.kept().cpu().numpy() for layer in noise_layers(model).values()])
