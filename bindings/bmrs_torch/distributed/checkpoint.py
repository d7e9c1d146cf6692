"""Checkpoints of a training with noise, by torch.distributed.checkpoint: every rank does its part."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import distributed, nn

from bmrs_torch.distributed.ranks import Ranks

__all__ = ["load_checkpoint", "save_checkpoint"]


class _Stateful(Protocol):
    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


def save_checkpoint(
    folder: str | os.PathLike[str], model: nn.Module, optimizer: torch.optim.Optimizer, pruner: _Stateful
) -> None:
    """Save a training, pruner and generators included, so that any number of processes can take it up.

    All ranks have to call it. What they hold alike, as all of it under DistributedDataParallel, rank 0
    writes; of what ``fully_shard`` divided each writes its part.

    Parameters
    ----------
    folder : path-like
        That all ranks see; made if it isn't there. What is in it is overwritten. It is whole once it holds
        ``.metadata``, which is written last: keep the checkpoint before until then.
    model : nn.Module
        As it trains: wrapped, divided or plain.
    optimizer : torch.optim.Optimizer
        Of its parameters.
    pruner : Pruner
        Of it.
    """
    from torch.distributed.checkpoint.default_planner import DefaultSavePlanner
    from torch.distributed.checkpoint.state_dict import get_state_dict
    from torch.distributed.checkpoint.state_dict_saver import save

    ranks = _ranks()
    of_model, of_optimizer = get_state_dict(model, optimizer)
    state = {
        "model": of_model,
        "optimizer": of_optimizer,
        "pruner": _packed(pruner.state_dict()),
        "generators": _packed(ranks.of_all(_generators())),
    }
    planner = DefaultSavePlanner(dedup_save_to_lowest_rank=True)
    save(state, checkpoint_id=folder, planner=planner, no_dist=ranks.group is None)


def load_checkpoint(
    folder: str | os.PathLike[str], model: nn.Module, optimizer: torch.optim.Optimizer, pruner: _Stateful
) -> None:
    """Take up a training that :func:`save_checkpoint` saved, on as many processes as before or on others.

    All ranks have to call it, with all made as at the beginning. The model takes on the shapes that it had
    been shrunk to. On as many processes as before the run goes on as it would have, to the bit; on others the
    noise is drawn otherwise, and rank r takes the generators of rank r modulo the number that there were.

    Parameters
    ----------
    folder, model, optimizer, pruner
        As of :func:`save_checkpoint`; the model may be wrapped or divided otherwise than it was.

    Raises
    ------
    CheckpointException
        Of torch: if something is missing in the folder, or of another shape.
    LayoutError
        A ValueError: if the model isn't the network that was saved.
    """
    from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
    from torch.distributed.checkpoint.state_dict_loader import load

    ranks = _ranks()
    alone = ranks.group is None
    first: dict[str, Any] = {"pruner": b"", "generators": b""}
    load(first, checkpoint_id=folder, no_dist=alone)
    pruner.load_state_dict(_unpacked(first["pruner"]))  # it gives model and optimizer their shapes
    of_model, of_optimizer = get_state_dict(model, optimizer)
    state: dict[str, Any] = {"model": of_model, "optimizer": of_optimizer}
    load(state, checkpoint_id=folder, no_dist=alone)
    set_state_dict(model, optimizer, model_state_dict=state["model"], optim_state_dict=state["optimizer"])
    generators = _unpacked(first["generators"])
    _set_generators(generators[ranks.number % len(generators)])


def _ranks() -> Ranks:
    ready = distributed.is_available() and distributed.is_initialized()
    return Ranks(distributed.group.WORLD if ready else None)


def _packed(state: Any) -> bytes:
    """As one item, of which a fresh pruner need not know how many entries it has."""
    file = io.BytesIO()
    torch.save(state, file)
    return file.getvalue()


def _unpacked(state: bytes) -> Any:
    return torch.load(io.BytesIO(state), weights_only=True)


def _generators() -> dict[str, torch.Tensor]:
    """The states of torch's generators that this process draws from."""
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def _set_generators(states: Mapping[str, torch.Tensor]) -> None:
    torch.set_rng_state(states["cpu"])
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])
