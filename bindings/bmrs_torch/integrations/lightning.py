"""A callback for Lightning."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback
from torch import nn

from bmrs_torch.integrations.pruner_holder import PrunerHolder
from bmrs_torch.layer import noise_layers
from bmrs_torch.training.checks import say_if_noise_is_not_trained


class PruningCallback(PrunerHolder, Callback):
    """Prunes a LightningModule on schedule while it trains; see :class:`PrunerHolder`.

    Insert the noise and make the optimizer, of :func:`parameter_groups`, in the module itself; its loss stays
    as it is. After each epoch what :meth:`Pruner.scalars` gives is logged to whatever logger the Trainer has,
    and can be monitored: ``bmrs/kept``, ``bmrs/kl``, ``bmrs/delta_f/q50`` and so on. A run that is resumed
    from a checkpoint goes on where it was, masks, phase and history included. With ``strategy="ddp"`` all
    ranks prune alike, and ``callback.pruner.finish`` gives the same network on each; FSDPStrategy, whose
    parameters have no shapes of their own, is refused: ModelParallelStrategy divides by ``fully_shard``.

    Parameters
    ----------
    **options
        Of :class:`Pruner`, such as `num_samples`, `kl_weight` and `schedule`.

    Examples
    --------
    In a training script::

        callback = PruningCallback(num_samples=60_000, schedule=Schedule(finetune_from=10))
        Trainer(max_epochs=15, callbacks=[callback]).fit(module, loader)
        smaller = callback.pruner.finish(next(iter(loader))[0])
    """

    def __init__(self, **options: Any) -> None:
        PrunerHolder.__init__(self, **options)
        self._loaded: dict[str, Any] | None = None

    def on_fit_start(self, trainer: Any, pl_module: nn.Module) -> None:
        """Make the pruner, of the one child that holds all noise, else of the module itself."""
        pruner = self.attach(_network_of(pl_module), trainer.model)
        if self._loaded is not None:
            pruner.load_state_dict(self._loaded)

    def on_train_start(self, trainer: Any, pl_module: nn.Module) -> None:  # noqa: ARG002 Lightning names them
        """Warn if no optimizer trains the noise."""
        if trainer.optimizers:
            say_if_noise_is_not_trained(self.pruner.model, *trainer.optimizers)

    def on_before_optimizer_step(self, *_: Any) -> None:
        """Add the divergence's gradient."""
        self.add_penalty()

    def on_train_batch_end(self, trainer: Any, pl_module: nn.Module, *_: Any) -> None:  # noqa: ARG002
        """Count the steps of the optimizer, and prune if it is due."""
        while self.pruner.steps < trainer.global_step:
            self.pruner.step()

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:  # noqa: ARG002
        """Count an epoch, prune if it is due, and log where the pruner stands."""
        self.pruner.end_epoch()
        pl_module.log_dict(self.pruner.scalars())

    def state_dict(self) -> dict[str, Any]:
        """What Lightning saves in its checkpoints."""
        return {} if self._pruner is None else self._pruner.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep what Lightning loaded until the pruner is made."""
        self._loaded = state_dict or None


def _network_of(pl_module: nn.Module) -> nn.Module:
    names = {name.partition(".")[0] for name in noise_layers(pl_module)}
    return pl_module.get_submodule(names.pop()) if len(names) == 1 else pl_module
