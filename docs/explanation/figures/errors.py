"""Relative errors on the reference tables, of the package and of the formulas as printed, by kind of row."""

import matplotlib.pyplot as plt
import numpy as np

from benchmarks.arrays.accuracy import ours, printed
from tests.core.truth_tables import QUANTITIES, errors_in_eps, load

COLUMNS = ("logZ", "KL", "dF_N", "dF_U")
LEAST, MOST = 1e-2, 1e16  # in eps: a hundredth of a rounding, and no digit right

generator = np.random.default_rng(0)
quantities = [quantity for quantity in QUANTITIES if quantity.column in COLUMNS]
rows = [(domain, tag) for domain in ("training", "hostile") for tag in np.unique(load(domain, "float64").columns["tag"])]
figure, panels = plt.subplots(1, 4, figsize=(10, 4.2), sharey=True, layout="constrained")
for axes, quantity in zip(panels, quantities, strict=True):
    for answer, color, name, shift in ((printed, "#D55E00", "as printed", 0.18), (ours, "#0072B2", "bmrs_core", -0.18)):
        for place, (domain, tag) in enumerate(rows):
            table = load(domain, "float64")
            errors = errors_in_eps(table, quantity, answer(table, quantity.column))
            own = errors[table.columns["tag"][table.scored(quantity.column)] == tag]
            heights = place + shift + generator.uniform(-0.14, 0.14, own.size)
            axes.scatter(
                np.clip(own, LEAST, MOST), heights, s=1.5, color=color, alpha=0.35, linewidths=0, rasterized=True,
                label=name if place == 0 else None,
            )
    axes.set(xscale="log", xlabel="error, eps·max(1, κ)", title=quantity.name, xlim=(LEAST / 2, 3 * MOST))
    axes.set_xticks([1e-2, 1, 1e4, 1e8, 1e16])
    axes.axvline(1, color="black", lw=0.5)
    axes.axhline(sum(domain == "training" for domain, _ in rows) - 0.5, color="black", lw=0.5, ls=":")
panels[0].set_yticks(range(len(rows)), [tag.replace("_", " ") for _, tag in rows])
panels[0].invert_yaxis()
panels[-1].legend(frameon=False, markerscale=5, loc="lower right")
