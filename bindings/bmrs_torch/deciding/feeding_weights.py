"""The weights before a noise layer, a row per structure: what criteria of weights and gradients read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from bmrs_torch.attachment import attachments
from bmrs_torch.channels.makers import has_weight, made_by
from bmrs_torch.channels.network import FollowedNetwork, follow, none_closed
from bmrs_torch.channels.weights import weight_axes
from bmrs_torch.layer import MultiplicativeNoise


@dataclass(frozen=True)
class FeedingLayer:
    """The layer whose outputs a noise layer multiplies."""

    name: str
    layer: nn.Module
    num_structures: int
    blocks: bool = False
    """Whether several rows, one after another, belong to each structure: those of a group of a GroupNorm."""

    def weights(self) -> Tensor:
        """Its weights, (structures, weights of each), float64."""
        return self._rows(self._weight().detach())

    def weight_gradients(self) -> Tensor:
        """Gradients of its weights, laid out like them."""
        return self._rows(self._gradient("weight", self._weight()))

    def bias_terms(self) -> Tensor | None:
        """Bias times its gradient, (structures,), or None without a bias."""
        bias = getattr(self.layer, "bias", None)
        if not isinstance(bias, Tensor):
            return None
        terms = bias.detach().double() * self._gradient("bias", bias).double()
        return terms.view(self.num_structures, -1).sum(1) if self.blocks else terms

    def _weight(self) -> Tensor:
        weight = getattr(self.layer, "weight", None)
        if not isinstance(weight, Tensor):
            raise ValueError(
                f"layer {self.name!r}, a {type(self.layer).__name__}, has no weights to judge structures by; "
                "choose a criterion of the noise, such as 'bmrs_n'"
            )
        return weight

    def _gradient(self, what: str, parameter: Tensor) -> Tensor:
        if parameter.grad is None:
            frozen = "" if parameter.requires_grad else "; it is frozen (requires_grad=False)"
            raise ValueError(
                f"the {what} of layer {self.name!r} has no gradient{frozen}: criteria of gradients read what "
                "loss.backward() left in .grad, so call it on some batches, and no zero_grad() after"
            )
        return parameter.grad

    def _rows(self, value: Tensor) -> Tensor:
        if weight_axes(self.layer)[0] == 1:
            value = value.transpose(0, 1)
        if len(value) != self.num_structures and not self.blocks:
            raise ValueError(
                f"layer {self.name!r} has {len(value)} rows of weights for the {self.num_structures} "
                "structures of the noise after it, so no row belongs to one; choose a criterion of the noise"
            )
        return value.double().reshape(self.num_structures, -1)


def feeding_layers(
    model: nn.Module, layers: dict[str, MultiplicativeNoise], example_inputs: Any = None
) -> dict[str, FeedingLayer]:
    """Find the layer before each noise layer.

    Parameters
    ----------
    model : nn.Module
        The model.
    layers : dict of str to MultiplicativeNoise
        Its noise layers by name.
    example_inputs : Tensor, tuple, list or dict, optional
        To follow the model on, where noise doesn't sit on a layer's output.

    Returns
    -------
    dict of str to FeedingLayer
        By the name of the noise layer.

    Raises
    ------
    ValueError
        If a noise layer follows none, or the model has to be followed and there is no example.
    """
    on = {id(a.noise): a for a in reversed(attachments(model)) if not a.before and has_weight(a.layer)}
    network: FollowedNetwork | None = None
    found: dict[str, FeedingLayer] = {}
    for name, noise in layers.items():
        attached = on.get(id(noise))
        feeding = attached and attached.name
        if feeding is None:
            if example_inputs is None:
                raise ValueError(
                    f"noise layer {name!r} doesn't sit on the output of a layer with weights, so the layer "
                    "before it has to be found by running the model: give example_inputs, or choose a "
                    "criterion of the noise, such as 'bmrs_n'"
                )
            network = network or follow(model, example_inputs, closed=none_closed)
            feeding = made_by(network, model, name)
        if feeding is None:
            raise ValueError(
                f"before noise layer {name!r} comes no layer with weights for each of its structures; choose "
                "a criterion of the noise, such as 'bmrs_n'"
            )
        found[name] = FeedingLayer(
            feeding,
            model.get_submodule(feeding),
            noise.num_structures,
            attached is not None and attached.blocks,
        )
    return found
