"""Relative errors of log Z and of the divergence on both sides of the cut-overs between their regimes."""

import matplotlib.pyplot as plt
import numpy as np

from benchmarks.arrays.accuracy import ours
from bmrs_core.formulas.normal import SHORT_WIDTH
from bmrs_core.formulas.truncated_lognormal import FLAT_SLOPE, FLAT_WIDTH
from tests.core.truth_tables import QUANTITIES, errors_in_eps, load

COLORS = ("#0072B2", "#D55E00", "#009E73")

figure, panels = plt.subplots(1, 2, figsize=(8, 3.4), sharey=True, layout="constrained")
for axes, column, slope, width, names in (
    (panels[0], "logZ", 1.0, SHORT_WIDTH, ("interior", "tail", "short")),
    (panels[1], "KL", FLAT_SLOPE, FLAT_WIDTH, ("interior", "tail", "nearly uniform")),
):
    quantity = next(one for one in QUANTITIES if one.column == column)
    for domain in ("training", "hostile"):
        table = load(domain, "float64")
        log_a, log_b, mu, sigma = table.inputs("a", "b", "mu", "sigma")
        with np.errstate(over="ignore"):
            w = (log_b - log_a) / sigma
            wh = w * abs((log_a - mu) / sigma + (log_b - mu) / sigma) / 2
        is_last = (wh < slope) & (w < width)
        regime = np.where(is_last, 2, np.where((mu <= log_a) | (mu >= log_b), 1, 0))
        rows = table.scored(column)
        errors = np.clip(errors_in_eps(table, quantity, ours(table, column)), 1e-3, None)
        for number, name in enumerate(names):
            own = regime[rows] == number
            label = name if domain == "training" else None
            axes.scatter(wh[rows][own], errors[own], 3, COLORS[number], alpha=0.4, lw=0, label=label)
    axes.axvline(slope, color="black", lw=0.7)
    axes.set(xscale="log", yscale="log", xlim=(1e-6, 1e8), xlabel="w·h", title=quantity.name)
    axes.axhline(1, color="black", lw=0.5, ls=":")
    axes.legend(frameon=False, markerscale=4, loc="lower right")
panels[0].set(ylabel="error, eps·max(1, κ)")
