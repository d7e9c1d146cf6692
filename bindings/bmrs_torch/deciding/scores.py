"""Score every structure of a model by a criterion, and rank them across layers. Nothing is changed by it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from bmrs_core import delta_f_normal, delta_f_uniform, mean, snr
from bmrs_torch.deciding.criteria import P1, P2, Criterion, find_criterion
from bmrs_torch.deciding.feeding_weights import FeedingLayer, feeding_layers
from bmrs_torch.deciding.noise_alone import noise_alone
from bmrs_torch.layer import MultiplicativeNoise, noise_layers
from bmrs_torch.operation.arguments import check_whole
from bmrs_torch.operation.checks import check_parameters
from bmrs_torch.wrapping import whole

if TYPE_CHECKING:
    from numpy.typing import NDArray

_NOISE_SCORES: dict[str, Callable[..., NDArray[np.float64]]] = {
    "bmrs_n": delta_f_normal,
    "bmrs_u": delta_f_uniform,
    "snr": snr,
    "mean": mean,
}


@dataclass(frozen=True, eq=False)
class Scores(Mapping[str, "NDArray[np.float64]"]):
    """Scores by the name of the noise layer, each of shape (num_structures,), and what they mean.

    Attributes
    ----------
    criterion : Criterion
        Its name, symbol and direction.
    by_layer : dict of str to ndarray of float64
        The scores, those of structures pruned before too.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from bmrs_torch import insert_noise, scores
    >>> model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    >>> found = scores(insert_noise(model, torch.ones(2, 4)), "bmrs_n")
    >>> found.criterion.symbol, found["0.noise"].shape
    ('ΔF_N', (3,))
    """

    criterion: Criterion
    by_layer: dict[str, NDArray[np.float64]]

    def __getitem__(self, layer: str) -> NDArray[np.float64]:
        return self.by_layer[layer]

    def __iter__(self) -> Iterator[str]:
        return iter(self.by_layer)

    def __len__(self) -> int:
        return len(self.by_layer)

    def worth(self) -> dict[str, NDArray[np.float64]]:
        """What speaks for keeping each structure: the scores, turned round where they are evidence."""
        sign = -1.0 if self.criterion.is_evidence else 1.0
        return {name: sign * values for name, values in self.by_layer.items()}


def scores(
    model: nn.Module,
    criterion: str = "bmrs_n",
    *,
    example_inputs: Any = None,
    p1: int = P1,
    p2: int | None = P2,
    seed: int = 0,
) -> Scores:
    """Score every structure of every noise layer.

    Parameters
    ----------
    model : nn.Module
        A model with noise layers.
    criterion : str
        Of the noise, where h = θ·(wx + b) is the output of a structure:

        - ``"bmrs_n"``: ΔF_N in nats (Eq. 8), large where the evidence is against the structure;
        - ``"bmrs_u"``: ΔF_U in nats (Eq. 10 to 13), likewise;
        - ``"snr"``: E[θ]/√Var[θ] (Neklyudov et al., 2017);
        - ``"mean"``: E[θ].

        Of the layer before the noise (of a BatchNorm, w is γ), with the gradient of whatever
        ``loss.backward()`` was called on since the last ``zero_grad()``, summed over those batches:

        - ``"l2"``: ‖w‖₂ (Li et al., 2017);
        - ``"gradient"``: ‖∂L/∂w‖₂ (paper, App. E);
        - ``"l2_gradient"``: ‖w‖₂·‖∂L/∂w‖₂, which bounds the next one from above, biases aside;
        - ``"taylor"``: ``|w·∂L/∂w + b ∂L/∂b| = |θ ∂L/∂θ|``, the change of the loss to first order when the
          structure goes (Molchanov et al., 2019, who square it).

        ``"random"``: uniform on [0, 1), to compare with. The default is that of :func:`prune`.
    example_inputs : Tensor, tuple, list or dict, optional
        Of criteria of the layer before the noise, where that was put by hand: inputs to follow the model on.
    p1, p2 : int
        Of ``"bmrs_u"``: the reduced support is θ in [2⁻ᵖ², 2⁻ᵖ¹]; ``p2=None`` reaches down to the layer's
        lower bound. :func:`prune` says why 8 and 23.
    seed : int
        Of ``"random"``, at least 0; fixed, so that asking again gives the same.

    Returns
    -------
    Scores
        A mapping from the names of the noise layers to float64 arrays. All but ΔF are small where a structure
        matters little.

    Raises
    ------
    ValueError
        For an unknown criterion, an option it doesn't take, a model without noise layers, and naming the
        layer: parameters or scores that are not finite, no weights or gradients where they are needed.

    Examples
    --------
    >>> import torch
    >>> from bmrs_torch import MultiplicativeNoise, scores
    >>> layer = MultiplicativeNoise(2)
    >>> layer.mu.data[1], layer.log_sigma.data[1] = -18.0, 2.0
    >>> scores(layer, "mean")[""].round(3).tolist()
    [0.995, 0.007]
    """
    chosen = find_criterion(criterion)
    _check_options(chosen, p1, p2, seed)
    model = noise_alone(model) if chosen.source in ("noise", "nothing") else whole(model)
    layers = noise_layers(model)
    for name, layer in layers.items():
        _check_layer(name, layer)
    if chosen.source == "noise":
        options = {"p1": p1, "p2": p2} if chosen.name == "bmrs_u" else {}
        values = {name: _noise_score(chosen, layer, options) for name, layer in layers.items()}
    elif chosen.source == "nothing":
        generator = np.random.default_rng(seed)
        values = {name: generator.random(layer.num_structures) for name, layer in layers.items()}
    else:
        found = feeding_layers(model, layers, example_inputs)
        values = {name: _weight_score(chosen, layer) for name, layer in found.items()}
    return Scores(chosen, values)


def ranks(model_scores: Scores, *, within_layers: bool = False) -> dict[str, NDArray[np.int64]]:
    """Rank structures by their scores: 0 is the first to go.

    Parameters
    ----------
    model_scores : Scores
        What :func:`scores` returned.
    within_layers : bool
        Rank each layer by itself, not all layers together.

    Returns
    -------
    dict of str to ndarray of int64
        By the name of the noise layer. Of equal scores the earlier structure goes first.

    Examples
    --------
    >>> from bmrs_torch import MultiplicativeNoise, ranks, scores
    >>> layer = MultiplicativeNoise(3)
    >>> layer.mu.data[1] = -4.0
    >>> ranks(scores(layer, "snr"))[""].tolist(), ranks(scores(layer, "bmrs_n"))[""].tolist()
    ([1, 0, 2], [1, 0, 2])
    """
    worth = model_scores.worth()
    if within_layers:
        return {name: _order_of(values) for name, values in worth.items()}
    ends = np.cumsum([len(values) for values in worth.values()])
    together = _order_of(np.concatenate(list(worth.values())))
    return dict(zip(worth, np.split(together, ends[:-1]), strict=True))


def _order_of(worth: NDArray[np.float64]) -> NDArray[np.int64]:
    order = np.empty(worth.size, dtype=np.int64)
    order[np.argsort(worth, kind="stable")] = np.arange(worth.size)
    return order


def _check_options(criterion: Criterion, p1: int, p2: int | None, seed: int) -> None:
    check_whole("seed", seed, "a seed of NumPy", 0)
    check_whole("p1", p1, "a number of bits", 0)
    if p2 is not None:
        check_whole("p2", p2, "a number of bits", 1)
    changed = {"p1": p1 != P1, "p2": p2 != P2, "seed": seed != 0}
    accepted = {"bmrs_u": {"p1", "p2"}, "random": {"seed"}}.get(criterion.name, set())
    foreign = [option for option, given in changed.items() if given and option not in accepted]
    if foreign:
        raise ValueError(
            f"criterion {criterion.name!r} has no use for {', '.join(foreign)}: 'bmrs_u' takes p1 and p2, "
            "'random' takes seed"
        )


def _check_layer(name: str, layer: MultiplicativeNoise) -> None:
    try:
        check_parameters(layer.mu, layer.log_sigma)
    except ValueError as error:
        raise ValueError(f"noise layer {name or '(model)'!r} can't be judged: {error}") from error


def _noise_score(
    criterion: Criterion, noise: MultiplicativeNoise, options: dict[str, int | None]
) -> NDArray[np.float64]:
    mu = noise.mu.detach().double().cpu().numpy()
    sigma = np.exp(noise.log_sigma.detach().double().cpu().numpy())
    evaluate = _NOISE_SCORES[criterion.name]
    return np.asarray(evaluate(mu, sigma, log_a=noise.log_a, log_b=noise.log_b, **options))


@torch.no_grad()
def _weight_score(criterion: Criterion, feeding: FeedingLayer) -> NDArray[np.float64]:
    values: NDArray[np.float64] = _WEIGHT_SCORES[criterion.name](feeding).cpu().numpy()
    if not np.isfinite(values).all():
        first = int(np.flatnonzero(~np.isfinite(values))[0])
        raise ValueError(
            f"layer {feeding.name!r} can't be judged by {criterion.name!r}: the score of structure {first} "
            f"is {values[first]}, so its weights or gradients are not finite"
        )
    return values


def _l2(feeding: FeedingLayer) -> Tensor:
    norms: Tensor = feeding.weights().norm(dim=1)
    return norms


def _gradient(feeding: FeedingLayer) -> Tensor:
    norms: Tensor = feeding.weight_gradients().norm(dim=1)
    return norms


def _l2_gradient(feeding: FeedingLayer) -> Tensor:
    return _l2(feeding) * _gradient(feeding)


def _taylor(feeding: FeedingLayer) -> Tensor:
    change = (feeding.weights() * feeding.weight_gradients()).sum(dim=1)
    bias = feeding.bias_terms()
    return (change if bias is None else change + bias).abs()


_WEIGHT_SCORES: dict[str, Callable[[FeedingLayer], Tensor]] = {
    "l2": _l2,
    "gradient": _gradient,
    "l2_gradient": _l2_gradient,
    "taylor": _taylor,
}
