"""What of a masked network can be removed: a structure goes only if everything coupled to it is 0."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import compress
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import nn

from bmrs_torch.channels.calling import TrainingStep
from bmrs_torch.channels.network import FollowedNetwork, follow
from bmrs_torch.channels.reached import unreached_twins
from bmrs_torch.channels.trace import Balance
from bmrs_torch.channels.values import is_without_values, products_in_pieces, with_values
from bmrs_torch.layer import MultiplicativeNoise, noise_layers
from bmrs_torch.wrapping import whole

if TYPE_CHECKING:
    from bmrs_torch.channels.labels import Bools, Ints

KEEPS_ONE = "a layer has to keep at least one"


@dataclass(frozen=True)
class LayerRemoval:
    """What of one noise layer can be removed.

    Attributes
    ----------
    name : str
        Name of the noise layer.
    num_structures : int
        Structures it has now.
    removed : tuple of int
        Those to remove.
    retained : tuple of (int, str)
        Structures that are masked but have to stay, each with the reason.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from bmrs_torch import insert_noise, plan_compaction
    >>> x = torch.ones(2, 4)
    >>> model = insert_noise(nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)), x)
    >>> model[0].noise.mask[1] = 0
    >>> layer = plan_compaction(model, x).layers[0]
    >>> layer.name, layer.removed, layer.retained
    ('0.noise', (1,), ())
    """

    name: str
    num_structures: int
    removed: tuple[int, ...]
    retained: tuple[tuple[int, str], ...]

    def __str__(self) -> str:
        text = f"{self.name}: remove {len(self.removed)} of {self.num_structures}"
        reasons = dict.fromkeys(reason for _, reason in self.retained)
        for reason in reasons:
            number = sum(why == reason for _, why in self.retained)
            text += f"; {number} masked but not removable: {reason}"
        return text


@dataclass(frozen=True)
class CompactionPlan:
    """What :func:`compact` removes from each layer, and what it can't. Print it to read it.

    Attributes
    ----------
    layers : tuple of LayerRemoval
        Every noise layer.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from bmrs_torch import insert_noise, plan_compaction
    >>> x = torch.ones(2, 4)
    >>> model = insert_noise(nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)), x)
    >>> model[0].noise.mask[1] = 0
    >>> print(plan_compaction(model, x))
    0.noise: remove 1 of 3
    """

    layers: tuple[LayerRemoval, ...]

    @property
    def removed(self) -> int:
        """How many structures of noise layers are removed."""
        return sum(len(layer.removed) for layer in self.layers)

    @property
    def retained(self) -> int:
        """How many structures are masked but have to stay."""
        return sum(len(layer.retained) for layer in self.layers)

    def __str__(self) -> str:
        return "\n".join(map(str, self.layers))


def plan_compaction(
    model: nn.Module, example_inputs: Any, *, training_step: TrainingStep | None = None
) -> CompactionPlan:
    """Say what :func:`compact` would remove, and which masked structures it can't remove and why.

    Parameters
    ----------
    model : nn.Module
        A model with noise layers; it is left as it is. Of a wrapped one, what is inside is meant. One without
        values, on the meta device or of fake tensors, is planned for by its shapes; the masks need values.
    example_inputs : Tensor, tuple, list or dict
        One input, positional inputs, or keyword inputs, on which the model is run.
    training_step : callable, optional
        As of :func:`compact`.

    Returns
    -------
    CompactionPlan

    Raises
    ------
    ValueError
        If the model has no noise layers.
    TypeError
        For example inputs of another kind.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from bmrs_torch import insert_noise, plan_compaction
    >>> model = insert_noise(nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)), torch.ones(2, 4))
    >>> model[0].noise.mask[1] = 0
    >>> print(plan_compaction(model, torch.ones(2, 4)))
    0.noise: remove 1 of 3
    """
    noise_layers(model)
    model = whole(model)
    if is_without_values(model):
        with products_in_pieces():
            model, example_inputs = with_values(model, example_inputs)
            selection = select(model, example_inputs, training_step=training_step)
        return selection.plan(selection.removable)
    selection = select(model, example_inputs, training_step=training_step)
    return selection.plan(selection.removable)


def select(
    model: nn.Module,
    example_inputs: Any,
    *,
    training: bool = False,
    training_step: TrainingStep | None = None,
) -> Selection:
    """What may go of a model, as it is followed with what is masked closed.

    Parameters
    ----------
    model : nn.Module
        With noise layers; it is left as it is.
    example_inputs, training, training_step
        As of :func:`follow`.
    """
    layers = noise_layers(model)
    network = follow(model, example_inputs, training=training, training_step=training_step, routed=True)
    selection = Selection(network, layers)
    shared = _shared_by_experts(model, network)
    reasons = {root: shared[root] for root in selection.possible & shared.keys()}
    return selection.only(selection.removable - reasons.keys(), reasons)


def _shared_by_experts(model: nn.Module, network: FollowedNetwork) -> dict[int, str]:
    """Classes that experts have in common, where some expert was never reached: it has them, too."""
    common: dict[int, str] = {}
    for name, twins in unreached_twins(model, network.parameters).items():
        number: Counter[int] = Counter()
        for twin in twins:
            stored = [axes for name, axes in network.parameters.items() if name.rpartition(".")[0] == twin]
            labels = [network.labels.roots(axis.labels) for axes in stored for axis in axes]
            number.update({root for each in labels for root in each.tolist()})
        shared = [root for root, times in number.items() if times > 1 or len(twins) == 1]
        why = f"the example never reached {name!r}, which shares it with others of its kind, as experts do"
        common |= dict.fromkeys(shared, why)
    return common


class Selection:
    """Which classes of channels go.

    Parameters
    ----------
    network : FollowedNetwork
        As followed with the masked structures closed.
    layers : dict of str to MultiplicativeNoise
        Noise layers by name.

    Attributes
    ----------
    possible : set of int
        Representatives of the classes of which nothing is known by which any of them couldn't go.
    removable : set of int
        Those that go: of `possible` not the last of a layer, nor what would make groups uneven.
    reasons : dict of int to str
        Why classes that have masked structures stay.
    """

    def __init__(self, network: FollowedNetwork, layers: dict[str, MultiplicativeNoise]) -> None:
        self.network = network
        self.layers = layers
        self.reasons: dict[int, str] = {}
        self.possible = self._masked() - self._prevented()
        self.removable = set(self.possible)
        self._settle()

    def _members(self) -> Iterator[tuple[str, int, int]]:
        """Name of the noise layer, structure and class."""
        for name, labels in self.network.gates.items():
            for structure, root in enumerate(self.network.labels.roots(labels).tolist()):
                yield name, structure, root

    def _masked(self) -> set[int]:
        """Classes all of whose structures are masked."""
        kept = {name: layer.kept().tolist() for name, layer in self.layers.items()}
        dead: set[int] = set()
        alive: dict[int, str] = {}
        for name, structure, root in self._members():
            if kept[name][structure]:
                alive.setdefault(root, name)
            else:
                dead.add(root)
        bound = self.network.labels.bound()
        for root in dead & alive.keys():
            self.reasons[root] = f"it is coupled to structures of {alive[root]!r} that are not masked"
            self.reasons[root] += f": {bound[root]}" if root in bound else ""
        return dead - alive.keys()

    def _prevented(self) -> set[int]:
        obstacles, live, reopened = self.network.obstacles(), self.network.live(), self.network.reopened()
        roots = self.network.labels.roots
        units = {name: set(roots(labels).tolist()) for name, labels in self.network.states.items()}
        for root, place in live.items():
            why = f"it is not 0 where {place!r} takes it: "
            if root in units.get(place, ()):
                why = f"{place!r} takes it as its own state of the step before, where noise on its output "
                why += f"doesn't reach (insert_noise(where=[{place!r}]) puts noise on both)"
            elif root in reopened:
                why += f"{reopened[root]} 0 becomes something else "
                why += "(f(0) ≠ 0, a bias or a normalisation after the noise)"
            else:
                why += "a layer without noise adds to the same structures"
            self.reasons.setdefault(root, why)
        self.reasons.update(obstacles)
        return obstacles.keys() | live.keys()

    def _settle(self) -> None:
        """Give back channels until every layer keeps one and every division stays even."""
        self._gone = np.zeros(self.network.labels.number, dtype=np.bool_)
        self._gone[list(self.removable)] = True
        limits = [
            limit
            for limit in self._limits()
            if any(self._gone[piece].any() for row in limit.rows for piece in row)
        ]
        changed = True
        while changed:
            changed = False
            for limit in limits:
                for row in self._balanced(limit):
                    changed |= self._give_back(row, limit.reason)

    def _limits(self) -> Iterator[Balance]:
        roots = self.network.labels.roots
        for axes in self.network.parameters.values():
            for axis in axes:
                yield Balance(((roots(axis.labels),),), KEEPS_ONE)
        for grouped in self.network.grouped.values():
            yield Balance(((roots(grouped.labels),),), KEEPS_ONE)
        for balance in self.network.balances:
            yield replace(balance, rows=tuple(tuple(map(roots, row)) for row in balance.rows))

    def _balanced(self, limit: Balance) -> list[list[Ints]]:
        """Its rows without the groups that go as a whole."""
        groups = zip(*limit.rows, strict=True)
        stay = [not (limit.whole and all(self._gone[piece].all() for piece in group)) for group in groups]
        rows = [list(compress(row, stay)) for row in limit.rows]
        return [row for row in rows if row]

    def _give_back(self, pieces: list[Ints], reason: str) -> bool:
        gone = [piece[self._gone[piece]] for piece in pieces]
        limit = min([*(dead.size for dead in gone), pieces[0].size - 1])
        for dead in gone:
            for root in dict.fromkeys(dead[: dead.size - limit].tolist()):
                self._gone[root] = False
                self.removable.discard(root)
                self.reasons[root] = reason
        return any(dead.size > limit for dead in gone)

    def goes(self, roots: Ints) -> Bools:
        """Which of these classes go."""
        return self._gone[roots]

    def families(self) -> list[set[int]]:
        """The classes that go, by the noise layers they lie in."""
        layers: dict[int, list[str]] = {}
        for name, _, root in self._members():
            if root in self.removable:
                layers.setdefault(root, []).append(name)
        families: dict[tuple[str, ...], set[int]] = {}
        for root, names in layers.items():
            families.setdefault(tuple(dict.fromkeys(names)), set()).add(root)
        return list(families.values())

    def layers_of(self, classes: set[int]) -> list[str]:
        """Names of the noise layers that have structures in these classes."""
        return list(dict.fromkeys(name for name, _, root in self._members() if root in classes))

    def only(self, removable: set[int], reasons: Mapping[int, str]) -> Selection:
        """A selection of which only these go, with the reasons why the others stay."""
        other = object.__new__(Selection)
        other.network, other.layers = self.network, self.layers
        other.reasons = {**self.reasons, **reasons}
        other.possible = self.possible - reasons.keys()
        other.removable = set(removable)
        other._settle()
        return other

    def plan(self, removable: set[int]) -> CompactionPlan:
        """Tell it by noise layer."""
        removals = []
        roots = self.network.labels.roots
        for name, layer in self.layers.items():
            dead = np.flatnonzero(~layer.kept().cpu().numpy()).tolist()
            if name not in self.network.gates:
                reasons = tuple((i, "it takes no part in the forward pass") for i in dead)
                removals.append(LayerRemoval(name, layer.num_structures, (), reasons))
                continue
            classes = roots(self.network.gates[name]).tolist()
            removed = tuple(i for i in dead if classes[i] in removable)
            retained = tuple((i, self.reasons[classes[i]]) for i in dead if classes[i] not in removable)
            removals.append(LayerRemoval(name, layer.num_structures, removed, retained))
        return CompactionPlan(tuple(removals))
