"""The prior, two posteriors and the reduced prior of BMRS_N, over x = log θ."""

import matplotlib.pyplot as plt
import numpy as np

from bmrs_core import logpdf

x = np.linspace(-20, 0, 4001)
theta = np.exp(x)
figure, axes = plt.subplots(figsize=(7, 3.2), layout="constrained")
axes.axhline(1 / 20, color="black", lw=1.2, label="prior p: log-uniform")
for label, color, mu, sigma in (
    ("posterior q, the data need it: μ = −0.2, σ = 0.3", "#0072B2", -0.2, 0.3),
    ("posterior q, they say little: μ = −9, σ = 12", "#D55E00", -9.0, 12.0),
    ("reduced prior p̃: at the lower bound", "#009E73", -20.0, 0.3),
):
    axes.plot(x, np.exp(logpdf(theta, mu, sigma) + x), color=color, label=label)
axes.set(xlabel="x = log θ", ylabel="density of x", yscale="log", ylim=(5e-3, 5), xlim=(-20.2, 0.2))
axes.legend(frameon=False)
