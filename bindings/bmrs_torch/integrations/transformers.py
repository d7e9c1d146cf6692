"""A callback for the Trainer of Hugging Face transformers, and pruned models in folders as it keeps them."""

from __future__ import annotations

import contextlib
import copy
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn
from transformers import AutoConfig, GenerationConfig, PreTrainedModel, TrainerCallback

from bmrs_torch.integrations.pruner_holder import PrunerHolder
from bmrs_torch.layer import MultiplicativeNoise
from bmrs_torch.shipping import ShippingError, load_pruned, save_pruned
from bmrs_torch.training.checks import say_if_noise_is_not_trained


class PruningCallback(PrunerHolder, TrainerCallback):
    """Prunes a model on schedule while a Trainer trains it; see :class:`PrunerHolder`.

    Insert the noise before the Trainer is made, and give it an optimizer of :func:`parameter_groups` by its
    argument `optimizers`. The Trainer clips gradients before the divergence's is added. A run that is resumed
    from a checkpoint goes on where it was; the pruner's history begins anew.

    After each epoch what :meth:`Pruner.scalars` gives is an entry of the Trainer's `log_history`, beside its
    own, and so in ``trainer_state.json``. What `report_to` names (W&B, TensorBoard and others) is told by the
    Trainer alone, which a callback isn't given: ``log=lambda values, step: trainer.log(values)`` lets it.

    Parameters
    ----------
    wrapped : callable, optional
        Gives the model as several processes run it, which a callback isn't told: under torchrun
        ``lambda: trainer.model_wrapped``.
    **options
        Of :class:`Pruner`, such as `num_samples`, `kl_weight`, `schedule` and `log`.

    Raises
    ------
    ValueError
        When training begins, on several processes without `wrapped`; or with ``fp16=True`` and
        ``max_grad_norm=0``: the gradients are still scaled then when the divergence's would be added.

    Examples
    --------
    In a training script::

        callback = PruningCallback(
            num_samples=len(data),
            schedule=Schedule(finetune_from=3),
            log=lambda values, step: trainer.log(values),
        )
        trainer = Trainer(
            model, args, train_dataset=data, callbacks=[callback], optimizers=(optimizer, None)
        )
        trainer.train()
        smaller = callback.pruner.finish(batch)
    """

    def __init__(self, *, wrapped: Callable[[], nn.Module] | None = None, **options: Any) -> None:
        super().__init__(**options)
        self._wrapped = wrapped

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002 transformers names them
        """Make the pruner, and go on counting where a resumed run was."""
        if args.fp16 and not args.max_grad_norm:
            raise ValueError(
                "with fp16=True gradients are scaled up until they are clipped, so the divergence's can't "
                "be added to them; set max_grad_norm, or bf16=True instead"
            )
        if args.world_size > 1 and self._wrapped is None:
            raise ValueError(
                f"{args.world_size} processes train this model, and a callback isn't told what runs it on "
                "them: give PruningCallback(wrapped=lambda: trainer.model_wrapped, ...)"
            )
        pruner = self.attach(kwargs["model"], None if self._wrapped is None else self._wrapped())
        if isinstance(kwargs.get("optimizer"), torch.optim.Optimizer):
            say_if_noise_is_not_trained(pruner.model, kwargs["optimizer"])
        pruner.resume_at(epochs=int(state.epoch or 0), steps=state.global_step)

    def on_pre_optimizer_step(self, *_: Any, **__: Any) -> None:
        """Add the divergence's gradient."""
        self.add_penalty()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
        """Count a step of the optimizer, and prune if it is due."""
        with self._keeping_log(state, control):
            self.pruner.step()

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
        """Count an epoch, prune if it is due, and log where the pruner stands."""
        with self._keeping_log(state, control):
            self.pruner.end_epoch()

    @contextlib.contextmanager
    def _keeping_log(self, state: Any, control: Any) -> Iterator[None]:
        """Enter what comes to the history into the Trainer's log, unless the user's `log` tells it."""
        asked, known = control.should_log, len(self.pruner.history)
        yield
        control.should_log = asked  # Trainer.log takes it back, and the loss would not be logged
        if self.pruner.log is None and len(self.pruner.history) > known:
            told = {**self.pruner.scalars(), "epoch": state.epoch, "step": state.global_step}
            state.log_history.append(told)


WEIGHTS = "model.safetensors"
CONFIG, GENERATION = "config.json", "generation_config.json"


def save_pretrained(model: PreTrainedModel, folder: str | os.PathLike[str]) -> Path:
    """Save a pruned model as its own `save_pretrained` would, so that :func:`from_pretrained` loads it again.

    The configuration of a pruned model is that of the whole one: it can't say that layers are of different
    widths, which is why transformers' own `from_pretrained` refuses the weights. The widths are in the file
    of the weights, as of :func:`save_pruned`.

    Parameters
    ----------
    model : PreTrainedModel
        Without noise, as :func:`fold` returns it.
    folder : path-like
        Made if it isn't there. A tokenizer or processor can be saved to it by its own `save_pretrained`.

    Returns
    -------
    Path
        Of the weights' file.

    Raises
    ------
    TypeError
        If it is no model of transformers.
    ShippingError
        If it has noise, can't be saved, or the folder holds the configuration of something else.

    Examples
    --------
    In a script::

        smaller = fold(compact(model, batch), batch)
        save_pretrained(smaller, "pruned")
        again = from_pretrained("pruned")
    """
    if not isinstance(model, PreTrainedModel):
        raise TypeError(f"model must be a PreTrainedModel of transformers, got a {type(model).__name__}")
    if any(isinstance(module, MultiplicativeNoise) for module in model.modules()):
        raise ShippingError(
            f"this {type(model).__name__} still has its noise, which from_pretrained would not make: fold "
            "it first, or use save_pruned and load_pruned"
        )
    folder = Path(folder)
    _check_owner(folder / CONFIG, model)
    folder.mkdir(parents=True, exist_ok=True)
    file = save_pruned(model, folder / WEIGHTS)
    config = copy.deepcopy(model.config)
    config.architectures = [type(model).__name__]
    config.save_pretrained(folder)
    if model.can_generate():
        model.generation_config.save_pretrained(folder)
    return file


def _check_owner(file: Path, model: PreTrainedModel) -> None:
    """Raise ShippingError if there is a configuration already, of something else."""
    if not file.exists():
        return
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        found = None
    kind = found.get("model_type") if isinstance(found, dict) else None
    if kind != model.config.model_type:
        raise ShippingError(
            f"{file} is not of a {model.config.model_type!r} model and would be overwritten: save to "
            "another folder"
        )


def from_pretrained(
    folder: str | os.PathLike[str], model_class: type[PreTrainedModel] | None = None, **options: Any
) -> PreTrainedModel:
    """Load what :func:`save_pretrained` saved: a model of its class, as narrow as it was, in evaluation mode.

    Parameters
    ----------
    folder : path-like
        On this machine.
    model_class : type, optional
        By default the one of transformers that the configuration names; one's own has to be given.
    **options
        Of ``AutoConfig.from_pretrained``, such as ``attn_implementation="eager"``.

    Returns
    -------
    PreTrainedModel
        On the CPU, in the dtype in which it was saved.

    Raises
    ------
    FileNotFoundError, ShippingError, LayoutError
        As :func:`load_pruned` does.
    ValueError
        If transformers has no class of the name in the configuration.
    """
    folder = Path(folder)
    if not (folder / WEIGHTS).is_file():
        raise FileNotFoundError(f"there is no file {folder / WEIGHTS}: save_pretrained wrote nothing here")
    of_config: Any = AutoConfig if model_class is None else model_class.config_class
    config = of_config.from_pretrained(folder, **options)
    model: PreTrainedModel = load_pruned((model_class or _class_of(config))(config), folder / WEIGHTS)
    if model.can_generate() and (folder / GENERATION).is_file():
        model.generation_config = GenerationConfig.from_pretrained(folder)
    model.train(False)
    return model


def _class_of(config: Any) -> type[PreTrainedModel]:
    name = (config.architectures or ["no class"])[0]
    found = getattr(transformers, name, None)
    if not (isinstance(found, type) and issubclass(found, PreTrainedModel)):
        raise ValueError(
            f"transformers has no model of the class {name!r} that the configuration names: give it as "
            "model_class="
        )
    return found
