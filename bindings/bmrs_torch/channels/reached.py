"""Which parameters a run didn't reach, and in the place of which modules it took others: experts."""

from __future__ import annotations

from collections.abc import Collection

from torch import nn

from bmrs_torch.layer import MultiplicativeNoise

__all__ = ["unreached", "unreached_twins"]


def unreached(model: nn.Module, reached: Collection[str]) -> dict[str, list[str]]:
    """Parameters that took no part, those of noise layers apart: by the module that holds them.

    Parameters
    ----------
    model : nn.Module
        As it was run.
    reached : collection of str
        Names of the parameters and buffers that took part.
    """
    stored = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    known = {id(stored[name]) for name in reached if name in stored}
    found = {}
    for name, module in model.named_modules():
        keys = [key for key, p in module._parameters.items() if p is not None and id(p) not in known]
        if keys and not isinstance(module, MultiplicativeNoise):
            found[name] = keys
    return found


def unreached_twins(model: nn.Module, reached: Collection[str]) -> dict[str, list[str]]:
    """Unreached modules, by name, in the place of which others of the same shape were reached: these.

    Such are the experts of a mixture, entries of one list or dict, of which values choose some.
    """
    missing = unreached(model, reached)
    twins = {name: [other for other in _beside(model, name) if other not in missing] for name in missing}
    return {name: others for name, others in twins.items() if others}


def _beside(model: nn.Module, name: str) -> list[str]:
    """Modules at the same place in other entries of a list or dict, with parameters of the same shapes."""
    parts = name.split(".")
    shapes = _shapes(model, name)
    found = []
    for depth, own in enumerate(parts):
        holder = model.get_submodule(".".join(parts[:depth]))
        if isinstance(holder, (nn.ModuleList, nn.ModuleDict)):
            keys = [key for key in holder._modules if key != own]
            found += [".".join([*parts[:depth], key, *parts[depth + 1 :]]) for key in keys]
    return [path for path in found if _shapes(model, path) == shapes]


def _shapes(model: nn.Module, path: str) -> dict[str, tuple[int, ...]] | None:
    try:
        module = model.get_submodule(path)
    except AttributeError:
        return None
    return {key: tuple(p.shape) for key, p in module._parameters.items() if p is not None}
