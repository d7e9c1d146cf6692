"""Surgery tried on copies of a model, and the search for what can't go."""

from __future__ import annotations

import copy
import time
from typing import Any, Generic, TypeVar

from torch import nn

from bmrs_torch.channels.calling import TrainingStep
from bmrs_torch.surgery.cutting import Cut, cut_model
from bmrs_torch.surgery.plan_compaction import Selection, select
from bmrs_torch.surgery.progress import Progress
from bmrs_torch.surgery.verification import Comparison, Reference, SurgeryError

__all__ = ["CHANGES_ANSWERS", "OUT_OF_TIME", "Surgeon"]

M = TypeVar("M", bound=nn.Module)

CHANGES_ANSWERS = (
    "without it the model answers differently or not at all (its forward method counts on the width)"
)
OUT_OF_TIME = "the time limit was reached before it was tried"


class Surgeon(Generic[M]):
    """Tries surgery on copies of a model.

    Parameters
    ----------
    model : nn.Module
        It is left as it is.
    example_inputs : Tensor, tuple, list or dict
        What copies are compared with it on; and variants of it, and training mode.
    selection : Selection
        What is to go.
    training_step : callable, optional
        What is computed in training mode.
    time_limit : float
        Seconds after which no further part of the removal is tried.

    Attributes
    ----------
    untrained : str
        Why nothing could be compared in training mode, or "".
    """

    def __init__(
        self,
        model: M,
        example_inputs: Any,
        selection: Selection,
        *,
        training_step: TrainingStep | None = None,
        time_limit: float = float("inf"),
    ) -> None:
        self._model, self._inputs, self._selection, self._step = (
            model,
            example_inputs,
            selection,
            training_step,
        )
        self._reference = Reference(model, example_inputs, widely=True, training_step=training_step)
        self._deadline = time.monotonic() + time_limit
        self._tried: dict[frozenset[int], Comparison] = {}
        self._refused: set[int] = set()
        self._best: tuple[M, set[int]] | None = None
        self.untrained = self._reference.untrained

    def operate(self) -> tuple[M, Selection]:
        """The smaller model, and what went."""
        found = self._try(self._families())
        if found.in_training and not found.alike and not self._selection.network.in_training:
            self._selection = self._followed_in_training()
            self._tried.clear()
            found = self._try(self._families())
        if not found.alike:
            with Progress(len(self._families()), "surgery") as progress:
                self._search(found, progress)
        if self._best is None and not self._try([]).alike:
            raise SurgeryError(
                "a copy of the model answers otherwise than the model although nothing was removed, so "
                "nothing can be verified; the model was left as it was"
            )
        assert self._best is not None
        smaller, gone = self._best
        return smaller, self._only(gone)

    def _followed_in_training(self) -> Selection:
        """What may go, with what the model does in training mode followed too."""
        return select(self._model, self._inputs, training=True, training_step=self._step)

    def _families(self) -> list[set[int]]:
        return sorted(self._selection.families(), key=min)

    def _only(self, gone: set[int]) -> Selection:
        left = self._selection.removable - gone
        reasons = {root: CHANGES_ANSWERS if root in self._refused else OUT_OF_TIME for root in left}
        return self._selection.only(gone, reasons)

    def _search(self, found: Comparison, progress: Progress) -> None:
        """Leave out what errors point at; then halve what else changes the answers."""
        going = self._families()
        accused: list[set[int]] = []
        while found.raised_in is not None and not self._late():
            named = self._touching(going, found.raised_in)
            if not named:
                break
            going = [family for family in going if family not in named]
            if len(named) > 1:
                accused += named
            else:  # it alone is the cause
                self._refuse(named[0], progress)
            found = self._try(going)
        sound = self._sound(going, [], progress)
        self._sound(accused, sound, progress)

    def _sound(self, families: list[set[int]], before: list[set[int]], progress: Progress) -> list[set[int]]:
        """The families that can go after those before, found by halving those that can't."""
        if not families or self._late():
            return []
        if self._try(before + families).alike:
            progress.advance(len(families))
            return families
        if len(families) == 1:
            self._refuse(families[0], progress)
            return []
        half = len(families) // 2
        first = self._sound(families[:half], before, progress)
        return first + self._sound(families[half:], before + first, progress)

    def _refuse(self, family: set[int], progress: Progress) -> None:
        self._refused |= family
        progress.advance(1)

    def _late(self) -> bool:
        return time.monotonic() > self._deadline

    def _touching(self, families: list[set[int]], module: str) -> list[set[int]]:
        """The families that lie in tensors of a module, or in what is divided among axes there."""
        network = self._selection.network
        stored = [axes for name, axes in network.parameters.items() if name.rpartition(".")[0] == module]
        labels = [axis.labels for axes in stored for axis in axes]
        labels += [reshape.split.axis.labels for reshape in network.reshapes if reshape.module == module]
        touched = {root for each in labels for root in network.labels.roots(each).tolist()}
        return [family for family in families if family & touched]

    def _try(self, families: list[set[int]]) -> Comparison:
        """Remove these from a copy, which is kept if it answers as the model does."""
        gone: set[int] = set().union(*families)
        found = self._tried.get(frozenset(gone))
        if found is None:
            smaller = copy.deepcopy(self._model)
            cut_model(smaller, Cut(self._only(gone)))
            found = self._tried[frozenset(gone)] = self._reference.compare(smaller)
            if found.alike:
                self._best = smaller, gone
        return found
