"""Really make a network smaller, on a copy, and measure what it costs then."""

from __future__ import annotations

import copy
import statistics
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from bmrs_torch.channels.calling import TrainingStep, in_mode
from bmrs_torch.channels.network import FollowedNetwork
from bmrs_torch.costs.counting import count_bytes, count_macs, count_plain_parameters
from bmrs_torch.costs.latency import latency_terms, module_times
from bmrs_torch.costs.measuring import median_ratio, take_times
from bmrs_torch.costs.terms import Term, byte_terms, mac_terms, parameter_terms
from bmrs_torch.deciding.budget import Budget
from bmrs_torch.layer import noise_layers
from bmrs_torch.surgery.fold import NotFoldableError, fold
from bmrs_torch.surgery.plan_compaction import CompactionPlan, select
from bmrs_torch.surgery.surgeon import Surgeon
from bmrs_torch.surgery.verification import SurgeryError

if TYPE_CHECKING:
    from bmrs_torch.channels.labels import Bools

__all__ = ["Meter", "folded", "made_smaller"]

_SECONDS = 1.0
"""For timing two networks in turns, and for timing the modules of one."""


def made_smaller(
    model: nn.Module, kept: Mapping[str, Bools], inputs: Any, step: TrainingStep | None
) -> tuple[nn.Module, CompactionPlan]:
    """A copy of a model that really has no more than these structures, and what of the others stayed.

    The copy still has its noise.
    """
    masked = copy.deepcopy(model)
    with torch.no_grad():
        for name, layer in noise_layers(masked).items():
            layer.mask.mul_(torch.as_tensor(kept[name], device=layer.mask.device))
    selection = select(masked, inputs, training_step=step)
    smaller, selection = Surgeon(masked, inputs, selection, training_step=step).operate()
    return smaller, selection.plan(selection.removable)


def folded(model: nn.Module, inputs: Any, step: TrainingStep | None = None) -> nn.Module:
    """A model without its noise, where that can be."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # `fold` will say it again when the user calls it
        try:
            return fold(model, inputs, training_step=step, unreached="warn")
        except (NotFoldableError, SurgeryError):
            return model


class Meter:
    """Measures the costs of networks.

    Parameters
    ----------
    budget : Budget
        Its costs are measured.
    example_inputs : Tensor, tuple, list or dict
        On which networks are run.
    reference : nn.Module or None
        The network with nothing pruned, without noise, where latency is one of the costs: it is timed in
        turns with each other one.
    typical : float, optional
        Seconds that it is said to take, to which a fraction of latency refers; by default what it takes at
        first.

    Attributes
    ----------
    timed : bool
        Whether latency is one of the costs.
    """

    def __init__(
        self,
        budget: Budget,
        example_inputs: Any,
        reference: nn.Module | None,
        typical: float | None = None,
    ) -> None:
        limits = budget.limits()
        self._names, self._inputs, self._reference = list(limits), example_inputs, reference
        self._typical = typical
        self.timed = "latency" in limits
        self._in_turns = self.timed and limits["latency"].is_fraction

    def plain(self, model: nn.Module, step: TrainingStep | None) -> nn.Module:
        """The model as it ships, as far as the costs depend on that.

        Without noise it is faster, and weights that were shared may have become two.
        """
        return model if self._names == ["macs"] else folded(model, self._inputs, step)

    def measure(self, model: nn.Module) -> dict[str, float]:
        """Each cost of a network: numbers, seconds."""
        measures = {
            "macs": self._macs,
            "parameters": count_plain_parameters,
            "bytes": count_bytes,
            "latency": self._latency,
        }
        return {name: float(measures[name](model)) for name in self._names}

    def _macs(self, model: nn.Module) -> int:
        with in_mode(model, training=False):
            return count_macs(model, self._inputs)[""]

    def _latency(self, model: nn.Module) -> float:
        """Seconds; for a fraction as many as the reference took at first, times the ratio of both in turns.

        So a machine that is slower for a while makes no difference to it.
        """
        assert self._reference is not None
        with in_mode(self._reference, training=False), in_mode(model, training=False):
            own, others = take_times((model, self._reference), self._inputs, seconds=_SECONDS)
        if not self._in_turns:
            return statistics.median(own)
        if self._typical is None:
            self._typical = statistics.median(others)
        return self._typical * median_ratio(own, others)

    def terms(
        self,
        model: nn.Module,
        network: FollowedNetwork,
        small: nn.Module,
        gone: Bools,
        reached: Mapping[str, float],
    ) -> dict[str, list[Term]]:
        """What each cost of a network is made of.

        Parameters
        ----------
        model : nn.Module
            As it is.
        network : FollowedNetwork
            As it was followed.
        small : nn.Module
            What is left of it without `gone`, whose modules are timed.
        gone : ndarray of bool
            Classes of channels, by representative.
        reached : mapping of str to float
            What `small` costs.
        """
        found: dict[str, list[Term]] = {}
        for name in self._names:
            if name == "macs":
                found[name] = mac_terms(network)
            elif name == "latency":
                times = module_times(small, self._inputs, seconds=_SECONDS)
                found[name] = latency_terms(network, times, gone, reached[name])
            else:
                terms_of = parameter_terms if name == "parameters" else byte_terms
                found[name] = terms_of(model, network)
        return found
