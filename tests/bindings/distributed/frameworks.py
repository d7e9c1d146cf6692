"""A small network pruned on two processes by Lightning, the Trainer of transformers and Accelerate.

Under torchrun; each rank prints a line for each framework: what is left, and a number that tells the network.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from accelerate import Accelerator
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor, distributed, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, Dataset
from transformers import Trainer, TrainingArguments

from bmrs_torch import Pruner, Schedule, insert_noise, parameter_groups
from bmrs_torch.distributed.ranks import digest
from bmrs_torch.integrations import lightning as with_lightning
from bmrs_torch.integrations import transformers as with_transformers

EXAMPLE = torch.linspace(-1, 1, 4 * 6).reshape(4, 6)


class Samples(Dataset[dict[str, Tensor]]):
    def __len__(self) -> int:
        return 32

    def __getitem__(self, number: int) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(number)
        return {"x": torch.randn(6, generator=generator), "labels": torch.tensor(number % 4)}


class Network(nn.Module):
    """Answers as models of transformers do."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Linear(6, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Linear(12, 4))

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Any:
        logits = self.body(x)
        return logits if labels is None else {"loss": cross_entropy(logits, labels), "logits": logits}


class Module(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.network = insert_noise(Network(), EXAMPLE)

    def training_step(self, batch: dict[str, Tensor]) -> Tensor:
        loss: Tensor = self.network(**batch)["loss"]
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(parameter_groups(self.network, 0.01))


OPTIONS: dict[str, Any] = {
    "num_samples": 32,
    "criterion": "mean",
    "amount": 0.25,
    "schedule": Schedule(finetune_from=2),
}


def told(framework: str, pruner: Pruner) -> None:
    finished = pruner.finish(EXAMPLE)
    kept = pruner.history[-1]["num_kept"]
    # At once, the end of the line too: the other rank writes to the same place.
    sys.stdout.write(f"{framework}: {len(pruner.history)} {kept} {digest(finished.state_dict())}\n")
    sys.stdout.flush()


def by_lightning(folder: Path) -> None:
    callback = with_lightning.PruningCallback(**OPTIONS)
    trainer = pl.Trainer(
        max_epochs=3,
        accelerator="cpu",
        devices=2,
        strategy=DDPStrategy(process_group_backend="gloo", cluster_environment=TorchElasticEnvironment()),
        callbacks=[callback],
        default_root_dir=folder,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
    )
    trainer.fit(Module(), DataLoader(Samples(), batch_size=4))
    told("lightning", callback.pruner)


def by_trainer(folder: Path) -> None:
    callback = with_transformers.PruningCallback(wrapped=lambda: trainer.model_wrapped, **OPTIONS)
    model = insert_noise(Network(), EXAMPLE)
    arguments = TrainingArguments(
        str(folder),
        num_train_epochs=3,
        per_device_train_batch_size=4,
        use_cpu=True,
        report_to=[],
        save_strategy="no",
        disable_tqdm=True,
    )
    optimizer = torch.optim.Adam(parameter_groups(model, 0.01))
    trainer = Trainer(
        model, arguments, train_dataset=Samples(), callbacks=[callback], optimizers=(optimizer, None)
    )
    trainer.train()
    told("trainer", callback.pruner)


def by_accelerate() -> None:
    accelerator = Accelerator(cpu=True)
    model = insert_noise(Network(), EXAMPLE)
    optimizer = torch.optim.Adam(parameter_groups(model, 0.01))
    wrapped, optimizer, loader = accelerator.prepare(model, optimizer, DataLoader(Samples(), batch_size=4))
    pruner = Pruner(wrapped, optimizer, example_inputs=EXAMPLE, **OPTIONS)
    for _ in range(3):
        for batch in loader:
            optimizer.zero_grad()
            accelerator.backward(pruner.loss(wrapped(**batch)["loss"]))
            optimizer.step()
        pruner.end_epoch()
    told("accelerate", pruner)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    by_lightning(Path(sys.argv[1]))
    by_trainer(Path(sys.argv[1]))
    by_accelerate()
    distributed.destroy_process_group()
