"""ΔF_N while σ grows from where training begins until the posterior is the prior."""

import matplotlib.pyplot as plt
import numpy as np

from bmrs_core import delta_f_normal
from bmrs_torch import HALF_LOG_2PI

log_sigma = np.linspace(-5, 6, 600)
figure, axes = plt.subplots(figsize=(7, 3.2), layout="constrained")
for mu, color in ((0.0, "#0072B2"), (-2.0, "#56B4E9"), (-6.0, "#D55E00")):
    axes.plot(
        log_sigma, delta_f_normal(mu, np.exp(log_sigma)), color=color, label=f"μ = {mu:g}".replace("-", "−")
    )
axes.axhline(0, color="black", lw=0.8)
axes.axhline(-HALF_LOG_2PI, color="black", lw=1, ls="--", label="−½ log 2π")
axes.set_yscale("symlog", linthresh=1)
axes.set(xlabel="log σ", ylabel="ΔF_N, nats", ylim=(-1e7, 2), xlim=(-5, 6))
axes.set_yticks([0, -1, -10, -1e3, -1e5, -1e7])
axes.legend(frameon=False, loc="lower right")
