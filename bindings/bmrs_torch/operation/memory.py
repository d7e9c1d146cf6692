"""Which tensors the kernels of the CPU read where they lie, and the refusal of those that lie nowhere."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["addresses", "are_plain", "is_ordinary"]

_ORDINARY = (Tensor, nn.Parameter)


def is_ordinary(tensor: Tensor) -> bool:
    """Whether a tensor is torch's own, strided, on the CPU: not fake, meta, sparse, or of a subclass."""
    return type(tensor) in _ORDINARY and tensor.is_cpu and tensor.layout is torch.strided


def are_plain(*tensors: Tensor) -> bool:
    """Whether tensors are ordinary vectors of float32 of one length, side by side in memory."""
    shape = tensors[0].shape
    for tensor in tensors:
        if not is_ordinary(tensor) or tensor.dtype != torch.float32 or not tensor.is_contiguous():
            return False
        if tensor.shape != shape or tensor.is_neg():
            return False
    return len(shape) == 1


def addresses(*tensors: Tensor) -> Any:  # a tuple as long as its arguments, which no type can say
    """Where tensors begin in memory, for a kernel to read and write there.

    Parameters
    ----------
    *tensors : Tensor
        On the CPU, strided.

    Returns
    -------
    tuple of int, one for each tensor

    Raises
    ------
    RuntimeError
        If one has entries but no memory, where a kernel would end the process: on the meta device, fake, or
        of freed storage.
    """
    found = tuple([tensor.data_ptr() for tensor in tensors])
    if 0 in found:
        for tensor, address in zip(tensors, found, strict=True):
            if not address and tensor.numel():
                raise RuntimeError(
                    f"a {type(tensor).__name__} of shape {tuple(tensor.shape)} on {tensor.device} has no "
                    "memory "
                    "to compute with: it is fake, on the meta device, or its storage was freed. Give its "
                    "values first, e.g. by to_empty(device='cpu') and load_state_dict"
                )
    return found
