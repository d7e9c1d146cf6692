"""How noise sits on a layer: as its child, applied by a hook. The layer stays what and where it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from bmrs_torch.layer import MultiplicativeNoise
from bmrs_torch.wrapping import unwrapped

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["Attachment", "attach", "attachments", "detach", "name_for", "takes_state"]


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


def takes_state(layer: nn.RNNBase) -> Iterator[tuple[str, int]]:
    """Weights by which a recurrent layer takes its own state, and how many columns each unit has there."""
    directions = ("", "_reverse") if layer.bidirectional else ("",)
    for number in range(layer.num_layers):
        for direction in directions:
            yield f"weight_hh_l{number}{direction}", 1
            if number:
                yield f"weight_ih_l{number}{direction}", len(directions)


def _before_state(layer: nn.RNNBase, _args: tuple[Any, ...]) -> None:
    """Noise on the state of a recurrent layer where it takes it itself, for the call that begins.

    The factor of each unit is in the weights then, so that the layer runs as fast as without: there is one
    for all samples and steps. Until the call ends these weights hide the parameters of their names.
    """
    noise, own = _noise(layer, "output_noise"), vars(layer)
    like: Any = layer.weight_hh_l0
    factor = noise(like.new_ones(1, noise.num_structures)).squeeze(0)
    scaled = {name: getattr(layer, name) * factor.repeat(times) for name, times in takes_state(layer)}
    own[_DURING_CALL] = factor, {name: own[name] for name in scaled if name in own}
    own.update(scaled)


_DURING_CALL = "_noise_on_state"


def _after_state(layer: nn.RNNBase, _args: tuple[Any, ...], output: Any) -> Any:
    """The same noise on all that a recurrent layer gives of its state: every step, the last one, cells."""
    own = vars(layer)
    if _DURING_CALL not in own:
        return None
    factor, hidden = own.pop(_DURING_CALL)
    for name, _ in takes_state(layer):
        own.pop(name, None)
    own.update(hidden)
    if output is None:  # the call failed
        return None
    steps, last = output
    wide = factor.repeat(2 if layer.bidirectional else 1)
    packed = isinstance(steps, PackedSequence)
    steps = steps._replace(data=steps.data * wide) if packed else steps * wide
    if not isinstance(last, tuple):
        return steps, last * factor
    return steps, (last[0] * factor, last[1] if layer.proj_size else last[1] * factor)


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
    layer: nn.Module,
    noise: MultiplicativeNoise,
    *,
    before: bool = False,
    blocks: bool = False,
    state: bool = False,
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
    state : bool
        On the state of a recurrent layer, an ``nn.RNNBase``, wherever it is taken: by the layer itself at its
        next step and in its next layer, and by what follows. Structure j is unit j of all its layers and
        directions, since it has as many in each; all samples and steps of a call share one noise.
    """
    name = name_for(layer, before=before)
    if name is None:
        raise ValueError(
            f"a {type(layer).__name__} that has noise, or attributes of that name, can't get noise"
        )
    layer.add_module(name, noise)
    if state:
        layer.register_forward_pre_hook(_before_state)
        layer.register_forward_hook(_after_state, always_call=True)
    elif before:
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
    state: bool = False


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
        if _after_state in layer._forward_hooks.values():
            noise = _noise(layer, "output_noise")
            found.append(Attachment(name, layer, noise, before=False, blocks=False, state=True))
    return found


def detach(attachment: Attachment) -> None:
    """Take noise off a layer, and leave no trace of it there."""
    layer = attachment.layer
    for name in [key for key, child in layer._modules.items() if child is attachment.noise]:
        del layer._modules[name]
    if attachment.state:
        _unhook(layer, (_before_state, _after_state))
    else:
        _unhook(layer, (_before, _before_blocks) if attachment.before else (_after, _after_blocks))


def _unhook(layer: nn.Module, ours: tuple[Callable[..., Any], ...]) -> None:
    hooks: tuple[Any, ...] = (layer._forward_pre_hooks, layer._forward_hooks)
    for key in [key for found in hooks for key, hook in found.items() if hook in ours]:
        for found in (*hooks, layer._forward_hooks_always_called):
            found.pop(key, None)
