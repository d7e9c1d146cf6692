"""What counts as an answer: every tensor, of any dtype, in any container."""

from __future__ import annotations

import dataclasses
from collections import OrderedDict, UserDict, deque
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from bmrs_torch.channels.calling import mapped, tensors_of


@dataclasses.dataclass(frozen=True)
class Record:
    first: Any
    second: Any = None


class Pair(NamedTuple):
    first: Any
    second: Any


class Slotted:
    __slots__ = ("first",)

    def __init__(self, first: Any) -> None:
        self.first = first


CONTAINERS: dict[str, Callable[[Tensor], Any]] = {
    "tuple": lambda t: (1, t),
    "named tuple": lambda t: Pair("x", t),
    "ordered dict": lambda t: OrderedDict(a=t),
    "mapping of one's own": lambda t: UserDict(a=t),
    "set": lambda t: {t},
    "frozen set": lambda t: frozenset([t]),
    "deque": lambda t: deque([t]),
    "dataclass": lambda t: Record(None, t),
    "object": lambda t: SimpleNamespace(x=t, y=3),
    "object with slots": Slotted,
    "distribution": lambda t: torch.distributions.Categorical(logits=t.expand(2, -1)),
    "nested": lambda t: [{"a": Record((Slotted({t}),))}],
}


@pytest.mark.parametrize("kind", CONTAINERS)
def test_tensors_are_found_in_any_container(kind: str) -> None:
    tensor = torch.arange(3.0)
    assert any(found.shape[-1:] == (3,) for found in tensors_of(CONTAINERS[kind](tensor)))


def test_iterators_are_gone_through() -> None:
    assert [t.numel() for t in tensors_of(torch.ones(n) for n in (1, 2))] == [1, 2]
    assert [t.numel() for t in tensors_of({"a": torch.ones(4)}.values())] == [4]


@pytest.mark.parametrize("dtype", [torch.bool, torch.int64, torch.uint8, torch.bfloat16, torch.complex64])
def test_tensors_of_any_dtype_count(dtype: torch.dtype) -> None:
    assert tensors_of((torch.ones(2, dtype=dtype),))[0].dtype == dtype


def test_what_holds_itself_is_gone_through_once() -> None:
    held: list[Any] = [torch.ones(1)]
    held.append(held)
    assert len(tensors_of(held)) == 1


def test_the_tensors_of_a_set_have_an_order_of_their_own() -> None:
    tensors = [torch.full((n,), 1.0) for n in (3, 1, 2)]
    assert [t.numel() for t in tensors_of(set(tensors))] == [1, 2, 3]


@pytest.mark.parametrize("kind", ["tuple", "named tuple", "set", "dataclass", "object", "nested"])
def test_inputs_are_changed_in_their_own_containers(kind: str) -> None:
    given = CONTAINERS[kind](torch.arange(3.0))
    other = mapped(given, lambda t: t + 1)
    assert type(other) is type(given)
    assert tensors_of(other)[0].tolist() == [1.0, 2.0, 3.0]
    assert tensors_of(given)[0].tolist() == [0.0, 1.0, 2.0]
