"""The experiments as ``experiments.json`` has them: the runs of each table and figure, their settings."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

CURVES = "curves"
"""The method of runs after training: all criteria's curves of one trained network."""

CONTINUOUS, AFTER_TRAINING = "continuous", "after training"
_EXPERIMENTS = Path(__file__).with_name("experiments.json")
_OF_OBJECTIVE = ("share", "kl_scale", "kl_weight")


@dataclass(frozen=True)
class Method:
    """What decides which structures go.

    Attributes
    ----------
    title : str
        For tables and figures.
    criterion : str or None
        See :func:`bmrs_torch.scores`; None is the network without noise.
    limit : float or None
        A structure goes where its evidence reaches this, or where another score is below it. None: it ranks
        structures only.
    p1 : int
        Of ``"bmrs_u"``.
    as_many_as : str or None
        The method that says how many structures go, after the last epoch of training.
    """

    title: str
    criterion: str | None = None
    limit: float | None = None
    p1: int = 8
    as_many_as: str | None = None


@dataclass(frozen=True)
class Run:
    """A network trained and pruned once.

    Attributes
    ----------
    dataset, network, method : str
        By their names in ``experiments.json``.
    seed : int
        Of the split, the network and all noise.
    timing : {"continuous", "after training"}
        Pruned after each epoch of training, or after all of them.
    decisions : {"permanent", "anew"}
        Whether what is pruned stays so, as in Algorithm 1, or each pruning decides about all structures, as
        in the released code.
    share : {"element", "sample"}
        A θ for each activation, or for each structure and sample.
    kl_scale : {"published", "elbo"}
        See :func:`bmrs_torch.elbo_loss`.
    kl_weight : float
        Its multiple.
    """

    dataset: str
    network: str
    method: str
    seed: int
    timing: str = CONTINUOUS
    decisions: str = "permanent"
    share: str = "element"
    kl_scale: str = "published"
    kl_weight: float = 1.0

    @property
    def name(self) -> str:
        """The name of its record, a path without an ending: what isn't as in the paper is named in it."""
        plain = Run(self.dataset, self.network, self.method, self.seed)
        other = [
            f"{key}={value:g}" if isinstance(value, float) else f"{key}={value}"
            for key, value in asdict(self).items()
            if key != "timing" and value != getattr(plain, key)
        ]
        return "/".join((self.dataset, self.network, "-".join([self.method, *other, f"seed{self.seed}"])))


@lru_cache
def experiments() -> dict[str, Any]:
    """What the file says."""
    found: dict[str, Any] = json.loads(_EXPERIMENTS.read_text(encoding="utf-8"))
    return found


def method(name: str) -> Method:
    """A method by its name; of BMRS_U with any p1, ``bmrs_u_12`` for instance."""
    known: dict[str, dict[str, Any]] = experiments()["methods"]
    if name in known:
        said = dict(known[name])
    elif name.startswith("bmrs_u_") and name.removeprefix("bmrs_u_").isdecimal():
        p1 = int(name.removeprefix("bmrs_u_"))
        said = {**known["bmrs_u_8"], "title": f"BMRS_U-{p1}", "p1": p1}
    else:
        raise ValueError(f"method must be one of {', '.join(known)} or bmrs_u_<p1>, got {name!r}")
    limit = -said.pop("tolerance") if "tolerance" in said else said.pop("threshold", None)
    return Method(limit=limit, **said)


def settings(run: Run, overrides: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """All that decides what comes of a run, beside the program: the run, its hyperparameters, its rule."""
    known = experiments()
    of_network: dict[str, Any] = known["networks"][run.network][run.dataset]
    if run.method == CURVES:
        own: dict[str, Any] = {"curves": known["curves"]}
    else:
        rule = asdict(method(run.method))
        own = {"rule": {key: value for key, value in rule.items() if key != "title"}}
    of_training = {**known["training"], **of_network, "decisions": run.decisions}
    return {**asdict(run), **of_training, **own, **(overrides or {})}


def runs_of(experiment: str) -> list[Run]:
    """The runs of a table or figure: first one seed of everything, then the next."""
    said = experiments()["experiments"][experiment]
    options = {key: said[key] for key in ("timing", "decisions", *_OF_OBJECTIVE) if key in said}
    return [
        Run(dataset, network, name, seed, **options)
        for seed in range(said["seeds"])
        for network in said["networks"]
        for dataset in said["datasets"]
        if dataset in experiments()["networks"][network]
        for name in said["methods"]
    ]
