"""The shapes of a network whose surgery is over: read off, written as JSON, and given to a fresh network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from bmrs_torch.surgery.configs import own_config
from bmrs_torch.surgery.remembered_sizes import COUNTS_OF_HEADS

M = TypeVar("M", bound=nn.Module)

Size = int | list[int]


class LayoutError(ValueError):
    """A network and the shapes it should take on do not fit.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from torch import nn
    >>> from bmrs_torch import LayoutError, load_pruned, save_pruned
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = save_pruned(nn.Linear(3, 2), Path(folder) / "small.safetensors")
    ...     try:
    ...         load_pruned(nn.Linear(1, 1), file)
    ...     except LayoutError as error:
    ...         print(str(error).partition(";")[0])
    this Linear is not the network whose shapes it should take on
    """


@dataclass(frozen=True)
class Layout:
    """All that surgery can change about a network besides its values.

    Attributes
    ----------
    shapes : dict of str to list of int
        Of all its parameters and buffers, those that no state_dict holds included.
    sizes : dict of str to dict
        By module, its attributes that are whole numbers or tuples of them: `out_features`, `groups`,
        `num_heads`, `normalized_shape`, whatever the module's class calls them. An attribute that a fresh
        network lacks was not set by its constructor, so surgery did not change it. `config.num_heads` is what
        the module's own configuration says, where others say something else.
    """

    shapes: dict[str, list[int]]
    sizes: dict[str, dict[str, Size]]

    @classmethod
    def of(cls, model: nn.Module) -> Layout:
        """Read the layout off a network."""
        shapes = {name: list(value.shape) for name, value in all_tensors(model).items()}
        sizes = {name: _sizes(module) for name, module in model.named_modules()}
        for name, counts in _own_counts(model).items():
            sizes[name].update(counts)
        return cls(shapes, {name: own for name, own in sizes.items() if own})

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Layout:
        """Take a layout from what :meth:`to_json` gave."""
        try:
            return cls(dict(content["shapes"]), dict(content["sizes"]))
        except (KeyError, TypeError, ValueError) as error:
            raise LayoutError(
                f"a layout must hold 'shapes' and 'sizes', each a dictionary by name, got "
                f"{type(content).__name__}"
            ) from error

    def to_json(self) -> dict[str, Any]:
        """Give it as dictionaries, lists and numbers."""
        return asdict(self)


def resize(model: M, layout: Layout) -> M:
    """Give a network other shapes, in place; what changes its shape loses its values.

    Parameters
    ----------
    model : nn.Module
        A network made by the constructor that once made the network with this layout.
    layout : Layout
        The shapes and sizes to take on.

    Returns
    -------
    nn.Module
        The same `model`. Parameters of another shape are new ones, filled with zeros, tied ones still tied;
        an optimizer made before knows nothing of them.

    Raises
    ------
    LayoutError
        If the network has other tensors or modules, or would have to grow; nothing is changed then.

    Examples
    --------
    >>> from torch import nn
    >>> from bmrs_torch.shipping.layout import Layout, resize
    >>> resize(nn.Linear(8, 4), Layout.of(nn.Linear(3, 2)))
    Linear(in_features=3, out_features=2, bias=True)
    """
    check_fit(model, layout)
    for name, sizes in layout.sizes.items():
        module = model.get_submodule(name)
        for attribute in sizes.keys() & vars(module).keys():
            size, current = sizes[attribute], getattr(module, attribute)
            setattr(module, attribute, size if isinstance(size, int) else _like(current, size))
        for attribute in sizes.keys() - vars(module).keys():
            if attribute.startswith(_IN_CONFIG) and "config" in vars(module):
                setattr(own_config(model, name), attribute.removeprefix(_IN_CONFIG), sizes[attribute])
    replaced: dict[Tensor, Tensor] = {}
    for module_name, module in model.named_modules():
        for tensors in (module._parameters, module._buffers):
            for key, value in tensors.items():
                if value is not None:
                    shape = layout.shapes[f"{module_name}.{key}".lstrip(".")]
                    tensors[key] = _of_shape(value, shape, replaced)
    return model


def _like(current: Any, size: list[int]) -> Any:
    """A tuple of the kind that a module holds."""
    return current._make(size) if hasattr(current, "_make") else type(current)(size)


def is_layout(content: Mapping[str, Any]) -> bool:
    """Whether a dictionary holds what :meth:`Layout.to_json` gives: shapes and sizes, by name."""
    shapes, sizes = content.get("shapes"), content.get("sizes")
    if not (isinstance(shapes, dict) and isinstance(sizes, dict)):
        return False
    own = [size for found in sizes.values() if isinstance(found, dict) for size in found.values()]
    return (
        all(isinstance(found, dict) for found in sizes.values())
        and all(map(_are_numbers, shapes.values()))
        and all(min(shape, default=0) >= 0 for shape in shapes.values())
        and all(type(size) is int or _are_numbers(size) for size in own)
    )


def _are_numbers(value: object) -> bool:
    return isinstance(value, list) and all(type(entry) is int for entry in value)


def check_fit(model: nn.Module, layout: Layout) -> None:
    """Raise LayoutError, naming everything that is in the way, unless a network can take on a layout."""
    current = {name: list(value.shape) for name, value in all_tensors(model).items()}
    complaints = _differences("tensor", current, layout.shapes)
    modules = dict(model.named_modules())
    for name, shape in layout.shapes.items():
        own = current.get(name, shape)
        if len(own) != len(shape) or any(a < b for a, b in zip(own, shape, strict=False)):
            complaints.append(f"{name} is of shape {own} here and {shape} there: surgery only takes away")
    for name, sizes in layout.sizes.items():
        if name not in modules:
            complaints.append(f"module {name or '(the model)'} is missing here")
            continue
        complaints += _other_kinds(name or "(the model)", modules[name], sizes)
    if complaints:
        raise LayoutError(
            f"this {type(model).__name__} is not the network whose shapes it should take on; make it by the "
            "same constructor with the same arguments (and insert_noise, if that one still had its noise): "
            + "; ".join(complaints[:_MOST_COMPLAINTS])
            + (
                f"; and {len(complaints) - _MOST_COMPLAINTS} more"
                if len(complaints) > _MOST_COMPLAINTS
                else ""
            )
        )


_MOST_COMPLAINTS = 8


def _other_kinds(name: str, module: nn.Module, sizes: Mapping[str, Size]) -> list[str]:
    """Sizes that the module has, but as something else than a number or tuple as there."""
    own = _sizes(module)
    return [
        f"{type(module).__name__} {name} has {attribute}={getattr(module, attribute)!r} here, {size} there"
        for attribute, size in sizes.items()
        if attribute in vars(module) and type(own.get(attribute)) is not type(size)
    ]


def _differences(what: str, here: Mapping[str, Any], there: Mapping[str, Any]) -> list[str]:
    missing = [f"{what} {name} is missing here" for name in there if name not in here]
    return missing + [f"{what} {name} is here only" for name in here if name not in there]


def all_tensors(model: nn.Module) -> dict[str, Tensor]:
    """All parameters and buffers, those that no state_dict holds too, by every name they have."""
    return {
        **dict(model.named_parameters(remove_duplicate=False)),
        **dict(model.named_buffers(remove_duplicate=False)),
    }


def _sizes(module: nn.Module) -> dict[str, Size]:
    """Attributes that are whole numbers or tuples of them; a bool is a switch, not a size."""
    found: dict[str, Size] = {}
    for name, value in vars(module).items():
        if type(value) is int:
            found[name] = value
        elif isinstance(value, tuple) and value and all(type(entry) is int for entry in value):
            found[name] = list(value)
    return found


_IN_CONFIG = "config."


def _own_counts(model: nn.Module) -> dict[str, dict[str, Size]]:
    """By module, the numbers of heads in a configuration of its own that differ from those of the others'."""
    common: dict[type, Any] = {}
    found: dict[str, dict[str, Size]] = {}
    for name, module in model.named_modules():
        config = vars(module).get("config")
        shared = common.setdefault(type(config), config)  # the outermost has what all began with
        values = {key: getattr(config, key, None) for key in COUNTS_OF_HEADS} if config is not shared else {}
        found[name] = {
            _IN_CONFIG + key: value
            for key, value in values.items()
            if type(value) is int and value != getattr(shared, key, None)
        }
    return found


def _of_shape(value: Tensor, shape: list[int], replaced: dict[Tensor, Tensor]) -> Tensor:
    """The tensor itself if it has the shape, else its successor, one for all that share it."""
    if list(value.shape) == shape:
        return value
    if value not in replaced:
        fresh = torch.zeros(shape, dtype=value.dtype, device=value.device)
        successor = nn.Parameter(fresh, value.requires_grad) if isinstance(value, nn.Parameter) else fresh
        replaced[value] = successor
    return replaced[value]
