"""Save a pruned network without its code, and load it into a fresh one made by the user's own constructor.

One file of safetensors holds the weights and, in its header, the layout; so it is written whole or not at
all. Beside it lies the layout as JSON, for people to read.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn

from bmrs_torch.operation.arguments import check_model, described
from bmrs_torch.shipping.layout import Layout, LayoutError, all_tensors, check_fit, is_layout, resize
from bmrs_torch.shipping.writing import check_place, write

M = TypeVar("M", bound=nn.Module)

_KEY = "bmrs"
_FORMAT = 1


class ShippingError(ValueError):
    """A network can't be saved, or a file can't be loaded into the network at hand.

    Examples
    --------
    >>> from torch import nn
    >>> from bmrs_torch import ShippingError, save_pruned
    >>> try:
    ...     save_pruned(nn.Linear(3, 2), "small.pt")
    ... except ShippingError as error:
    ...     print(error)
    path must end in .safetensors, got 'small.pt'
    """


def save_pruned(model: nn.Module, path: str | os.PathLike[str]) -> Path:
    """Save a network and the widths of its layers; no code is pickled.

    Parameters
    ----------
    model : nn.Module
        Any network: pruned and folded, or still with its noise, masks included.
    path : path-like
        Where to: a ``.safetensors`` file, with a ``.json`` file of the same name beside it that says in plain
        words how wide every layer is. The weights' file needs nothing else; both are written under another
        name first, so a crash or a full disk leaves what was there before. Permissions of a file that is
        replaced stay, and a link is followed.

    Returns
    -------
    Path
        Of the ``.safetensors`` file.

    Raises
    ------
    ShippingError
        If the path has another suffix, or the network's state holds more than tensors, or tensors without
        values, on the meta device.
    OSError
        If the folder isn't there (it is named as given), or the file can't be written.

    Warns
    -----
    UserWarning
        If the ``.json`` file beside it is somebody else's: it is left as it is.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from torch import nn
    >>> from bmrs_torch import load_pruned, save_pruned
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = save_pruned(nn.Linear(3, 2), Path(folder) / "small.safetensors")
    ...     load_pruned(lambda: nn.Linear(8, 4), file)
    Linear(in_features=3, out_features=2, bias=True)
    """
    check_model(model)
    path = Path(path)
    if path.suffix != ".safetensors":
        raise ShippingError(f"path must end in .safetensors, got {str(path)!r}")
    tensors, aliases = _state(model)
    description = {
        "format": _FORMAT,
        "network": type(model).__name__,
        "aliases": aliases,
        **Layout.of(model).to_json(),
    }
    beside = path.with_suffix(".json")
    check_place(path)
    write(path, save(tensors, metadata={_KEY: json.dumps(description)}))
    if _is_free(beside):
        write(beside, (json.dumps(description, indent=1) + "\n").encode())
    else:
        warnings.warn(
            f"{beside} was not written by save_pruned and is left as it is, so that the widths are told in "
            f"{path.name} alone, which needs nothing else; under another name both would be written",
            stacklevel=2,
        )
    return path


def load_pruned(model: M | Callable[[], M], path: str | os.PathLike[str]) -> M:
    """Load what :func:`save_pruned` saved into a network made by its own constructor.

    Parameters
    ----------
    model : nn.Module or callable
        The network as it was before it was pruned (with noise, if it was saved with noise), or something that
        makes it when called: the class itself, if it takes no arguments. Its layers are made narrower, in
        place, whatever they are; its device and training mode stay, its dtypes become those of the file. What
        is on the meta device comes to the CPU, as new parameters.
    path : path-like
        The ``.safetensors`` file.

    Returns
    -------
    nn.Module
        The network, with the widths and weights of the file.

    Raises
    ------
    ShippingError
        If the file isn't of this kind, or what it says of itself isn't what it holds. The network is as it
        was.
    LayoutError
        If it doesn't fit the network: what is missing, left over, or too small is named. Nothing is changed.
    FileNotFoundError
        If there is no such file.

    Notes
    -----
    Where this package isn't installed, these lines do the same for a network on the CPU::

        import json
        from safetensors import safe_open
        model = network()  # as it was before it was pruned
        with safe_open("small.safetensors", "pt") as file:
            layout = json.loads(file.metadata()["bmrs"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}
        for name, sizes in layout["sizes"].items():
            own = vars(model.get_submodule(name))
            own.update({k: tuple(v) if isinstance(v, list) else v for k, v in sizes.items() if k in own})
        for named in (model.named_parameters, model.named_buffers):
            for name, tensor in named(remove_duplicate=False):
                tensor.data = tensors[layout["aliases"].get(name, name)]

    Examples
    --------
    See :func:`save_pruned`.
    """
    if not callable(model):
        raise TypeError(f"model must be an nn.Module or make one when called, got {described(model)}")
    description, tensors = _read(Path(path))
    layout = Layout.from_json(description)
    fresh: M = model if isinstance(model, nn.Module) else model()  # type: ignore[assignment]
    if not isinstance(fresh, nn.Module):
        raise TypeError(
            f"model must be an nn.Module or make one when called, got {type(fresh).__name__} from it"
        )
    check_fit(fresh, layout)
    _check_ties(fresh, description["aliases"])
    values = {**tensors, **{alias: tensors[name] for alias, name in description["aliases"].items()}}
    resize(fresh, layout)
    _fill(fresh, values)
    return fresh


@torch.no_grad()
def _fill(model: nn.Module, values: dict[str, Tensor]) -> None:
    """Give all tensors of a model these values; those on the meta device, which hold none, are replaced."""
    replaced: dict[Tensor, Tensor] = {}
    for module_name, module in model.named_modules():
        for tensors in (module._parameters, module._buffers):
            for key, target in tensors.items():
                if target is None:
                    continue
                value = values[f"{module_name}.{key}".lstrip(".")]
                if not target.is_meta:
                    target.data = value.to(target.device)
                    continue
                if target not in replaced:
                    is_parameter = isinstance(target, nn.Parameter)
                    replaced[target] = nn.Parameter(value, target.requires_grad) if is_parameter else value
                tensors[key] = replaced[target]


def _state(model: nn.Module) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a model, each once, and the further names of those that are tied."""
    names: dict[Any, str] = {}
    tensors: dict[str, Tensor] = {}
    aliases: dict[str, str] = {}
    for name, value in model.state_dict().items():
        if not isinstance(value, Tensor):
            raise ShippingError(
                f"the state of {type(model).__name__} holds {name!r}, a {type(value).__name__}; only tensors "
                "can be saved without pickling code"
            )
        if value.is_meta:
            raise ShippingError(
                f"{name!r} of {type(model).__name__} is on the meta device and has no values to save"
            )
    # Buffers that a state_dict leaves out come along: surgery may have cut them, and a fresh one's are whole.
    for name, value in all_tensors(model).items():
        if value in names:
            aliases[name] = names[value]
        else:
            names[value] = name
            # A copy of its own: tensors that overlap in memory are refused by the format.
            tensors[name] = value.detach().cpu().contiguous().clone()
    return tensors, aliases


def _check_ties(model: nn.Module, aliases: dict[str, str]) -> None:
    state = all_tensors(model)
    for alias, name in aliases.items():
        if state[alias] is not state[name]:
            raise LayoutError(
                f"{alias} and {name} are one tensor in the file but two in this {type(model).__name__}; "
                "trained on, they would no longer agree"
            )


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    if not path.is_file():
        if path.is_dir():
            raise FileNotFoundError(f"{path} is a folder: give the .safetensors file in it")
        raise FileNotFoundError(f"there is no file {path}")
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(_KEY)
        tensors = load_file(path)
    except SafetensorError as error:
        raise ShippingError(f"{path} is not a whole safetensors file: {error}") from error
    if text is None:
        raise ShippingError(
            f"{path} holds weights but not the widths they belong to; it was not written by save_pruned"
        )
    description = _description(text)
    if description is None:
        raise ShippingError(
            f"{path} says nothing readable of itself: its entry {_KEY!r} is no JSON dictionary"
        )
    if description.get("format") != _FORMAT:
        raise ShippingError(
            f"{path} is of format {description.get('format')!r}, this version of bmrs reads format {_FORMAT}"
        )
    complaint = _contradiction(description, tensors)
    if complaint:
        raise ShippingError(f"{path} is damaged: {complaint}")
    return description, tensors


def _description(text: str) -> dict[str, Any] | None:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _contradiction(description: dict[str, Any], tensors: dict[str, Tensor]) -> str:
    """What in a file's description isn't what the file holds; nothing if all is well."""
    aliases = description.get("aliases")
    if not is_layout(description) or not isinstance(aliases, dict):
        return "its description lacks shapes, sizes or aliases, or holds something else under these names"
    shapes = description["shapes"]
    for alias, name in aliases.items():
        if not isinstance(name, str) or name not in tensors or shapes.get(alias) != shapes.get(name):
            return f"{alias!r} is said to be another name of {name!r}, which isn't in it in this shape"
    for name, shape in shapes.items():
        if name not in aliases and (name not in tensors or list(tensors[name].shape) != shape):
            return f"{name!r} should be of shape {shape}, and isn't in it in this shape"
    unknown = tensors.keys() - shapes.keys()
    return f"its description doesn't know {min(unknown)!r}" if unknown else ""


def _is_free(beside: Path) -> bool:
    """Whether a file's place may be taken: there is none, or one that `save_pruned` wrote."""
    try:
        text = beside.read_text(encoding="utf-8")
    except FileNotFoundError:
        return True
    except (OSError, UnicodeDecodeError):
        return False
    found = _description(text)
    return found is not None and {"format", "network", "aliases"} <= found.keys() and is_layout(found)
