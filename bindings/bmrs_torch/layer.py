"""The layer: parameters of the noise and the mask of what is pruned, for one group of structures."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from bmrs_kernels.contract import Share
from bmrs_torch.operation.arguments import check_whole
from bmrs_torch.operation.checks import (
    check_bounds,
    check_device,
    check_input,
    check_parameters,
    check_share,
    structure_axis,
)
from bmrs_torch.operation.memory import is_ordinary
from bmrs_torch.operation.moments import noise_mean
from bmrs_torch.operation.multiplicative_noise import multiplicative_noise
from bmrs_torch.operation.together import DrawingTogether, is_small, multiplied
from bmrs_torch.wrapping import unwrapped

INITIAL_MU = 0.0
INITIAL_LOG_SIGMA = -5.0


class MultiplicativeNoise(nn.Module):
    """Learnt multiplicative noise on the structures of a layer (paper, Eq. 1 and 7).

    In training the activations of structure c are multiplied by a random θ_c, in evaluation by E[θ_c], kept
    between calls while the parameters and the mask are what they were. Structures whose mask is 0 give 0 in
    both.

    Parameters
    ----------
    num_structures : int
        Neurons or filters, at least 1.
    axis : int
        Axis of the activations that counts the structures; by default the one that BatchNorm counts, too.
    share : {"sample", "batch", "element"}
        Over what one θ is shared; see :func:`multiplicative_noise`.
    log_a, log_b : float
        Bounds of log θ, by default the paper's: see :class:`LogUniform`, the prior.

    Attributes
    ----------
    mu, log_sigma : Parameter, shape (num_structures,)
        Mean (starts at 0) and log standard deviation (starts at −5) of the normal before truncation, of log
        θ.
    mask : Tensor, shape (num_structures,)
        A buffer: 1 where a structure is kept, 0 where it is pruned.

    Raises
    ------
    ValueError
        For fewer than one structure, an unknown `share`, or bounds out of order.

    Examples
    --------
    >>> import torch
    >>> from bmrs_torch import MultiplicativeNoise
    >>> layer = MultiplicativeNoise(4).eval()
    >>> layer(torch.ones(2, 4)).shape
    torch.Size([2, 4])
    """

    mu: nn.Parameter
    log_sigma: nn.Parameter
    mask: Tensor

    def __init__(
        self,
        num_structures: int,
        *,
        axis: int = 1,
        share: Share = "sample",
        log_a: float = -20.0,
        log_b: float = 0.0,
    ) -> None:
        super().__init__()
        check_whole("num_structures", num_structures, "the number of neurons, filters or heads")
        if num_structures < 1:
            raise ValueError(f"num_structures must be at least 1, got {num_structures}")
        check_whole("axis", axis, "an axis of the activations")
        check_share(share)
        check_bounds(log_a, log_b)
        self.axis, self.share, self.log_a, self.log_b = int(axis), share, float(log_a), float(log_b)
        number = int(num_structures)
        self.mu = nn.Parameter(torch.full((number,), INITIAL_MU))
        self.log_sigma = nn.Parameter(torch.full((number,), INITIAL_LOG_SIGMA))
        self.register_buffer("mask", torch.ones(number))
        self._fixed = False
        self.drawing: DrawingTogether | None = None
        self._expectation: tuple[Tensor, Tensor, Tensor, Tensor] | None = None

    def reset_parameters(self) -> None:
        """Begin anew: μ = 0, log σ = −5, nothing pruned; what ``to_empty`` leaves has no values at all."""
        with torch.no_grad():
            self.mu.fill_(INITIAL_MU)
            self.log_sigma.fill_(INITIAL_LOG_SIGMA)
            self.mask.fill_(1)

    @property
    def num_structures(self) -> int:
        """Number of structures, the pruned ones included."""
        return self.mu.numel()

    def kept(self) -> Tensor:
        """Boolean mask of the structures that are not pruned, shape (num_structures,)."""
        return self.mask != 0

    def expected_noise(self) -> Tensor:
        """E[θ]·mask, float64, shape (num_structures,); differentiable in the parameters."""
        kept = self.kept()
        mu, log_sigma = torch.where(kept, self.mu, 0.0), torch.where(kept, self.log_sigma, 0.0)
        # On another device a check would wait for it; unusable parameters give NaN there.
        if is_ordinary(self.mu) and not torch.compiler.is_compiling():
            check_parameters(mu, log_sigma)
        return noise_mean(mu, log_sigma, log_a=self.log_a, log_b=self.log_b) * self.mask

    def _expected_noise_again(self) -> Tensor:
        """E[θ]·mask without a graph: kept, and compared with what it was computed from, so never stale."""
        now = (self.mu.detach(), self.log_sigma.detach(), self.mask)
        cached = self._expectation
        if cached is not None and all(map(_identical, cached[:3], now)):
            return cached[3]
        mu, log_sigma, mask = (t.clone() for t in now)
        scale = self.expected_noise().detach()
        self._expectation = (mu, log_sigma, mask, scale)
        return scale

    def forward(self, x: Tensor, *, in_blocks: bool = False) -> Tensor:
        """Multiply each structure of `x` by its noise (training) or its expectation (evaluation).

        Parameters
        ----------
        x : Tensor
            Of floating-point numbers, with an axis of `num_structures`.
        in_blocks : bool
            That axis holds a block of entries for each structure, one after another: heads, groups. Then
            `axis` is that of the structures once the blocks lie on two axes, (structures, entries of each).
        """
        if in_blocks:
            first = self.axis % (x.ndim + 1)
            return self.forward(self._blocks(x)).flatten(first, first + 1)
        if self.training and not self._fixed:
            if self.share == "sample" and is_small(self, x, self.axis):
                return multiplied(self, x, self.axis)
            return multiplicative_noise(
                x,
                self.mu,
                self.log_sigma,
                axis=self.axis,
                share=self.share,
                log_a=self.log_a,
                log_b=self.log_b,
                mask=self.mask,
            )
        # On another device a comparison would wait for it.
        learns = torch.is_grad_enabled() and not self._fixed
        again = not (learns or torch.compiler.is_compiling()) and is_ordinary(self.mu)
        scale = self._expected_noise_again() if again else self.expected_noise()
        # FSDP gathers parameters that required a gradient when it was made, and would give them one.
        return self.scaled(x, scale.detach() if self._fixed else scale)

    def _blocks(self, x: Tensor) -> Tensor:
        blocks: Tensor = x.unflatten(self.axis % (x.ndim + 1), (self.num_structures, -1))
        return blocks

    def scaled(self, x: Tensor, scale: Tensor, *, in_blocks: bool = False) -> Tensor:
        """Multiply each structure of `x` by its entry of `scale`, shape (num_structures,)."""
        if in_blocks:
            first = self.axis % (x.ndim + 1)
            return self.scaled(self._blocks(x), scale).flatten(first, first + 1)
        if x.is_nested:  # of torch's transformers: samples of their own lengths, one after another
            parts = [self.scaled(part.unsqueeze(0), scale).squeeze(0) for part in x.unbind()]
            return torch.nested.as_nested_tensor(parts)
        front = structure_axis(x, self.axis, self.share)
        check_input(x, self.mu, front)
        check_device(x, mu=self.mu, mask=self.mask)
        return x * scale.to(x.dtype).view(tuple(-1 if i == front else 1 for i in range(x.ndim)))

    def _load_from_state_dict(
        self, state_dict: Any, prefix: str, _metadata: Any, _strict: Any, missing: Any, left: Any, errors: Any
    ) -> None:
        super()._load_from_state_dict(state_dict, prefix, _metadata, _strict, missing, left, errors)
        mask = state_dict.get(f"{prefix}mask")
        if isinstance(mask, Tensor) and 0 < mask.numel() < self.num_structures:
            errors.append(
                f"the noise {prefix.rstrip('.') or '(the model)'} has {mask.numel()} structures in this "
                "state and "
                f"{self.num_structures} here: the state is of a network that was made smaller. Give this "
                "one its shapes first: of a Pruner, load the pruner's state, then the model's, then the "
                "optimizer's; of a file, use load_pruned"
            )

    def __getstate__(self) -> dict[str, Any]:
        """What a copy or a pickle holds: not what is kept from one call to the next, nor other layers."""
        return {**self.__dict__, "drawing": None, "_expectation": None}

    @property
    def fixed(self) -> bool:
        """Whether the noise is E[θ] in training too; see :meth:`fix`."""
        return self._fixed

    def fix(self, fixed: bool = True) -> MultiplicativeNoise:
        """Multiply by E[θ] in training too and learn the noise no more, for fine-tuning; or undo that.

        Parameters
        ----------
        fixed : bool
            Whether the noise is to be fixed.

        Returns
        -------
        MultiplicativeNoise
            This layer.

        Examples
        --------
        >>> import torch
        >>> from bmrs_torch import MultiplicativeNoise
        >>> layer = MultiplicativeNoise(2).fix()
        >>> layer(torch.ones(1, 2)).equal(layer.eval()(torch.ones(1, 2)))
        True
        """
        self._fixed = fixed
        for parameter in (self.mu, self.log_sigma):
            parameter.requires_grad_(not fixed)
            parameter.grad = None
        return self

    def extra_repr(self) -> str:
        """Say how many structures there are and are kept, and how the noise is laid out."""
        pruned = self.num_structures - int(self.kept().sum())
        return (
            f"{self.num_structures}, pruned={pruned}, axis={self.axis}, share={self.share!r}, "
            f"log_a={self.log_a:g}, log_b={self.log_b:g}"
        )


def _identical(a: Tensor, b: Tensor) -> bool:
    return a.dtype == b.dtype and a.device == b.device and torch.equal(a, b)


def noise_layers(model: nn.Module) -> dict[str, MultiplicativeNoise]:
    """Find the noise layers of a model by name, in its own order.

    Parameters
    ----------
    model : nn.Module
        Any model; subclasses of the layer are found too, and a layer used twice is listed once. Of one that
        is wrapped, by DistributedDataParallel for instance, the names are those in the model inside.

    Returns
    -------
    dict of str to MultiplicativeNoise

    Raises
    ------
    ValueError
        If there is none: nothing could be regularised or pruned.
    TypeError
        If it is no module.

    Examples
    --------
    >>> from torch import nn
    >>> from bmrs_torch import MultiplicativeNoise, noise_layers
    >>> list(noise_layers(nn.Sequential(nn.Linear(2, 3), MultiplicativeNoise(3))))
    ['1']
    """
    model = unwrapped(model)
    layers: dict[str, MultiplicativeNoise] = {}
    if isinstance(model, MultiplicativeNoise):
        layers[""] = model
    _collect(model, "", layers, {model})
    if not layers:
        raise ValueError(
            f"{type(model).__name__} has no MultiplicativeNoise layer, so there is no noise to regularise or "
            "prune; insert_noise(model) puts one after each hidden layer"
        )
    return layers


def _collect(
    module: nn.Module, prefix: str, layers: dict[str, MultiplicativeNoise], seen: set[nn.Module]
) -> None:
    """Find what named_modules would, in a fifth of its time: objectives come here every step."""
    for name, child in module._modules.items():
        if child is None or not (child._modules or isinstance(child, MultiplicativeNoise)) or child in seen:
            continue
        seen.add(child)
        if isinstance(child, MultiplicativeNoise):
            layers[prefix + name] = child
        if child._modules:
            _collect(child, f"{prefix}{name}.", layers, seen)
