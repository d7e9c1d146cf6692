"""Relative errors on the reference tables, of the package and of the formulas as printed, by kind of row."""

import matplotlib.pyplot as plt
import numpy as np

from benchmarks.arrays.accuracy import ours, printed
from tests.core.truth_tables import QUANTITIES, errors_in_eps, load

COLUMNS = ("logZ", "KL", "dF_N", "dF_U")
LEAST, MOST = 1e-2, 1e16  # in eps: a hundredth of a rounding, and no digit right
ANSWERS = ((printed, "#D55E00", "as printed", 0.2), (ours, "#0072B2", "bmrs_core", -0.2))

generator = np.random.default_rng(0)
tables = {domain: load(domain, "float64") for domain in ("training", "hostile")}
rows = [(domain, tag) for domain, table in tables.items() for tag in np.unique(table.columns["tag"])]
figure, panels = plt.subplots(2, 2, figsize=(8, 8), sharex=True, sharey=True, layout="constrained")
for axes, column in zip(panels.flat, COLUMNS, strict=True):
    quantity = next(one for one in QUANTITIES if one.column == column)
    for answer, color, name, shift in ANSWERS:
        for place, (domain, tag) in enumerate(rows):
            table = tables[domain]
            errors = errors_in_eps(table, quantity, answer(table, column))
            own = errors[table.columns["tag"][table.scored(column)] == tag]
            heights = place + shift + generator.uniform(-0.16, 0.16, own.size)
            label = name if place == 0 else None
            axes.scatter(np.clip(own, LEAST, MOST), heights, 3, color, alpha=0.4, lw=0, label=label)
    axes.set(xscale="log", title=quantity.name, xlim=(LEAST / 3, 5 * MOST))
    axes.axvline(1, color="black", lw=0.5)
    axes.axhline(sum(domain == "training" for domain, _ in rows) - 0.5, color="black", lw=0.7, ls=":")
    axes.set_xticks([1e-2, 1, 1e4, 1e8, 1e12, 1e16])
panels[0, 0].set_yticks(range(len(rows)), [tag.replace("_", " ") for _, tag in rows])
panels[0, 0].invert_yaxis()
panels[0, 0].legend(frameon=False, markerscale=4, loc="lower right")
for axes in panels[1]:
    axes.set(xlabel="error, eps·max(1, κ)")
