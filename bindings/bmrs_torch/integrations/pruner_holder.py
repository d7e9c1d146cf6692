"""What the callbacks have in common: a pruner whose penalty goes straight into the gradients."""

from __future__ import annotations

from typing import Any

from torch import nn

from bmrs_torch.training.pruner import Pruner


class PrunerHolder:
    """Holds a :class:`Pruner` for a framework that makes the model, the optimizer and the loss itself.

    The divergence isn't added to the loss, which stays the user's, but its gradient to the gradients, just
    before each step of the optimizer: accumulation over minibatches and any loss at all work as they did.

    Parameters
    ----------
    **options
        Of :class:`Pruner`; `num_samples` is needed.

    Attributes
    ----------
    pruner : Pruner
        From the start of training on. ``pruner.finish(batch)`` gives the smaller network afterwards.

    Raises
    ------
    ValueError
        For ``shrink=True``: frameworks load checkpoints into the network as it was built.
    """

    def __init__(self, **options: Any) -> None:
        if options.get("shrink"):
            raise ValueError(
                "shrink=True is for training loops of one's own: a framework loads its checkpoints into the "
                "network as it was built. Shrink it when the training is over, by pruner.finish(batch)"
            )
        self._options = options
        self._pruner: Pruner | None = None

    @property
    def pruner(self) -> Pruner:
        """The pruner, once training has begun."""
        if self._pruner is None:
            raise RuntimeError("the pruner is made when training begins, and it has not begun")
        return self._pruner

    def attach(self, model: nn.Module, wrapper: nn.Module | None = None) -> Pruner:
        """Make the pruner of a model, told what runs it on several processes, if it isn't alone."""
        self._pruner = Pruner(model, wrapper=wrapper, **self._options)
        return self._pruner

    def add_penalty(self) -> None:
        """Add the gradient of the weighted divergence to the gradients of the noise."""
        penalty = self.pruner.penalty()
        if penalty is not None:
            penalty.backward()
