"""What a model stores must be there before it can be followed, copied or cut."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils import prune as torch_prune

__all__ = ["check_stored"]


def check_stored(model: nn.Module) -> None:
    """Raise ValueError, saying what to do, for parameters without shape and weights that a hook computes."""
    for name, module in model.named_modules():
        own = {**module._parameters, **module._buffers}
        if any(is_lazy(tensor) for tensor in own.values() if tensor is not None):
            raise ValueError(
                f"{name or 'the model'!r} ({type(module).__name__}) has parameters that get their shape only "
                "when it is called, so nothing is known of its structures; call the model once on a batch "
                "first"
            )
        for key, value in vars(module).items():
            if isinstance(value, Tensor) and not value.is_leaf:
                raise ValueError(_computed(name or "the model", module, key))


def _computed(name: str, module: nn.Module, key: str) -> str:
    kept = (
        f"{key} of {name!r} ({type(module).__name__}) is a tensor with a graph of what it was computed from"
    )
    hooks = module._forward_pre_hooks.values()
    if any(isinstance(hook, torch_prune.BasePruningMethod) for hook in hooks):
        return (
            f"{kept}, by torch.nn.utils.prune: the layer can be neither copied nor cut. Make it a parameter, "
            f"with its zeros, by torch.nn.utils.prune.remove(module, {key!r}) first"
        )
    return (
        f"{kept}, so the layer can be neither copied nor cut: detach it if it is something to remember; "
        "where a hook computes weights, take torch.nn.utils.parametrizations in its place, or make them "
        "parameters first (torch.nn.utils.remove_weight_norm, remove_spectral_norm)"
    )
