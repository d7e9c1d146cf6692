"""
Lightning and the Trainer
=========================

Where a framework owns the loop, a callback does what
:class:`~bmrs_torch.Pruner` does in your own. Needs both frameworks, and
matplotlib: ``pip install '.[report,integrations]'``.
"""

import logging
import tempfile
import warnings

import lightning
import matplotlib.pyplot as plt
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from transformers import Trainer, TrainingArguments

from bmrs_torch import Schedule, insert_noise, parameter_groups
from bmrs_torch.integrations import lightning as for_lightning
from bmrs_torch.integrations import transformers as for_trainer

torch.manual_seed(0)
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
# About workers and loggers that this page doesn't need.
warnings.filterwarnings("ignore", module="lightning")

# %%
# Lightning
# ---------
# The module puts the noise in itself and gives its optimizer the groups of
# :func:`~bmrs_torch.parameter_groups`. Its loss stays as it is: the callback
# adds the divergence's gradient.

x = torch.randn(2000, 16)
y = (x[:, 0] * x[:, 1] > 0).long()  # two of sixteen inputs matter


def network():
    """More hidden units than two inputs need."""
    return nn.Sequential(nn.Linear(16, 60), nn.ReLU(), nn.Linear(60, 2))


class Classifier(lightning.LightningModule):
    """A network with noise."""

    def __init__(self):
        super().__init__()
        self.net = insert_noise(network(), x[:32])

    def training_step(self, batch, _):
        """Loss of a minibatch, without the divergence."""
        return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

    def configure_optimizers(self):
        """The noise learns ten times faster."""
        return torch.optim.Adam(parameter_groups(self, lr=0.01))


callback = for_lightning.PruningCallback(
    num_samples=len(x), schedule=Schedule(finetune_from=12)
)
trainer = lightning.Trainer(
    max_epochs=15,
    callbacks=[callback],
    accelerator="cpu",
    logger=False,
    enable_checkpointing=False,
    enable_progress_bar=False,
    enable_model_summary=False,
)
trainer.fit(
    Classifier(), DataLoader(TensorDataset(x, y), batch_size=64, shuffle=True)
)
smaller = callback.pruner.finish(x[:32])
print(smaller)
accuracy = (smaller(x).argmax(1) == y).double().mean()
print(f"accuracy {accuracy:.1%} on its training data")

# %%
# A logger gets ``bmrs/kept``, ``bmrs/kl``, ``bmrs/delta_f/q50`` and more after
# each epoch, and callbacks such as early stopping can watch them. Checkpoints
# hold the pruner's state, so that a run that is resumed goes on where it was.

print(
    {name: round(value, 3) for name, value in callback.pruner.scalars().items()}
)

# %%
# The Trainer of Hugging Face
# ---------------------------
# It trains whatever module gives a loss; the page before this one has a BERT.
# The noise is put in before the Trainer is made, and the optimizer is given to
# it.


class WithLoss(nn.Module):
    """The same network, as the Trainer wants it."""

    def __init__(self):
        super().__init__()
        self.net = network()

    def forward(self, x, labels):
        """Loss and answers of a minibatch."""
        logits = self.net(x)
        return {
            "loss": nn.functional.cross_entropy(logits, labels),
            "logits": logits,
        }


data = [{"x": row, "labels": label} for row, label in zip(x, y, strict=True)]
example = {"x": x[:32], "labels": y[:32]}
model = insert_noise(WithLoss(), example)

callback = for_trainer.PruningCallback(
    num_samples=len(data), schedule=Schedule(finetune_from=12)
)
with tempfile.TemporaryDirectory() as folder:
    trainer = Trainer(
        model,
        TrainingArguments(
            folder,
            num_train_epochs=15,
            per_device_train_batch_size=64,
            report_to=[],
            save_strategy="no",
            disable_tqdm=True,
            use_cpu=True,
            logging_strategy="no",
        ),
        train_dataset=data,
        callbacks=[callback],
        optimizers=(torch.optim.Adam(parameter_groups(model, lr=0.01)), None),
    )
    trainer.train()
print(callback.pruner.finish(example).net)

# %%
# What happened is in the Trainer's own log, beside its loss:

told = [entry for entry in trainer.state.log_history if "bmrs/kept" in entry]
plt.plot(
    [entry["epoch"] for entry in told],
    [entry["bmrs/kept"] for entry in told],
    "o-",
)
plt.xlabel("epoch")
plt.ylabel("structures kept")
plt.ylim(bottom=0)
plt.show()
