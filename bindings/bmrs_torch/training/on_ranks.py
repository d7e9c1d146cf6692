"""A pruner's model where several processes train it: decided once, alike on all, and finished alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import nn

from bmrs_torch.deciding.decided_once import decided_once
from bmrs_torch.deciding.prune_report import PruneReport
from bmrs_torch.distributed.sharding import is_divided
from bmrs_torch.wrapping import data_parallel_of, make_anew, ranks_of, why_not_anew

__all__ = ["OnRanks"]


class OnRanks:
    """The processes that train a model, and what its wrapper has to be told. Of one process, nothing at all.

    Parameters
    ----------
    model : nn.Module
        Without its wrapper.
    wrapper : nn.Module
        What runs it on several processes; the model itself if nothing does.

    Raises
    ------
    ValueError
        If the model is no part of what the wrapper wraps.
    """

    def __init__(self, model: nn.Module, wrapper: nn.Module) -> None:
        self.ranks = ranks_of(wrapper)
        self._given = wrapper
        self._model, self._wrapper = model, data_parallel_of(wrapper)
        if all(module is not model for module in wrapper.modules()):
            raise ValueError(
                f"wrapper must be what runs the model on several processes, such as DistributedDataParallel, "
                f"and hold it; the {type(wrapper).__name__} given doesn't hold this {type(model).__name__}"
            )
        self._trained = self._trainable()

    def refuse_what_is_divided(self, *, shrink: bool, others: Sequence[nn.Module]) -> None:
        """Raise ValueError for what can't be done with a model that ``fully_shard`` divided."""
        if any(type(module).__name__ == "FullyShardedDataParallel" for module in self._given.modules()):
            raise ValueError(
                "a model in FullyShardedDataParallel keeps its parameters in pieces without a shape of their "
                "own, in which no structure can be found: divide it by torch.distributed.fsdp.fully_shard"
            )
        if (shrink or others) and is_divided(self._model):
            raise ValueError(
                f"{'shrink=True' if shrink else 'others='} can't be had with a model that fully_shard "
                "divided, whose parameters, and the optimizer's state, lie in pieces on all ranks: prune it "
                "by masks while it trains; finish() then gives a whole, smaller, plain network on every "
                "rank, which can be divided and trained anew"
            )

    def check_begin(self, options: Mapping[str, Any], example_inputs: Any, *, changes: bool) -> None:
        """Raise on all ranks unless they begin alike; say now if the wrapper couldn't be made anew later.

        Parameters
        ----------
        options : mapping of str
            What must be the same on all ranks.
        example_inputs : Tensor, tuple, list, dict or None
            So must this.
        changes : bool
            Whether parameters will be replaced, or cease to learn.
        """
        self.ranks.check_alike(
            {**options, "example_inputs": example_inputs},
            "they prune and finish one network together. Give every rank the same, as by the same seed or "
            "from the same file; a minibatch that rank 0 broadcasts will do as example_inputs",
        )
        why = None if self._wrapper is None or not changes else why_not_anew(self._wrapper)
        if why is not None:
            raise ValueError(
                "this DistributedDataParallel can't be made anew when parameters shrink or the noise ceases "
                f"to learn: {why}. Wrap the model by DistributedDataParallel without that, or prune without "
                "shrink=True and without Schedule(finetune_from=…)"
            )

    def check_example(self, example_inputs: Any) -> None:
        """Raise on all ranks unless their examples are the same."""
        self.ranks.check_alike(
            {"example_inputs": example_inputs},
            "they finish one network together, each by following it on the example. Give every rank the "
            "same, such as a minibatch that rank 0 broadcasts",
        )

    def decided(self, decide: Callable[[nn.Module], PruneReport], *, by_noise: bool) -> PruneReport:
        """See :func:`decided_once`."""
        return decided_once(self._model, self.ranks, decide, by_noise=by_noise)

    def tell_wrapper(self) -> None:
        """Let the wrapper begin anew if the parameters that learn aren't those that it was made with."""
        if self._wrapper is None:
            return
        now = self._trainable()
        if len(now) != len(self._trained) or any(a is not b for a, b in zip(now, self._trained, strict=True)):
            make_anew(self._wrapper)
            self._trained = now

    def _trainable(self) -> list[nn.Parameter]:
        return [parameter for parameter in self._model.parameters() if parameter.requires_grad]

    def made_alike(self, finished: nn.Module, others: Sequence[nn.Module]) -> nn.Module:
        """Networks that each rank finished, with the values that they have on rank 0.

        Those of a BatchNorm's statistics differ: each rank has those of its own minibatches.
        """
        for network in (finished, *others):
            self.ranks.take_of_first({**dict(network.named_parameters()), **dict(network.named_buffers())})
        return finished
