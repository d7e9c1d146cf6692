"""Save a pruned network without its code, and load it into a fresh one made by the user's own constructor.

One file of safetensors holds the weights and, in its header, the layout; so it is written whole or not at
all. Beside it lies the layout as JSON, for people to read.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn

from bmrs_torch.shipping.layout import Layout, LayoutError, all_tensors, check_fit, resize

M = TypeVar("M", bound=nn.Module)

_KEY = "bmrs"
_FORMAT = 1


class ShippingError(ValueError):
    """A network can't be saved, or a file can't be loaded into the network at hand."""


def save_pruned(model: nn.Module, path: str | os.PathLike[str]) -> Path:
    """Save a network and the widths of its layers; no code is pickled.

    Parameters
    ----------
    model : nn.Module
        Any network: pruned and folded, or still with its noise, masks included.
    path : path-like
        Where to: a ``.safetensors`` file, with a ``.json`` file of the same name beside it that says in plain
        words how wide every layer is. The weights' file needs nothing else; both are written under another
        name first, so a crash or a full disk leaves what was there before.

    Returns
    -------
    Path
        Of the ``.safetensors`` file.

    Raises
    ------
    ShippingError
        If the path has another suffix, or the network's state holds more than tensors.

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
    _write(path, save(tensors, metadata={_KEY: json.dumps(description)}))
    _write(path.with_suffix(".json"), (json.dumps(description, indent=1) + "\n").encode())
    return path


def load_pruned(model: M | Callable[[], M], path: str | os.PathLike[str]) -> M:
    """Load what :func:`save_pruned` saved into a network made by its own constructor.

    Parameters
    ----------
    model : nn.Module or callable
        The network as it was before it was pruned (with noise, if it was saved with noise), or something that
        makes it when called: the class itself, if it takes no arguments. Its layers are made narrower, in
        place, whatever they are; its device and training mode stay, its dtypes become those of the file.
    path : path-like
        The ``.safetensors`` file.

    Returns
    -------
    nn.Module
        The network, with the widths and weights of the file.

    Raises
    ------
    ShippingError
        If the file isn't of this kind.
    LayoutError
        If it doesn't fit the network: what is missing, left over, or too small is named. Nothing is changed.
    FileNotFoundError
        If there is no such file.

    Examples
    --------
    See :func:`save_pruned`.
    """
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
    for name, target in all_tensors(fresh).items():
        target.data = values[name].to(target.device)
    return fresh


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
    description: dict[str, Any] = json.loads(text)
    if description.get("format") != _FORMAT:
        raise ShippingError(
            f"{path} is of format {description.get('format')}, this version of bmrs reads format {_FORMAT}"
        )
    return description, tensors


def _write(path: Path, content: bytes) -> None:
    """Replace a file by new content at once; until then, and if that fails, the old one stays."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with unfinished.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
