"""What a pruner notes after every epoch: numbers that tell how far the noise is from a decision."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import nn

from bmrs_torch.deciding.coupled_gates import coupled_gates
from bmrs_torch.deciding.criteria import Criterion, find_criterion
from bmrs_torch.deciding.noise_alone import noise_alone
from bmrs_torch.deciding.standing import Standing, standing
from bmrs_torch.layer import MultiplicativeNoise, noise_layers
from bmrs_torch.objective import kl_divergence
from bmrs_torch.operation.checks import check_parameters

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Observer", "scalars_of"]

QUANTILES = (5, 25, 50, 75, 95)
NEAR = (1, 10)
"""In nats: "not worth more than a bare mention", and twice what is "very strong" (Kass and Raftery, 1995)."""
NEXT = 5

Entry = dict[str, Any]
When = Literal["epoch", "step"]


class Observer:
    """Reads the noise of a model once per entry of a history; the training never notices.

    Parameters
    ----------
    model : nn.Module
        With noise layers; also after it was made smaller, in place.
    criterion : str
        By which it is pruned.
    options : mapping of str
        Of :func:`prune`.
    example_inputs : object
        To follow the model on, with `coupling`.
    """

    def __init__(
        self, model: nn.Module, criterion: str, options: Mapping[str, Any], example_inputs: Any
    ) -> None:
        self._model, self._options, self._example = model, options, example_inputs
        self._criterion: Criterion = find_criterion(criterion)
        self._groups: list[dict[str, tuple[int, ...]]] | None = None
        self._before: dict[str, NDArray[np.float64]] | None = self._noise()
        self._moved: dict[str, float] | None = None

    def entry(self, *, finetuning: bool) -> Entry:
        """What there is to tell of the noise now; movement is counted from here on.

        Parameters
        ----------
        finetuning : bool
            Whether nothing will go any more.

        Returns
        -------
        dict
            The entries of a history that are of the noise, as :class:`Pruner` describes them.
        """
        layers = noise_layers(self._model)
        kept = {name or "(model)": int(layer.kept().sum()) for name, layer in layers.items()}
        alone = noise_alone(self._model)
        usable = all(map(_is_usable, noise_layers(alone).values()))  # what isn't, the training says itself
        with torch.no_grad():
            kl = kl_divergence(self._model).item() if usable else math.nan
        entry: Entry = {"kept": kept, "num_kept": sum(kept.values()), "kl": kl if math.isfinite(kl) else None}
        judged = self._judge() if usable and self._criterion.source == "noise" else None
        entry |= _told(judged, self._criterion, finetuning=finetuning)
        self.measure_movement()
        entry["moved"] = self._moved
        self.begin_anew()
        return entry

    def measure_movement(self) -> None:
        """Take down how far the noise has come, before surgery makes other structures of it."""
        if self._moved is None and self._before is not None:
            self._moved = _movement(self._before, self._noise(), noise_layers(self._model))

    def begin_anew(self) -> None:
        """Count movement from here on, of a network that may have other structures than before."""
        self._before, self._moved = self._noise(), None

    def forget(self) -> None:
        """Know nothing of earlier noise, nor of what is coupled: the network is another one now."""
        self._before = self._moved = self._groups = None

    def forget_coupling(self) -> None:
        """Find anew what is coupled when it is asked for next: the network has become smaller."""
        self._groups = None

    def state_dict(self) -> dict[str, torch.Tensor] | None:
        """The noise from which movement is counted, by layer, float64 of shape (2, num_structures)."""
        if self._before is None:
            return None
        return {name: torch.from_numpy(values.copy()) for name, values in self._before.items()}

    def load_state_dict(self, state: Mapping[str, torch.Tensor] | None) -> None:
        """Take up what :meth:`state_dict` gave."""
        self.forget()
        if state is not None:
            self._before = {name: values.double().numpy().copy() for name, values in state.items()}

    def _judge(self) -> Standing:
        if self._options.get("coupling") is not None and self._groups is None:
            with torch.random.fork_rng():  # what a forward method draws is not drawn from the training
                self._groups = coupled_gates(self._model, self._example)
        return standing(self._model, self._criterion, self._options, self._groups or ())

    def _noise(self) -> dict[str, NDArray[np.float64]] | None:
        """μ and log σ of every layer, shape (2, num_structures); None where they have no values."""
        layers = noise_layers(noise_alone(self._model))
        if any(layer.mu.is_meta for layer in layers.values()):
            return None
        return {
            name: torch.stack([layer.mu.detach(), layer.log_sigma.detach()]).cpu().double().numpy()
            for name, layer in layers.items()
        }


def _is_usable(layer: MultiplicativeNoise) -> bool:
    try:
        check_parameters(layer.mu, layer.log_sigma)
    except ValueError:
        return False
    return True


def _movement(
    before: Mapping[str, NDArray[np.float64]],
    now: Mapping[str, NDArray[np.float64]] | None,
    layers: Mapping[str, MultiplicativeNoise],
) -> dict[str, float] | None:
    """Mean and largest change of the noise that is kept; None where it isn't the same noise any more."""
    alike = now is not None and {name: values.shape for name, values in before.items()} == {
        name: values.shape for name, values in now.items()
    }
    if not alike or now is None:
        return None
    kept = {name: layer.kept().cpu().numpy() for name, layer in layers.items()}
    away = np.concatenate([np.abs(now[name] - before[name])[:, kept[name]] for name in now], axis=1)
    if not away.size or not np.isfinite(away).all():
        return None
    names = ("mu", "log_sigma")
    means = {f"{name}_mean": float(values.mean()) for name, values in zip(names, away, strict=True)}
    return means | {f"{name}_max": float(values.max()) for name, values in zip(names, away, strict=True)}


def _told(judged: Standing | None, criterion: Criterion, *, finetuning: bool) -> Entry:
    """The parts of an entry that are of scores and of the rule."""
    name = "delta_f" if criterion.is_evidence else criterion.name
    told: Entry = {name: None, "nearest": None, "near": None, "next": []}
    if judged is None or not judged.scores.size:
        return told
    told[name] = {
        f"q{percent:02}": float(value)
        for percent, value in zip(QUANTILES, np.percentile(judged.scores, QUANTILES), strict=True)
    }
    if finetuning:
        return told
    distances = judged.distances()
    if distances is not None:
        told["nearest"] = float(distances[0]) if distances.size else None
        if criterion.is_evidence:
            told["near"] = {f"within_{nats}": int((distances <= nats).sum()) for nats in NEAR}
    if judged.ranks:
        first = zip(judged.layer[:NEXT], judged.structure[:NEXT], judged.judged[:NEXT], strict=True)
        told["next"] = [
            {"layer": judged.layers[layer], "structure": int(structure), "score": float(score)}
            for layer, structure, score in first
        ]
    return told


def scalars_of(entry: Mapping[str, Any]) -> dict[str, float]:
    """What a logger takes of an entry of a history: flat names and plain floats.

    Parameters
    ----------
    entry : mapping
        Of ``Pruner.history``.

    Returns
    -------
    dict of str to float
        ``"bmrs/kl"``, ``"bmrs/delta_f/q50"``, ``"bmrs/kept"`` and so on; what isn't known is left out.

    Examples
    --------
    >>> from bmrs_torch.training.history import scalars_of
    >>> scalars_of({"kl": 7.5, "misfit": None, "delta_f": {"q50": -1.0}, "kept": {"0": 3}, "num_kept": 3})
    {'bmrs/kl': 7.5, 'bmrs/delta_f/q50': -1.0, 'bmrs/kept': 3.0}
    """
    named = {key: value for key, value in entry.items() if key not in ("kept", "num_kept", "step")}
    if "num_kept" in entry:
        named["kept"] = entry["num_kept"]
    flat: dict[str, float] = {}
    for key, value in named.items():
        nested = isinstance(value, dict)
        parts = {f"{key}/{part}": number for part, number in value.items()} if nested else {key: value}
        flat |= {
            f"bmrs/{name}": float(number)
            for name, number in parts.items()
            if isinstance(number, (int, float)) and not isinstance(number, bool)
        }
    return flat
