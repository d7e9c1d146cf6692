"""
A trained network, to a budget
==============================

There is a trained network, and it should cost a third.
:func:`~bmrs_torch.prune_trained` does that in one call: noise for a short
while, structures go little by little in the order of evidence lost per cost
saved, then the smaller network recovers. Needs scikit-learn for its images of
digits, and matplotlib: ``pip install '.[demo]'``.
"""

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from bmrs_torch import Budget, draw_evidence, draw_layers, prune_trained, report

torch.manual_seed(0)

# %%
# A trained network
# -----------------
# 1,797 images of 8×8 pixels: a part to train on, a part to choose by, a part
# that is looked at once.

images, labels = load_digits(return_X_y=True)
images = torch.tensor(images, dtype=torch.float32).view(-1, 1, 8, 8) / 16
labels = torch.tensor(labels)
order = torch.randperm(len(images))
train, validation, test = (
    TensorDataset(images[i], labels[i]) for i in order.split([1200, 297, 300])
)
batches = DataLoader(train, batch_size=64, shuffle=True)


def network():
    """Two convolutions and two linear layers, wider than they need be."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(128, 64),
        nn.ReLU(),
        nn.Linear(64, 10),
    )


def loss(net, batch):
    """Mean negative log-likelihood of a minibatch."""
    return cross_entropy(net(batch[0]), batch[1])


def accuracy(net, data=validation):
    """Share of images that are told right."""
    inputs, answers = data.tensors
    net.eval()
    with torch.no_grad():
        right = net(inputs).argmax(1) == answers
    return right.double().mean().item()


trained = network()
optimizer = torch.optim.Adam(trained.parameters(), lr=0.003)
for _ in range(10):
    trained.train()
    for batch in batches:
        optimizer.zero_grad()
        loss(trained, batch).backward()
        optimizer.step()
print(f"validation accuracy {accuracy(trained):.1%}")

# %%
# One call
# --------
# The budget is a part of the multiply-adds. ``validate`` chooses the best
# epoch: never give it the test images.

found = prune_trained(
    trained,
    batches,
    loss,
    budget=Budget(macs=0.33),
    epochs=12,
    lr=0.005,
    validate=accuracy,
)
print(found)

# %%
# What came of it
# ---------------
# ``found.model`` is an ordinary ``nn.Sequential`` with narrower layers;
# :func:`~bmrs_torch.report` measures it beside the network before.

example = validation.tensors[0][:64]
comparison = report(
    trained,
    found.model,
    example,
    metrics={"test accuracy": lambda net: accuracy(net, test)},
)
print(comparison)

# %%
# Where it went:

draw_layers(comparison, "layers.png")

# %%
# And by what it was decided. Blue was kept, orange went. Under a budget there
# is no line: what goes is what loses least evidence *for the work it saves*, so
# a structure with a ΔF far below 0 may go if it is dear, and one near 0 may
# stay if it costs next to nothing.

draw_evidence(found.decision, "evidence.png")

# %%
# A budget can limit several things at once, ``Budget(macs=0.5, bytes="40
# kB")``, or a measured time, ``latency="5 ms"``. What can't be reached is said,
# with the least that can and what stands in the way, and nothing is changed
# then:

try:
    prune_trained(
        trained,
        batches,
        loss,
        budget=Budget(parameters=0.001),
        epochs=1,
        lr=0.005,
    )
except ValueError as error:
    print(error)
