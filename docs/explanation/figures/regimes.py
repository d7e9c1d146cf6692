"""The regimes of log Z and of the divergence over (μ, log σ), by the cut-overs of the formulas themselves."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import ListedColormap

from bmrs_core.formulas.normal import SHORT_WIDTH
from bmrs_core.formulas.truncated_lognormal import FLAT_SLOPE, FLAT_WIDTH

LOG_A, LOG_B = -20.0, 0.0

mu = np.linspace(-40, 20, 601)
log_sigma = np.linspace(-6, 6, 481)[:, None]
sigma = np.exp(log_sigma)
alpha, beta, w = (LOG_A - mu) / sigma, (LOG_B - mu) / sigma, (LOG_B - LOG_A) / sigma
h = abs(alpha + beta) / 2
in_tail = (mu <= LOG_A) | (mu >= LOG_B)

of_mass = np.where((w * h < 1) & (w < SHORT_WIDTH), 2, np.where(in_tail, 1, 0))
# The divergence bounds the slope w h, too, and the width.
of_divergence = np.where((w * h < FLAT_SLOPE) & (w < FLAT_WIDTH), 2, np.where(in_tail, 1, 0))

figure, panels = plt.subplots(1, 2, figsize=(8, 3.2), sharey=True, layout="constrained")
colors = ListedColormap(["#CFE3F1", "#F6D9C6", "#C9E8DC"])
for axes, found, title, last in (
    (panels[0], of_mass, "log Z", "short"),
    (panels[1], of_divergence, "KL(q‖p)", "nearly uniform"),
):
    axes.pcolormesh(mu, log_sigma[:, 0], found, cmap=colors, vmin=0, vmax=2, rasterized=True)
    axes.set(xlabel="μ", title=title)
    for name, x, y in (("interior", -10, -2.5), ("tail", -31, -1.5), ("tail", 10, -1.5), (last, -10, 5)):
        axes.text(x, y, name, ha="center", va="center")
    axes.plot(0, -5, "k.")
    axes.annotate("training begins", (0, -5), xytext=(4, 3), textcoords="offset points", fontsize=7)
panels[0].set(ylabel="log σ")
