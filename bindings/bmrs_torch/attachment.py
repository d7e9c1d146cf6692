"""How noise sits on a layer: as its child, applied by a hook. The layer stays what and where it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from torch import Tensor, nn

from bmrs_torch.layer import MultiplicativeNoise
from bmrs_torch.wrapping import unwrapped

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Attachment", "attach", "attachments", "detach", "name_for"]


def _after(layer: nn.Module, _args: tuple[Any, ...], output: Any) -> Any:
    """Noise on what a layer gives; of several outputs in a tuple the first gets it."""
    noise = _noise(layer, "output_noise")
    if not isinstance(output, tuple):
        return noise(output)
    first = noise(output[0])
    named = getattr(output, "_replace", None)
    return (first, *output[1:]) if named is None else named(**{output._fields[0]: first})  # type: ignore[attr-defined]


def _before(layer: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Noise on what a layer takes."""
    return _noise(layer, "input_noise")(args[0]), *args[1:]


def _after_blocks(layer: nn.Module, _args: tuple[Any, ...], output: Tensor) -> Tensor:
    """Noise on what a layer gives: on equal blocks of an axis, as the groups of a GroupNorm are."""
    return _noise(layer, "output_noise")(output, in_blocks=True)  # type: ignore[no-any-return]


def _before_blocks(layer: nn.Module, args: tuple[Tensor, ...]) -> tuple[Any, ...]:
    """Noise on what a layer takes: on equal blocks of an axis, as heads are."""
    return _noise(layer, "input_noise")(args[0], in_blocks=True), *args[1:]


def _noise(layer: nn.Module, second_name: str) -> MultiplicativeNoise:
    # Not by attribute: a module looks its children up in Python, which small layers feel.
    children: dict[str, Any] = layer._modules
    noise = children.get(second_name)
    if noise is None:
        noise = children["noise"]
    return noise  # type: ignore[no-any-return]


def name_for(layer: nn.Module, *, before: bool) -> str | None:
    """The name that noise gets as a layer's child, None if the layer has attributes of these names."""
    names = ("noise", "input_noise" if before else "output_noise")
    return next((name for name in names if not hasattr(layer, name)), None)


def attach(
    layer: nn.Module, noise: MultiplicativeNoise, *, before: bool = False, blocks: bool = False
) -> None:
    """Let noise multiply what a layer gives or takes.

    Parameters
    ----------
    layer : nn.Module
        It gets a hook and a child: `noise`, or `input_noise` or `output_noise` if it has noise at the other
        end already.
    noise : MultiplicativeNoise
        It may sit on several layers.
    before : bool
        On the layer's first input instead of its output.
    blocks : bool
        On equal blocks of an axis, one for each structure; see :meth:`MultiplicativeNoise.forward`.
    """
    name = name_for(layer, before=before)
    if name is None:
        raise ValueError(
            f"a {type(layer).__name__} that has noise, or attributes of that name, can't get noise"
        )
    layer.add_module(name, noise)
    if before:
        layer.register_forward_pre_hook(_before_blocks if blocks else _before)
    else:
        layer.register_forward_hook(_after_blocks if blocks else _after)


class Attachment(NamedTuple):
    """Noise that sits on a layer."""

    name: str
    layer: nn.Module
    noise: MultiplicativeNoise
    before: bool
    blocks: bool


def attachments(model: nn.Module) -> list[Attachment]:
    """All noise of a model that sits on a layer, with the layer's name."""
    found = []
    for name, layer in unwrapped(model).named_modules():
        for hook in layer._forward_pre_hooks.values():
            if hook in (_before, _before_blocks):
                noise = _noise(layer, "input_noise")
                found.append(Attachment(name, layer, noise, before=True, blocks=hook is _before_blocks))
        for hook in layer._forward_hooks.values():
            if hook in (_after, _after_blocks):
                noise = _noise(layer, "output_noise")
                found.append(Attachment(name, layer, noise, before=False, blocks=hook is _after_blocks))
    return found


def detach(attachment: Attachment) -> None:
    """Take noise off a layer, and leave no trace of it there."""
    layer = attachment.layer
    for name in [key for key, child in layer._modules.items() if child is attachment.noise]:
        del layer._modules[name]
    hooks: Any = layer._forward_pre_hooks if attachment.before else layer._forward_hooks
    ours: tuple[Callable[..., Any], ...] = (
        (_before, _before_blocks) if attachment.before else (_after, _after_blocks)
    )
    for key in [key for key, hook in hooks.items() if hook in ours]:
        del hooks[key]
