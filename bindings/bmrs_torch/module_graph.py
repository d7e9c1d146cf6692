"""Which layer feeds which, as torch.fx reads it off the forward method: where noise goes and folds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn

from bmrs_torch.channels.weights import HOMOGENEOUS, NORMS
from bmrs_torch.layer import MultiplicativeNoise

WEIGHTED = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)

_HOMOGENEOUS_FUNCTIONS = (torch.relu, F.relu, F.leaky_relu, F.dropout, F.max_pool2d, F.avg_pool2d)


class NotFoldableError(ValueError):
    """The scale of a noise layer can't move into the layer before it."""


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, MultiplicativeNoise) or super().is_leaf_module(m, module_qualified_name)


class ModuleGraph:
    """The calls of a model's modules and how they feed one another.

    Parameters
    ----------
    model : nn.Module
        A model whose forward method torch.fx can follow symbolically: no branches on the values of tensors.

    Raises
    ------
    ValueError
        If it can't; the noise layers then have to be placed, and folded, by hand.

    Examples
    --------
    >>> from torch import nn
    >>> from bmrs_torch.module_graph import ModuleGraph
    >>> graph = ModuleGraph(nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1)))
    >>> [(name, graph.is_output(name)) for name in graph.names_of((nn.Linear,))]
    [('0', False), ('2', True)]
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        try:
            self.graph = _Tracer().trace(model)
        except Exception as error:
            raise ValueError(
                f"torch.fx can't follow the forward method of {type(model).__name__} "
                f"({type(error).__name__}: {error}); place MultiplicativeNoise layers by hand in models that "
                "branch on the values of tensors"
            ) from error
        self._modules = dict(model.named_modules())

    def _calls(self, name: str) -> list[fx.Node]:
        return [node for node in self.graph.nodes if node.op == "call_module" and node.target == name]

    def _module(self, node: fx.Node) -> nn.Module | None:
        return self._modules[str(node.target)] if node.op == "call_module" else None

    def names_of(self, types: tuple[type[nn.Module], ...]) -> list[str]:
        """Names of the called modules of these types, in the order of their first call."""
        called = [str(node.target) for node in self.graph.nodes if isinstance(self._module(node), types)]
        return list(dict.fromkeys(called))

    def is_called_once(self, name: str) -> bool:
        """Whether the module of that name is called exactly once in a forward pass."""
        return len(self._calls(name)) == 1

    def is_output(self, name: str) -> bool:
        """Whether nothing with weights comes after the module of that name."""
        return not any(
            isinstance(self._module(node), WEIGHTED) for node in self._downstream(self._calls(name))
        )

    def _downstream(self, nodes: list[fx.Node]) -> Iterator[fx.Node]:
        seen: set[fx.Node] = set(nodes)
        stack = [user for node in nodes for user in node.users]
        while stack:
            node = stack.pop()
            if node not in seen:
                seen.add(node)
                yield node
                stack.extend(node.users)

    def following(self, name: str, types: tuple[type[nn.Module], ...]) -> str | None:
        """Name of the module of one of these types that alone takes the output of `name`, or None."""
        calls = self._calls(name)
        users = list(calls[0].users) if len(calls) == 1 else []
        if len(users) == 1 and isinstance(self._module(users[0]), types):
            return str(users[0].target)
        return None

    def feeding(self, noise_name: str) -> str:
        """Name of the layer into which the scale of a noise layer can be folded exactly.

        It is the Linear, Conv or BatchNorm layer before the noise, with nothing but positively homogeneous
        operations (ReLU, pooling, dropout) between them, and feeding nothing else.

        Parameters
        ----------
        noise_name : str
            Name of a noise layer.

        Returns
        -------
        str

        Raises
        ------
        NotFoldableError
            If there is no such layer.
        """
        if not self.is_called_once(noise_name):
            raise NotFoldableError(
                f"noise layer {noise_name!r} is called {len(self._calls(noise_name))} times in a forward "
                "pass, not once"
            )
        node: Any = self._calls(noise_name)[0].args[0]
        while self._is_homogeneous(node) and len(node.users) == 1:
            node = node.args[0]
        if not isinstance(self._module(node), WEIGHTED + NORMS) or len(node.users) != 1:
            raise NotFoldableError(
                f"noise layer {noise_name!r} must follow a Linear, Conv or BatchNorm layer that feeds "
                f"nothing else (ReLU, pooling and dropout may lie between), but before it comes {node.op} "
                f"{node.target!r} with {len(node.users)} user(s)"
            )
        if not self.is_called_once(str(node.target)):
            raise NotFoldableError(
                f"layer {node.target!r} before noise layer {noise_name!r} is called more than once"
            )
        return str(node.target)

    def _is_homogeneous(self, node: fx.Node) -> bool:
        if node.op == "call_function":
            return node.target in _HOMOGENEOUS_FUNCTIONS
        if node.op == "call_method":
            return node.target == "relu"
        return isinstance(self._module(node), HOMOGENEOUS)
