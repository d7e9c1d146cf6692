"""Processes that train one network: what they must agree on, and what is decided once for all of them."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, distributed
from torch.utils._pytree import tree_flatten

__all__ = ["Ranks", "RanksDisagreeError", "digest"]

T = TypeVar("T")


class RanksDisagreeError(ValueError):
    """Something that must be the same on all ranks isn't."""


class Ranks:
    """The processes that train one network.

    Every method but the properties is a collective: all of these processes have to call it. One that never
    does is waited for as long as the timeout of the group says, which is given to ``init_process_group``.

    Parameters
    ----------
    group : ProcessGroup, optional
        None for this process alone, which then asks nobody.

    Examples
    --------
    >>> from bmrs_torch.distributed import Ranks
    >>> alone = Ranks()
    >>> alone.size, alone.is_first, alone.of_first(lambda: 3)
    (1, True, 3)
    """

    def __init__(self, group: Any = None) -> None:
        self.group = group
        self.size = 1 if group is None else distributed.get_world_size(group)
        self.number = 0 if group is None else distributed.get_rank(group)

    @property
    def are_several(self) -> bool:
        """Whether there is any other process."""
        return self.size > 1

    @property
    def is_first(self) -> bool:
        """Whether it is this process that decides."""
        return self.number == 0

    def check_alike(self, values: Mapping[str, Any], why: str) -> None:
        """Raise on all ranks unless these values, tensors in containers among them, are the same on all.

        Parameters
        ----------
        values : mapping of str
            By the names that the error calls them.
        why : str
            What it matters for, and what to do.

        Raises
        ------
        RanksDisagreeError
            With the names of what differs from rank 0, and the ranks.
        """
        if not self.are_several:
            return
        own = {name: digest(value) for name, value in values.items()}
        if len(set(self.of_all(digest(own)))) == 1:  # one number of each rank says so, however many they are
            return
        found = self.of_all(own)
        names = list(dict.fromkeys(name for digests in found for name in digests))
        differing = {
            name: [rank for rank in range(self.size) if found[rank].get(name) != found[0].get(name)]
            for name in names
        }
        wrong = [f"{name} of rank {', '.join(map(str, ranks))}" for name, ranks in differing.items() if ranks]
        if wrong:
            told = "; ".join(wrong[:_MOST]) + (f"; and {len(wrong) - _MOST} more" if wrong[_MOST:] else "")
            raise RanksDisagreeError(f"all {self.size} ranks must have the same, but {told} differs: {why}")

    def of_first(self, make: Callable[[], T]) -> T:
        """What a function gives on rank 0, which alone calls it; what it raises is raised on all ranks.

        Parameters
        ----------
        make : callable
            Without arguments. It must not wait for another rank, and what it gives must be picklable.
        """
        if not self.are_several:
            return make()
        box: list[Any] = [None]
        error: Exception | None = None
        if self.is_first:
            try:
                with torch.random.fork_rng():  # the other ranks draw nothing meanwhile
                    box[0] = True, make()
            except Exception as raised:  # noqa: BLE001 - it is raised again below, on all ranks
                error, box[0] = raised, (False, _sendable(raised))
        distributed.broadcast_object_list(box, group=self.group, group_src=0)
        if error is not None:
            raise error
        is_sound, value = box[0]
        if not is_sound:
            raise value
        return value  # type: ignore[no-any-return]

    def of_all(self, value: T) -> list[T]:
        """What each rank gives, in the order of the ranks; it must be picklable."""
        if not self.are_several:
            return [value]
        found: list[Any] = [None] * self.size
        distributed.all_gather_object(found, value, group=self.group)
        return found

    @torch.no_grad()
    def take_of_first(self, tensors: Mapping[str, Tensor]) -> None:
        """Give these tensors, by name, the values that they have on rank 0.

        Raises
        ------
        RanksDisagreeError
            If their names, shapes or dtypes aren't the same on all; nothing is changed.
        """
        if not self.are_several:
            return
        shapes = {name: (tuple(tensor.shape), str(tensor.dtype)) for name, tensor in tensors.items()}
        self.check_alike(shapes, "the networks of the ranks have different shapes")
        for tensor in tensors.values():
            here = tensor.contiguous()
            # As bytes: not every backend sends truth values or complex numbers.
            distributed.broadcast(here.reshape(-1).view(torch.uint8), group=self.group, group_src=0)
            if here is not tensor:
                tensor.copy_(here)


_MOST = 8


def _sendable(error: Exception) -> Exception:
    """The error, or one that says the same if it can't be sent to another process."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # noqa: BLE001 - an error of the user's may hold anything
        return RuntimeError(f"rank 0 raised {type(error).__name__}: {error}")
    return error


def digest(value: Any) -> str:
    """A number by which equal values are known: of arrays in containers their bits, of others what they say.

    Examples
    --------
    >>> import torch
    >>> from bmrs_torch.distributed.ranks import digest
    >>> digest({"x": torch.ones(2)}) == digest({"x": torch.ones(2)}) != digest({"x": torch.ones(3)})
    True
    """
    leaves, structure = tree_flatten(value)
    found = hashlib.blake2b(str(structure).encode(), digest_size=16)
    for each in leaves:
        leaf = torch.from_numpy(each) if isinstance(each, np.ndarray) else each
        if isinstance(leaf, Tensor):
            found.update(f"{leaf.dtype}{tuple(leaf.shape)}{leaf.layout}".encode())
            found.update(_bytes(leaf))
        else:
            found.update((repr(leaf) if isinstance(leaf, _PLAIN) else type(leaf).__name__).encode())
    return found.hexdigest()


_PLAIN = (str, bytes, int, float, complex, type(None), torch.dtype, torch.device)


def _bytes(tensor: Tensor) -> Any:
    dense = tensor.detach() if tensor.layout == torch.strided else tensor.detach().to_dense()
    return dense.cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
