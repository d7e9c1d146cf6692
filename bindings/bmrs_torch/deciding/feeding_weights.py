"""The weights before a noise layer, a row per structure: what criteria of weights and gradients read."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn.modules.conv import _ConvTransposeNd

from bmrs_torch.attachment import WithNoise
from bmrs_torch.layer import MultiplicativeNoise
from bmrs_torch.module_graph import ModuleGraph


@dataclass(frozen=True)
class FeedingLayer:
    """The layer whose outputs a noise layer multiplies."""

    name: str
    layer: nn.Module
    num_structures: int

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
        return bias.detach().double() * self._gradient("bias", bias).double()

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
        if isinstance(self.layer, _ConvTransposeNd) or type(self.layer).__name__ == "Conv1D":
            value = value.transpose(0, 1)  # both keep the outputs on axis 1, Conv1D of transformers too
        if len(value) != self.num_structures:
            raise ValueError(
                f"layer {self.name!r} has {len(value)} rows of weights for the {self.num_structures} "
                "structures of the noise after it, so no row belongs to one; choose a criterion of the noise"
            )
        return value.double().reshape(len(value), -1)


def feeding_layers(model: nn.Module, layers: dict[str, MultiplicativeNoise]) -> dict[str, FeedingLayer]:
    """Find the layer before each noise layer.

    Parameters
    ----------
    model : nn.Module
        The model.
    layers : dict of str to MultiplicativeNoise
        Its noise layers by name.

    Returns
    -------
    dict of str to FeedingLayer
        By the name of the noise layer.

    Raises
    ------
    ValueError
        If a noise layer follows none, or torch.fx has to find it and can't follow the model.
    """
    found: dict[str, FeedingLayer] = {}
    graph: ModuleGraph | None = None
    for name, noise in layers.items():
        parent_name = name.rpartition(".")[0]
        parent = model.get_submodule(parent_name)
        if isinstance(parent, WithNoise) and isinstance(getattr(parent.layer, "weight", None), Tensor):
            feeding = f"{parent_name}.layer".lstrip(".")
        else:
            graph = graph or ModuleGraph(model)
            feeding = graph.feeding(name)
        found[name] = FeedingLayer(feeding, model.get_submodule(feeding), noise.num_structures)
    return found
