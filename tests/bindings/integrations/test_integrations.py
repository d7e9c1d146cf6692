"""The callbacks, with the real frameworks: they prune as a loop of one's own does, and resume."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from bmrs_torch import (
    Budget,
    Pruner,
    Schedule,
    default_kl_weight,
    insert_noise,
    noise_layers,
    parameter_groups,
)
from bmrs_torch.integrations.pruner_holder import PrunerHolder

pytestmark = pytest.mark.filterwarnings("ignore")  # of the frameworks, about themselves; not ours to mend

NUM_SAMPLES, BATCH = 32, 8
FINETUNE_FROM = 2
OPTIONS: dict[str, Any] = {
    "num_samples": NUM_SAMPLES,
    "criterion": "l2",
    "amount": 0.5,
    "kl_weight": 3.0,
    "schedule": Schedule(finetune_from=FINETUNE_FROM),
}


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))


def data() -> TensorDataset:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(NUM_SAMPLES, 4, generator=generator)
    return TensorDataset(x, torch.arange(NUM_SAMPLES) % 3)


def kept(model: nn.Module) -> list[float]:
    return next(iter(noise_layers(model).values())).mask.tolist()


def by_hand(epochs: int) -> nn.Module:
    """The same training as the frameworks', in a loop of one's own."""
    model = insert_noise(network(), data().tensors[0])
    optimizer = torch.optim.Adam(parameter_groups(model, lr=0.01))
    pruner = Pruner(model, **OPTIONS)
    torch.manual_seed(5)
    for _ in range(epochs):
        for x, y in DataLoader(data(), batch_size=BATCH):
            optimizer.zero_grad()
            F.cross_entropy(model.train()(x), y).backward()
            penalty = pruner.penalty()
            if penalty is not None:
                penalty.backward()
            optimizer.step()
        pruner.end_epoch()
    return model


def test_the_gradient_of_the_penalty_is_what_the_loss_would_have_given() -> None:
    x, y = data().tensors
    model = insert_noise(network(), data().tensors[0])
    attached = PrunerHolder(**OPTIONS)
    attached.attach(model)
    torch.manual_seed(5)
    F.cross_entropy(model(x), y).backward()
    attached.add_penalty()
    separate = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    model.zero_grad()
    torch.manual_seed(5)
    attached.pruner.loss(F.cross_entropy(model(x), y)).backward()
    together = [p.grad for p in model.parameters()]
    for ours, theirs in zip(separate, together, strict=True):
        assert theirs is not None
        torch.testing.assert_close(ours, theirs)


def test_without_a_weight_a_callback_has_the_default_of_the_objective() -> None:
    options = {name: value for name, value in OPTIONS.items() if name != "kl_weight"}
    attached = PrunerHolder(**options | {"num_samples": 60_000})
    assert attached.attach(insert_noise(network(), data().tensors[0])).kl_weight == default_kl_weight(60_000)


def optimizers_of(model: nn.Module) -> list[tuple[torch.optim.Optimizer, Any]]:
    """One made as it should be, one made as if before the noise was inserted, and what is said of each."""
    weights = [p for name, p in model.named_parameters() if "noise" not in name]
    return [
        (torch.optim.Adam(parameter_groups(model, lr=0.01)), contextlib.nullcontext()),
        (torch.optim.Adam(weights), pytest.warns(UserWarning, match="Adam given doesn't train the noise of")),
    ]


def test_shrinking_is_left_to_loops_of_ones_own() -> None:
    with pytest.raises(ValueError, match="shrink=True is for training loops of one's own"):
        PrunerHolder(**OPTIONS, shrink=True)
    with pytest.raises(RuntimeError, match="it has not begun"):
        PrunerHolder(**OPTIONS).pruner  # noqa: B018 reading it is what is tested


class TestLightning:
    @pytest.fixture
    def pl(self) -> Any:
        return pytest.importorskip("lightning.pytorch", reason="pip install 'bmrs-pruning[integrations]'")

    def fit(
        self,
        pl: Any,
        folder: Path,
        epochs: int,
        resume: str | None = None,
        options: dict[str, Any] = OPTIONS,
    ) -> tuple[Any, Any, Any]:
        from bmrs_torch.integrations.lightning import PruningCallback

        class Classifier(pl.LightningModule):
            def __init__(self) -> None:
                super().__init__()
                self.net = insert_noise(network(), data().tensors[0])

            def training_step(self, batch: list[Tensor], _: int) -> Tensor:
                return F.cross_entropy(self.net(batch[0]), batch[1])

            def configure_optimizers(self) -> torch.optim.Optimizer:
                return torch.optim.Adam(parameter_groups(self.net, lr=0.01))

        module, callback = Classifier(), PruningCallback(**options)
        trainer = pl.Trainer(
            max_epochs=epochs,
            callbacks=[callback],
            accelerator="cpu",
            logger=False,
            default_root_dir=folder,
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=False,
        )
        if resume is None:
            torch.manual_seed(5)
        trainer.fit(module, DataLoader(data(), batch_size=BATCH), ckpt_path=resume)
        return module, callback, trainer

    def test_it_trains_and_prunes_as_a_loop_of_ones_own_does(self, pl: Any, tmp_path: Path) -> None:
        module, callback, trainer = self.fit(pl, tmp_path, 3)
        expected = by_hand(3)
        assert callback.pruner.model is module.net
        assert callback.pruner.epochs == 3
        assert callback.pruner.steps == 3 * NUM_SAMPLES // BATCH
        assert [entry["epoch"] for entry in callback.pruner.history if entry["due"]] == [1, 2]
        assert sum(kept(module.net)) == 4
        logged = {name: value.item() for name, value in trainer.callback_metrics.items()}
        assert logged == pytest.approx(callback.pruner.scalars())  # Lightning holds them in float32
        assert logged["bmrs/kept"] == 4
        for ours, theirs in zip(module.net.parameters(), expected.parameters(), strict=True):
            torch.testing.assert_close(ours, theirs)
        assert callback.pruner.finish(data().tensors[0])[0].out_features == 4

    def test_it_comes_down_to_a_budget(self, pl: Any, tmp_path: Path) -> None:
        x = data().tensors[0]
        layers = noise_layers(insert_noise(network(), x))
        options: dict[str, Any] = {
            "num_samples": NUM_SAMPLES,
            "budget": Budget(macs=0.5),
            "example_inputs": x,
            "schedule": Schedule(finetune_from=2),
            "layer_weights": dict.fromkeys(layers, 1.0),
        }
        _, callback, _ = self.fit(pl, tmp_path, 3, options=options)
        fractions = [entry["costs"]["macs"] for entry in callback.pruner.history if entry["due"]]
        assert fractions == sorted(fractions, reverse=True)
        small = callback.pruner.finish(x)
        whole, left = (sum(p.numel() for p in m.parameters() if p.ndim > 1) for m in (network(), small))
        assert left <= 0.5 * whole

    def test_an_optimizer_that_does_not_train_the_noise_is_warned_of(self, pl: Any) -> None:
        from bmrs_torch.integrations.lightning import PruningCallback

        class Trainer:
            optimizers: tuple[torch.optim.Optimizer, ...]
            model = None

        module = pl.LightningModule()
        module.net = insert_noise(network(), data().tensors[0])
        callback, trainer = PruningCallback(**OPTIONS), Trainer()
        callback.on_fit_start(trainer, module)
        for optimizer, said in optimizers_of(module.net):
            trainer.optimizers = (optimizer,)
            with said:
                callback.on_train_start(trainer, module)

    def test_it_resumes_with_masks_phase_and_history(self, pl: Any, tmp_path: Path) -> None:
        first, _, trainer = self.fit(pl, tmp_path, FINETUNE_FROM)
        trainer.save_checkpoint(tmp_path / "run.ckpt")
        again, callback, _ = self.fit(pl, tmp_path, 3, resume=str(tmp_path / "run.ckpt"))
        assert callback.pruner.epochs == 3
        assert [entry["epoch"] for entry in callback.pruner.history if entry["due"]] == [1, 2]
        assert kept(again.net) == kept(first.net)
        noise = [next(iter(noise_layers(m.net).values())) for m in (first, again)]
        assert noise[1].fixed
        assert torch.equal(noise[0].mu, noise[1].mu)  # fixed noise learns no more


class Tabular(nn.Module):
    """What a Trainer takes: named inputs, labels among them, and the loss first in the answer."""

    def __init__(self) -> None:
        super().__init__()
        self.net = insert_noise(network(), data().tensors[0])

    def forward(self, x: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
        logits = self.net(x)
        return (
            {"logits": logits}
            if labels is None
            else {"loss": F.cross_entropy(logits, labels), "logits": logits}
        )


class TestTransformers:
    @pytest.fixture(autouse=True)
    def frameworks(self) -> None:
        for name in ("transformers", "accelerate"):
            pytest.importorskip(name, reason="pip install 'bmrs-pruning[integrations]'")

    def fit(self, folder: Path, epochs: int, resume: bool = False) -> tuple[Tabular, Any]:
        return self.trained(folder, epochs, resume)[:2]

    def trained(
        self,
        folder: Path,
        epochs: int,
        resume: bool = False,
        before: Sequence[Any] = (),
        reports: bool = False,
        **arguments: Any,
    ) -> tuple[Tabular, Any, Any]:
        from transformers import Trainer, TrainingArguments

        from bmrs_torch.integrations.transformers import PruningCallback

        settings: dict[str, Any] = {
            "per_device_train_batch_size": BATCH,
            "num_train_epochs": epochs,
            "save_strategy": "epoch",
            "report_to": [],
            "use_cpu": True,
            "disable_tqdm": True,
            "max_grad_norm": 0.0,
            "logging_strategy": "no",
            "lr_scheduler_type": "constant",
            "train_sampling_strategy": "sequential",
        }
        trainer: Any = None
        options = OPTIONS | ({"log": lambda values, _: trainer.log(values)} if reports else {})
        model, callback = Tabular(), PruningCallback(**options)
        optimizer = torch.optim.Adam(parameter_groups(model, lr=0.01))
        rows = [{"x": x, "labels": y} for x, y in zip(*data().tensors, strict=True)]
        trainer = Trainer(
            model,
            TrainingArguments(str(folder), **(settings | arguments)),
            train_dataset=rows,
            callbacks=[*before, callback],
            optimizers=(optimizer, None),
        )
        torch.manual_seed(5)
        trainer.train(resume_from_checkpoint=resume or None)
        return model, callback, trainer

    def test_it_trains_and_prunes_as_a_loop_of_ones_own_does(self, tmp_path: Path) -> None:
        model, callback = self.fit(tmp_path, 3)
        assert callback.pruner.epochs == 3
        assert callback.pruner.steps == 3 * NUM_SAMPLES // BATCH
        assert [entry["epoch"] for entry in callback.pruner.history if entry["due"]] == [1, 2]
        assert sum(kept(model)) == 4
        assert noise_layers(model)["net.0.noise"].fixed
        assert kept(model) == kept(by_hand(3))

    def test_it_resumes_with_masks_and_phase(self, tmp_path: Path) -> None:
        first, _ = self.fit(tmp_path, FINETUNE_FROM)
        again, callback = self.fit(tmp_path, 3, resume=True)
        assert (callback.pruner.epochs, callback.pruner.steps) == (3, 3 * NUM_SAMPLES // BATCH)
        assert [entry["epoch"] for entry in callback.pruner.history] == [3]
        assert kept(again) == kept(first)
        noise = [next(iter(noise_layers(m).values())) for m in (first, again)]
        assert noise[1].fixed
        assert torch.equal(noise[0].mu, noise[1].mu)

    def test_where_it_stands_is_in_the_log_of_the_trainer_beside_its_own(self, tmp_path: Path) -> None:
        _, callback, trainer = self.trained(tmp_path, 2, logging_strategy="epoch")
        ours = [entry for entry in trainer.state.log_history if "bmrs/kl" in entry]
        assert [(entry["epoch"], entry["step"]) for entry in ours] == [(1.0, 4), (2.0, 8)]
        assert ours[-1].items() >= (callback.pruner.scalars() | {"bmrs/kept": 4.0}).items()
        assert sum("loss" in entry for entry in trainer.state.log_history) == 2
        saved = json.loads((tmp_path / "checkpoint-8" / "trainer_state.json").read_text())
        assert [entry for entry in saved["log_history"] if "bmrs/kl" in entry] == ours

    def test_all_that_the_trainer_reports_to_is_told_by_its_own_log(self, tmp_path: Path) -> None:
        from transformers import TrainerCallback

        told: list[dict[str, float]] = []

        class Reporting(TrainerCallback):
            """As those of W&B and TensorBoard, which are called before any of one's own."""

            def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:  # noqa: ARG002
                told.append(dict(logs))

        _, callback, trainer = self.trained(
            tmp_path, 2, before=[Reporting()], reports=True, logging_strategy="epoch"
        )
        assert [set(logs) & {"loss", "bmrs/kl"} for logs in told[:4]] == [{"bmrs/kl"}, {"loss"}] * 2
        assert told[2].items() >= callback.pruner.scalars().items()
        assert sum("bmrs/kl" in entry for entry in trainer.state.log_history) == 2

    def test_an_optimizer_that_does_not_train_the_noise_is_warned_of(self) -> None:
        from bmrs_torch.integrations.transformers import PruningCallback

        class Arguments:
            fp16, max_grad_norm, world_size = False, 0.0, 1

        class State:
            epoch, global_step = 0.0, 0

        model, callback = Tabular(), PruningCallback(**OPTIONS)
        for optimizer, said in optimizers_of(model):
            with said:
                callback.on_train_begin(Arguments(), State(), None, model=model, optimizer=optimizer)

    def test_gradients_that_stay_scaled_are_refused(self) -> None:
        from bmrs_torch.integrations.transformers import PruningCallback

        class Arguments:
            fp16, max_grad_norm = True, 0.0

        with pytest.raises(ValueError, match="set max_grad_norm"):
            PruningCallback(**OPTIONS).on_train_begin(Arguments(), None, None, model=Tabular())

    def test_several_processes_without_what_runs_the_model_on_them_are_refused(self) -> None:
        from bmrs_torch.integrations.transformers import PruningCallback

        class Arguments:
            fp16, max_grad_norm, world_size = False, 1.0, 2

        with pytest.raises(ValueError, match=r"wrapped=lambda: trainer\.model_wrapped"):
            PruningCallback(**OPTIONS).on_train_begin(Arguments(), None, None, model=Tabular())
