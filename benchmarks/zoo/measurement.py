"""One architecture: noise in, gates closed at random, cut, folded, compared."""

from __future__ import annotations

import re
import time
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_map

from benchmarks.zoo.architecture import Architecture
from benchmarks.zoo.architectures import ARCHITECTURES
from benchmarks.zoo.randomness import mask, randomize, randomize_noise, randomize_statistics
from bmrs_torch import compact, fold, insert_noise, noise_layers, plan_compaction, plan_insertion
from bmrs_torch.channels.calling import answers
from bmrs_torch.surgery.verification import difference, doubled, rounds_to_float32

DEAD = 0.6
"""Share of the gates that are closed."""

BATCH, OTHER_BATCH = 2, 3
"""Of the example on which all is done, and of what is compared beside it, of another seed."""

TELLING = 1e-3
"""Two inputs must make at least this relative difference, or agreement of two networks says nothing."""

_NAME = re.compile(r"(?<!\w)'[^']*'")
"""A name in quotes; not an apostrophe."""


@dataclass
class Subject:
    """A network with random parameters, and inputs in its dtype.

    Attributes
    ----------
    model : nn.Module
        In evaluation mode; in float64 if it computes in float64 at all.
    example : Any
        On which all is done.
    other : Any
        Another batch size.
    """

    model: nn.Module
    example: Any
    other: Any

    @property
    def dtype(self) -> str:
        """What it computes in: "float64", "float32", or "float64 in part", where norms round to float32."""
        parameter = next(p for p in self.model.parameters() if p.is_floating_point())
        if parameter.dtype != torch.float64:
            return str(parameter.dtype).removeprefix("torch.")
        return "float64 in part" if rounds_to_float32(self.model, self.example) else "float64"


@dataclass(frozen=True)
class Measured:
    """What came of one architecture; :func:`measure` says how.

    Attributes
    ----------
    parameters : int
        Of the network as it was built.
    noise_layers, structures, closed : int
        How many there are, and of the structures how many were closed.
    share : float
        Of the parameters gone from the plain network that is left.
    difference, difference_other_batch : float or None
        Relative, of that network's answers to those of the masked one; None where no noise could be put.
    dtype : str
        In which that was computed.
    stayed : list of dict
        Closed structures that stayed, by reason: how many of how many noise layers.
    passed_over : list of dict
        Layers that got no noise, by reason.
    plan_seconds, compact_seconds, fold_seconds : float or None
    """

    parameters: int
    noise_layers: int
    structures: int
    closed: int
    share: float
    difference: float | None
    difference_other_batch: float | None
    dtype: str
    stayed: list[dict[str, Any]]
    passed_over: list[dict[str, Any]]
    plan_seconds: float
    compact_seconds: float | None = None
    fold_seconds: float | None = None


class StageError(RuntimeError):
    """What went wrong with an architecture, and in doing what."""


@contextmanager
def stage(what: str) -> Iterator[None]:
    """Name what was being done in whatever goes wrong in the block."""
    try:
        yield
    except Exception as error:
        raise StageError(f"{what}: {type(error).__name__}: {error}") from error


def parameters_of(model: nn.Module) -> int:
    """How many numbers a model learns."""
    return sum(p.numel() for p in model.parameters())


def subject(architecture: Architecture, seed: int) -> Subject:
    """Build an architecture with random parameters and statistics.

    Raises
    ------
    StageError
        If it can't be built or run, or if its answers don't depend on its inputs.
    """
    with stage("build"):
        torch.manual_seed(seed)
        model = architecture.build().eval()
        example = architecture.inputs(seed, BATCH)
        randomize(model, seed)
        randomize_statistics(model, example, seed)
        model, example = doubled(model, example)
        dtype = next(p.dtype for p in model.parameters() if p.is_floating_point())
        unseen, other = (
            tree_map(lambda x: x.to(dtype) if x.is_floating_point() else x, architecture.inputs(seed + 1, n))
            for n in (BATCH, OTHER_BATCH)
        )
        if not difference(answers(model, example), answers(model, unseen)) > TELLING:
            raise ValueError("its answers hardly depend on its inputs, so that they can't tell a fault")
    return Subject(model, example, other)


def measure(name: str, *, dead: float = DEAD, seed: int = 0) -> Measured:
    """Put noise on an architecture, close gates at random, compact, fold, and compare.

    Parameters
    ----------
    name : str
        Of the architecture.
    dead : float
        Share of the structures of each noise layer to close.
    seed : int
        Of parameters, inputs and which gates.

    Raises
    ------
    StageError
        If any of it fails.
    """
    return shrink(name, dead=dead, seed=seed)[0]


def shrink(name: str, *, dead: float = DEAD, seed: int = 0) -> tuple[Measured, nn.Module, Subject]:
    """Do as :func:`measure`, and return the small network, and the large one with its noise, too."""
    architecture = ARCHITECTURES[name]
    large = subject(architecture, seed)
    model, example, dtype = large.model, large.example, large.dtype
    parameters = parameters_of(model)
    with stage("plan_insertion"):
        started = time.perf_counter()
        plan = plan_insertion(model, example, where=architecture.where)
        plan_seconds = time.perf_counter() - started
    passed_over = grouped((reason, layer) for layer, reason in plan.passed_over)
    if not plan.placements:
        nothing = Measured(
            parameters, 0, 0, 0, 0.0, None, None, dtype, [], renamed(passed_over, "layers"), plan_seconds
        )
        return nothing, model, large
    with stage("insert_noise"):
        insert_noise(model, example, where=architecture.where)
    randomize_noise(model, seed)
    mask(model, dead, seed)
    layers = noise_layers(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of what stays: it is counted here
        with stage("plan_compaction"):
            planned = plan_compaction(model, example).layers
        with stage("compact"):
            started = time.perf_counter()
            smaller = compact(model, example)
            compact_seconds = time.perf_counter() - started
        with stage("fold"):
            started = time.perf_counter()
            folded = fold(smaller, example)
            fold_seconds = time.perf_counter() - started
    with stage("compare"):
        differences = [difference(answers(model, x), answers(folded, x)) for x in (example, large.other)]
    measured = Measured(
        parameters=parameters,
        noise_layers=len(layers),
        structures=sum(layer.num_structures for layer in layers.values()),
        closed=sum(int((layer.mask == 0).sum()) for layer in layers.values()),
        share=1 - parameters_of(folded) / parameters,
        difference=differences[0],
        difference_other_batch=differences[1],
        dtype=dtype,
        stayed=renamed(
            grouped((reason, layer.name) for layer in planned for _, reason in layer.retained), "structures"
        ),
        passed_over=renamed(passed_over, "layers"),
        plan_seconds=plan_seconds,
        compact_seconds=compact_seconds,
        fold_seconds=fold_seconds,
    )
    return measured, folded, large


def grouped(reasons: Iterable[tuple[str, str]]) -> list[tuple[str, int, str]]:
    """Reasons that differ in the names of layers only, with how many there are and where the first is."""
    counts: Counter[str] = Counter()
    first: dict[str, str] = {}
    for reason, place in reasons:
        text = _NAME.sub("‹…›", reason)
        counts[text] += 1
        first.setdefault(text, place)
    return [(text, number, first[text]) for text, number in counts.most_common()]


def renamed(reasons: list[tuple[str, int, str]], what: str) -> list[dict[str, Any]]:
    """The same for a record."""
    return [{"reason": text, what: number, "first": place} for text, number, place in reasons]
