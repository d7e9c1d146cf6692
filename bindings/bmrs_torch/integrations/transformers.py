"""A callback for the Trainer of Hugging Face transformers."""

from __future__ import annotations

from typing import Any

import torch
from transformers import TrainerCallback

from bmrs_torch.integrations.pruner_holder import PrunerHolder
from bmrs_torch.training.checks import say_if_noise_is_not_trained


class PruningCallback(PrunerHolder, TrainerCallback):
    """Prunes a model on schedule while a Trainer trains it; see :class:`PrunerHolder`.

    Insert the noise before the Trainer is made, and give it an optimizer of :func:`parameter_groups` by its
    argument `optimizers`. The Trainer clips gradients before the divergence's is added. A run that is resumed
    from a checkpoint goes on where it was; the history of what was pruned when begins anew.

    Parameters
    ----------
    **options
        Of :class:`Pruner`, such as `num_samples`, `kl_weight` and `schedule`.

    Raises
    ------
    ValueError
        When training begins, with ``fp16=True`` and ``max_grad_norm=0``: the gradients are still scaled then
        when the divergence's would be added.

    Examples
    --------
    In a training script::

        callback = PruningCallback(num_samples=len(data), schedule=Schedule(finetune_from=3))
        Trainer(model, args, train_dataset=data, callbacks=[callback], optimizers=(optimizer, None)).train()
        smaller = callback.pruner.finish(batch)
    """

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002 transformers names them
        """Make the pruner, and go on counting where a resumed run was."""
        if args.fp16 and not args.max_grad_norm:
            raise ValueError(
                "with fp16=True gradients are scaled up until they are clipped, so the divergence's can't "
                "be added to them; set max_grad_norm, or bf16=True instead"
            )
        pruner = self.attach(kwargs["model"])
        if isinstance(kwargs.get("optimizer"), torch.optim.Optimizer):
            say_if_noise_is_not_trained(pruner.model, kwargs["optimizer"])
        pruner.resume_at(epochs=int(state.epoch or 0), steps=state.global_step)

    def on_pre_optimizer_step(self, *_: Any, **__: Any) -> None:
        """Add the divergence's gradient."""
        self.add_penalty()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """Count a step of the optimizer, and prune if it is due."""
        self.pruner.step()

    def on_epoch_end(self, *_: Any, **__: Any) -> None:
        """Count an epoch, and prune if it is due."""
        self.pruner.end_epoch()
