"""
Noise in a loop of your own
===========================

The training loop stays yours, and four lines are added: that is Algorithm 1 of
the paper. Needs scikit-learn for its images of digits, and matplotlib: ``pip
install '.[demo]'``.
"""

# sphinx_gallery_thumbnail_number = 2
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import cross_entropy

from bmrs_torch import (
    Pruner,
    Schedule,
    draw_evidence,
    insert_noise,
    load_pruned,
    parameter_groups,
    plan_insertion,
    report,
    save_pruned,
)

torch.manual_seed(0)
images, labels = load_digits(return_X_y=True)
images = torch.tensor(images, dtype=torch.float32) / 16
labels = torch.tensor(labels)
train, test = torch.randperm(len(images)).split([1400, 397])


def network():
    """Three linear layers on 64 pixels."""
    return nn.Sequential(
        nn.Linear(64, 100),
        nn.ReLU(),
        nn.Linear(100, 100),
        nn.ReLU(),
        nn.Linear(100, 10),
    )


# %%
# Where the noise goes
# --------------------
# :func:`~bmrs_torch.plan_insertion` says where noise would be put and what
# would be left out, and why, without touching anything;
# :func:`~bmrs_torch.insert_noise` does it. A layer stays what it is and where
# it is: the noise is its child.

model = network()
example = images[train[:64]]
print(plan_insertion(model, example))
model = insert_noise(model, example)
print(model)

# %%
# The loop
# --------
# The noise learns ten times faster than the weights: that is what
# :func:`~bmrs_torch.parameter_groups` sets. The weight of the divergence,
# ``kl_weight``, is the one dial between accuracy and size; here it is the
# default for 1,400 samples. From epoch 20 on the noise is fixed at its mean and
# only the weights learn.

optimizer = torch.optim.Adam(parameter_groups(model, lr=0.01))
schedule = Schedule(finetune_from=20)
pruner = Pruner(
    model, optimizer, num_samples=len(train), schedule=schedule
)  # 1
reports = []
for _ in range(25):
    model.train()
    for chosen in train[torch.randperm(len(train))].split(64):
        optimizer.zero_grad()
        misfit = cross_entropy(model(images[chosen]), labels[chosen])
        pruner.loss(misfit).backward()  # 2: adds the divergence
        optimizer.step()
    pruned = pruner.end_epoch()  # 3: prunes, if it is due
    reports += [pruned] if pruned is not None else []
print(pruner)
smaller = pruner.finish(example)  # 4: an ordinary network
print(smaller)

# %%
# What happened meanwhile
# -----------------------
# ``pruner.history`` has an entry of plain numbers for every epoch: divergence,
# quantiles of ΔF over what is kept, how near the rule the nearest structure is,
# which would go next. Loggers get the same: ``Pruner(..., log=...)``.

epochs = [entry["epoch"] for entry in pruner.history]
left, right = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")[1]
left.plot(epochs, [entry["num_kept"] for entry in pruner.history])
left.set(xlabel="epoch", ylabel="structures kept", ylim=(0, 205))
for q in ("q95", "q50", "q05"):
    evidence = [entry["delta_f"][q] for entry in pruner.history]
    right.plot(epochs, evidence, label=f"{int(q[1:])} % quantile")
right.axhline(-0.919, color="black", lw=1, label="rule")
right.set_yscale("symlog")
right.set(xlabel="epoch", ylabel="ΔF of what is kept, nats", ylim=(None, 3))
right.legend(loc="lower right")
plt.show()

# %%
# The structures with the score that they had when they went, or last. Most of
# what is kept lies far to the left of the line, so that a somewhat larger
# tolerance would take hardly more.

draw_evidence(reports, "evidence.png")

# %%
# Ship it
# -------
# One file of safetensors holds weights and widths, no pickled code. It is
# loaded into a network made by your own constructor.

with tempfile.TemporaryDirectory() as folder:
    file = save_pruned(smaller, Path(folder) / "small.safetensors")
    again = load_pruned(network, file)


def accuracy(net):
    """Share of the test images that are told right."""
    return (net(images[test]).argmax(1) == labels[test]).double().mean().item()


assert torch.equal(again(images), smaller(images))
print(report(network(), again, example))
print(f"test accuracy {accuracy(again):.1%}")
