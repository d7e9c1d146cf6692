"""The model inside what runs it otherwise: on several devices, compiled, or as an average of its weights."""

from __future__ import annotations

from torch import nn
from torch.optim.swa_utils import AveragedModel

from bmrs_torch.operation.arguments import check_model

__all__ = ["unwrapped"]

_WRAPPERS = (nn.parallel.DistributedDataParallel, nn.DataParallel, AveragedModel)


def unwrapped(model: nn.Module) -> nn.Module:
    """What DistributedDataParallel, DataParallel, ``torch.compile`` or AveragedModel wraps; or the model.

    Raises
    ------
    TypeError
        If it is no module.

    Examples
    --------
    >>> from torch import nn
    >>> from bmrs_torch.wrapping import unwrapped
    >>> unwrapped(nn.DataParallel(nn.Linear(2, 3)))
    Linear(in_features=2, out_features=3, bias=True)
    """
    check_model(model)
    while True:
        compiled = model._modules.get("_orig_mod")
        inner = model._modules["module"] if isinstance(model, _WRAPPERS) else compiled
        if inner is None:
            return model
        model = inner
