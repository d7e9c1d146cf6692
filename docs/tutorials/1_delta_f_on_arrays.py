r"""
ΔF on arrays
============

A statistician's view: no network, no training, only a prior, a posterior and
the question which of two models the data prefer. Needs the plain install, and
matplotlib for the picture.

A *structure* of a network, a neuron for instance, is multiplied by a random
number :math:`\theta`. Its prior is log-uniform on :math:`[e^{-20}, 1]`:
:math:`x = \log\theta` is uniform on :math:`[-20, 0]`, which puts as much mass
between 0.001 and 0.01 as between 0.1 and 1. The posterior that variational
inference gives is log-normal, :math:`x \sim N(\mu, \sigma^2)`, truncated to the
same support.
"""

# sphinx_gallery_thumbnail_number = 2
import matplotlib.pyplot as plt
import numpy as np

from bmrs_core import (
    delta_f,
    delta_f_normal,
    delta_f_uniform,
    log_mass,
    logpdf,
    mean,
    snr,
)

# %%
# Three structures
# ----------------
# One that the data need, at :math:`\theta \approx 0.9`; one whose factor they
# put somewhere between 0.007 and 0.4; and one that they say nothing about, so
# that its posterior is nearly the prior.

names = ["needed", "unclear", "not needed"]
mu = np.array([-0.1, -3.0, -12.0])
sigma = np.array([0.01, 1.0, 30.0])

x = np.linspace(-20, 0, 2001)
for name, m, s in zip(names, mu, sigma, strict=True):
    log_density_of_x = (
        logpdf(np.exp(x), m, s) + x
    )  # a density over θ becomes one over x
    label = f"{name}: μ = {m:g}, σ = {s:g}"
    plt.semilogy(x, np.exp(log_density_of_x), label=label)
plt.axhline(1 / 20, color="black", lw=1, ls="--", label="prior")
plt.ylim(1e-3, 100)
plt.xlabel("x = log θ")
plt.ylabel("density of x")
plt.legend()
plt.show()

# %%
# The evidence for a smaller model
# --------------------------------
# Suppose the prior had been another one, :math:`\tilde p`, collapsed to the
# lower bound: the structure is gone. How much better would the model explain
# the data? Bayesian model reduction answers from the posterior that is there
# already, with no second fit (Eq. 6 of the paper):
#
# .. math:: \Delta F = \log \int q(x)\, \frac{\tilde p(x)}{p(x)}\, dx
#
# in nats. Positive: the data prefer the model without the structure.

for name, evidence in zip(names, delta_f_normal(mu, sigma), strict=True):
    print(f"{name:>10}: ΔF = {evidence:12.3f} nats")

# %%
# The last one is nearly uniform: its data say nothing about it, so its
# posterior is its prior, and then ΔF is 0 whatever the reduced prior. It stays
# a hair below 0. That is why the rule of a pruner has a tolerance, in nats, and
# the mathematics has none.
#
# Is it right? Three ways to check
# --------------------------------
# *By quadrature*, of any reduced prior you like, with an estimate of the error.
# Here it is a narrow normal at the lower bound:

scale = 1e-3


def narrow(x):
    """Log density over x of half a normal at the lower bound."""
    return -0.5 * ((x + 20) / scale) ** 2 - np.log(scale * np.sqrt(np.pi / 2))


value, error = delta_f(
    narrow, mu[1:], sigma[1:], points=-20 + scale * np.array([1, 3, 8])
)
print("quadrature   ", value, "±", error)
print("closed form  ", delta_f_normal(mu[1:], sigma[1:], sigma_p=scale))

# %%
# *By the Savage–Dickey ratio*: as the reduced prior narrows, ΔF becomes the log
# ratio of posterior to prior density at the point that it collapses to.

print("Savage–Dickey", logpdf(np.exp(-20.0), mu, sigma) - 20 + np.log(20))
print("closed form  ", delta_f_normal(mu, sigma))

# %%
# *By a probability*: for a log-uniform reduced prior on :math:`[2^{-23},
# 2^{-8}]` ΔF compares the mass that the posterior and the prior have there (Eq.
# 11).

low, high = -23 * np.log(2), -8 * np.log(2)
of_prior = np.log((high - low) / 20)
print("log ratio of masses", log_mass(low, high, mu, sigma) - of_prior)
print("delta_f_uniform    ", delta_f_uniform(mu, sigma))

# %%
# Evidence beside signal-to-noise
# -------------------------------
# Earlier work removes structures whose signal-to-noise ratio
# :math:`\mathrm{E}[\theta]/\sqrt{\mathrm{Var}[\theta]}` is below 1. Both as
# maps over the parameters: black is the rule ΔF = −½ log 2π ≈ −0.919, white the
# rule SNR = 1.

m = np.linspace(-22, 4, 261)
s = np.geomspace(1e-2, 100, 241)
evidence = delta_f_normal(m, s[:, None])
magnitude = np.sign(evidence) * np.log10(1 + abs(evidence))
shown = plt.contourf(m, s, magnitude, levels=30, cmap="RdBu_r")
plt.colorbar(shown, label="sign(ΔF) · log₁₀(1 + |ΔF|)")
solid = {"linewidths": 1.5, "linestyles": "solid"}
plt.contour(m, s, evidence, levels=[-0.9189385], colors="black", **solid)
plt.contour(m, s, snr(m, s[:, None]), levels=[1.0], colors="white", **solid)
plt.plot(mu, sigma, "kx")
offset = {"xytext": (5, 5), "textcoords": "offset points"}
for name, *place in zip(names, mu, sigma, strict=True):
    plt.annotate(name, place, **offset)
plt.yscale("log")
plt.xlabel("μ")
plt.ylabel("σ")
plt.show()

# %%
# ΔF is positive or near 0 above and to the left of the black line: where the
# posterior reaches down to the lower bound. The signal-to-noise ratio is below
# 1 above the white line: over most of the map it looks at σ alone, and removes
# whatever spreads by more than 0.83, wherever it is. So it removes the unclear
# structure, whose factor the data keep away from 0 by 142 nats. And it keeps a
# structure whose factor is zero for certain:

for m, s in ((-3.0, 1.0), (-22.0, 0.1)):
    print(f"μ = {m:g}, σ = {s:g}: E[θ] {mean(m, s):.2g},", end=" ")
    print(f"SNR {snr(m, s):.3g}, ΔF {delta_f_normal(m, s):.4g}")

# %%
# Other libraries
# ---------------
# What comes in decides what goes out: NumPy, torch, JAX and CuPy arrays of
# float32 or float64. ΔF is computed in float64 in any case, because its sign is
# a decision.

answer = delta_f_normal(mu.astype(np.float32), sigma.astype(np.float32))
print(answer.dtype, answer)
