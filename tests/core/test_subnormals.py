"""No text makes a number below the normal range on the way to a result inside it.

Such a number costs a microcode assist on many processors, for every vector that holds one, and has lost
digits besides. They are counted by NumPy, whatever the machine makes of them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest

from bmrs_core.backends.array_api import LOG_SMALLEST_NORMAL
from bmrs_core.backends.clone import clone_formulas, scalar_constants
from bmrs_core.backends.formula import FORMULAS
from bmrs_core.formulas.constants import FLOAT64_RULES

from .truth_tables import DOMAINS, Array, load

SMALLEST_NORMAL = np.finfo(np.float64).smallest_normal


class Watched(np.ndarray[Any, Any]):
    """An array whose operations mark the elements that fall below the normal range."""

    fallen: Array | None = None

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> Any:
        operands = [np.asarray(value) for value in inputs]
        result = np.asarray(getattr(ufunc, method)(*operands, **options))
        if Watched.fallen is not None and result.dtype == np.float64:
            Watched.fallen |= _falls(ufunc, operands, result)
        return result.view(Watched)


def _falls(ufunc: np.ufunc, operands: list[Array], result: Array) -> Array:
    """Which elements are subnormal, or 0 because what they should be is below that."""
    subnormal = (result != 0) & (np.abs(result) < SMALLEST_NORMAL)
    if ufunc is np.exp:
        return np.asarray(subnormal | ((result == 0) & np.isfinite(operands[0])))
    if ufunc in (np.multiply, np.divide):
        vanished = (result == 0) & (operands[0] != 0) & (operands[1] != 0)
        return np.asarray(subnormal | (vanished & np.isfinite(operands[1])))
    return np.asarray(subnormal)


def _where(condition: Any, x: Any, y: Any) -> Any:
    return np.where(np.asarray(condition), np.asarray(x), np.asarray(y)).view(Watched)


def _decay(x: Any) -> Any:
    below = x < LOG_SMALLEST_NORMAL
    return _where(below, 0.0, np.exp(_where(below, 0.0, x)))


PRIMITIVES: dict[str, Callable[..., Any]] = {
    "absolute": np.abs,
    "decay": _decay,
    "exp": np.exp,
    "expm1": np.expm1,
    "log": np.log,
    "log1p": np.log1p,
    "maximum": np.maximum,
    "minimum": np.minimum,
    "sqrt": np.sqrt,
    "where": _where,
}
TEXTS = clone_formulas(PRIMITIVES, scalar_constants(), FLOAT64_RULES, lambda text: text, __name__)

POSTERIOR = ("mu", "sigma", "a", "b")
INPUTS = {
    "quantile": ("u", *POSTERIOR),
    "log_quantile": ("u", *POSTERIOR),
    "log_quantile_grad": ("u", *POSTERIOR),
    "log_density": ("a2", *POSTERIOR),
    "logpdf": ("theta", *POSTERIOR),
    "logpdf_grad": ("theta", *POSTERIOR),
    "pdf": ("theta", *POSTERIOR),
    "cdf": ("theta", *POSTERIOR),
    "logcdf": ("theta", *POSTERIOR),
    "sf": ("theta", *POSTERIOR),
    "logsf": ("theta", *POSTERIOR),
    "log_mass": ("a2", "b2", *POSTERIOR),
    "log_ndtr_diff": ("alpha", "beta"),
    "log_erf_diff": ("alpha", "beta"),
    "reduced_prior": ("a", "sp", "a", "b"),
    "delta_f_normal": ("mu", "sigma", "a", "sp", "j_p", "first", "second", "a", "b"),
    "delta_f_uniform": ("mu", "sigma", "a2", "b2", "a", "b"),
    "delta_f_gaussian": ("mu", "sigma", "a", "b2", "a", "sp"),
    "reduced_posterior": ("mu", "sigma", "a", "sp", "a", "b"),
    "log_uniform_pdf": ("theta", "a", "b"),
    "log_uniform_cdf": ("theta", "a", "b"),
    "log_uniform_quantile": ("u", "a", "b"),
}
# Whether theta lies in the support is asked in theta, as it was given: e^a and e^b are among their results.
COMPARED_WITH_BOUNDS = (
    "logpdf",
    "logpdf_grad",
    "pdf",
    "cdf",
    "sf",
    "logsf",
    "log_uniform_pdf",
    "log_uniform_quantile",
)
# Powers of e and gradients are 0 where they are below the range. Not so the others: log Z is 0 for most of
# what a network learns, and must not fall on the way there.
MAY_VANISH = ("mean", "variance", "snr", "quantile", *COMPARED_WITH_BOUNDS)


@cache
def _columns(domain: str) -> dict[str, Array]:
    table = load(domain, "float64")
    names = ("a", "b", "mu", "sigma", "u", "a2", "b2", "sp")
    found = dict(zip(names, table.inputs(*names), strict=True))
    found["alpha"] = (found["a"] - found["mu"]) / found["sigma"]
    found["beta"] = (found["b"] - found["mu"]) / found["sigma"]
    with np.errstate(under="ignore", over="ignore"):
        found["theta"] = np.exp(found["a2"])
        prior = TEXTS["reduced_prior"](found["a"], found["sp"], found["a"], found["b"])
    return found | {
        name: np.asarray(part) for name, part in zip(("j_p", "first", "second"), prior, strict=True)
    }


def _parts(name: str, inputs: list[Array]) -> list[tuple[str, Array]]:
    """Each text of a formula with the rows that it is evaluated on."""
    formula = FORMULAS[name]
    every = np.ones(len(inputs[0]), bool)
    if not formula.regimes:
        return [(name, every)]
    chosen = np.zeros(len(inputs[0]), int)
    regimes = ("common", *formula.regimes, *formula.shortcuts)
    for i, regime in enumerate(regimes[1:], 1):
        chosen[np.asarray(TEXTS[f"{name}_is_{regime}"](*inputs))] = i
    rows = [chosen == i for i in range(len(regimes))]
    return [
        (f"{name}_{regime}", every if i == 0 and not formula.partitioned else rows[i])
        for i, regime in enumerate(regimes)
    ]


def _subnormal(values: Any) -> Array:
    """Where any of some arrays is."""
    magnitudes = np.abs(np.array([np.asarray(x) for x in values]))
    return np.asarray(np.any((magnitudes != 0) & (magnitudes < SMALLEST_NORMAL), axis=0))


def _may_fall(name: str, inputs: list[Array], results: tuple[Any, ...]) -> Array:
    """Which rows are given, or have as a result, a number below the normal range."""
    ends = [*inputs, *results]
    if name in COMPARED_WITH_BOUNDS:
        ends += [np.exp(bound) for bound in inputs[-2:]]
    if name == "log_erf_diff":
        ends.append(TEXTS["log_ndtr_diff"](*[x * np.sqrt(2.0) for x in inputs]))
    may = _subnormal(ends)
    if len(results) > 1 or name in MAY_VANISH:
        may |= np.any([np.asarray(x) == 0 for x in ends[len(inputs) :]], axis=0)
    return may


def _evaluated(text: str, inputs: list[Array]) -> tuple[Any, ...]:
    result = TEXTS[text](*[x.view(Watched) for x in inputs])
    return result if isinstance(result, tuple) else (result,)


@pytest.mark.parametrize("domain", DOMAINS)
@pytest.mark.parametrize("name", FORMULAS)
@np.errstate(over="ignore", invalid="ignore", divide="ignore")
def test_no_text_falls_below_the_normal_range_on_its_way(
    name: str, domain: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = [_columns(domain)[column] for column in INPUTS.get(name, POSTERIOR)]
    with np.errstate(under="ignore"):
        for text, rows in _parts(name, inputs):
            given = [x[rows] for x in inputs]
            monkeypatch.setattr(Watched, "fallen", np.zeros(len(given[0]), bool))
            results = _evaluated(text, given)
            fallen = Watched.fallen
            monkeypatch.setattr(Watched, "fallen", None)
            must_not = ~_may_fall(name, given, results)
            assert np.count_nonzero(fallen & must_not) == 0, text
            with np.errstate(under="raise"):
                _evaluated(text, [x[must_not] for x in given])


@pytest.mark.parametrize(
    ("function", "falls"),
    [
        (lambda x: x * 1e-110, [True, False, False]),
        (lambda x: x * x, [True, False, False]),
        (lambda x: np.exp(-720.0 * x), [False, True, False]),
        (lambda x: np.exp(-800.0 * x), [False, True, False]),
        (lambda x: x * 1e-107, [False, False, False]),
    ],
)
def test_what_falls_is_marked(
    function: Callable[[Any], Any], falls: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Watched, "fallen", np.zeros(3, bool))
    with np.errstate(under="ignore"):
        function(np.array([1e-200, 1.0, 0.0]).view(Watched))
    assert Watched.fallen is not None
    assert Watched.fallen.tolist() == falls
