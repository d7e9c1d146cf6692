"""The noise operation and its divergence on the CPU: addresses in, results written in place.

Nothing here knows of torch: whoever holds the memory passes addresses and strides. See `contract` for what
is computed.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import numpy as np

from bmrs_kernels.contract import NoiseLayout
from bmrs_kernels.cpu.tasks import run_tasks
from bmrs_kernels.strides import Traversal

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bmrs_kernels.cpu.divergence_kernels import KlKernels
    from bmrs_kernels.cpu.noise_kernels import NoiseKernels
    from bmrs_kernels.cpu.scale_kernels import ScaleKernels
    from bmrs_kernels.cpu.together_kernels import TogetherKernels

__all__ = [
    "add_gradients_together",
    "all_unchanged",
    "divergence",
    "draw_together",
    "gathered",
    "noise_backward",
    "noise_forward",
    "scale_backward",
    "scale_forward",
    "scaled_gradients",
    "unchanged",
]


def noise_forward(
    dtype: str,
    plan: Traversal,
    tensors: tuple[int, int],
    parameters: tuple[int, int, int],
    seed: int,
    layout: NoiseLayout,
    threads: int = 1,
) -> int:
    """Write y.

    Parameters
    ----------
    dtype : {"float32", "float64", "bfloat16", "float16"}
        Format of x and y.
    plan : Traversal
        Of x and y, in this order.
    tensors : tuple of int
        Addresses of x and y.
    parameters : tuple of int
        Addresses of mu, log_sigma and mask (0: all ones): contiguous float64 for float64, else float32.
    seed : int
        64 bits, signed.
    layout : NoiseLayout
        As the plan was made for.
    threads : int
        At most so many work at it.

    Returns
    -------
    int
        -1, or the first structure whose parameters are unusable; then nothing was written.
    """
    kernels = _noise_kernels(dtype)
    arguments = (plan.spec_address, *tensors, *parameters, seed, layout.log_a, layout.log_b)
    if threads == 1 or plan.tasks == 1:
        return int(kernels.forward(*arguments, 0, plan.units))
    ranges = plan.ranges()
    return run_tasks(lambda i: int(kernels.forward(*arguments, *ranges[i])), plan.tasks, threads)


def noise_backward(
    dtype: str,
    plan: Traversal,
    tensors: tuple[int, int, int],
    parameters: tuple[int, int, int],
    gradients: tuple[int, int],
    seed: int,
    layout: NoiseLayout,
    threads: int = 1,
) -> int:
    """Write dx, d_mu and d_log_sigma.

    Parameters
    ----------
    dtype, parameters, seed, layout, threads
        As for :func:`noise_forward`.
    plan : Traversal
        Of dy, x and dx, in this order.
    tensors : tuple of int
        Addresses of dy, x and dx; dx may be 0: not wanted.
    gradients : tuple of int
        Addresses of d_mu and d_log_sigma, of the dtype of the parameters.

    Returns
    -------
    int
        As for :func:`noise_forward`.
    """
    kernels = _noise_kernels(dtype)
    arguments = (plan.spec_address, *tensors, *parameters, seed, layout.log_a, layout.log_b)
    if threads == 1 or plan.tasks == 1:
        return int(kernels.backward_serial(*arguments, plan.units, plan.tasks, plan.width, *gradients))
    sums = np.empty((plan.tasks, 2, plan.width))
    ranges = plan.ranges()
    place, step = sums.ctypes.data, sums.strides[0]
    bad = run_tasks(
        lambda i: int(kernels.backward(*arguments, *ranges[i], place + i * step)), plan.tasks, threads
    )
    if bad < 0:
        kernels.reduce(place, plan.tasks, plan.width, plan.structures, plan.repeats, *gradients)
    return bad


def scale_forward(plan: Traversal, tensors: tuple[int, int], theta: tuple[int, int]) -> None:
    """Write y = x theta for noise per sample that is drawn already, in float32.

    Parameters
    ----------
    plan, tensors
        As for :func:`noise_forward`.
    theta : tuple of int
        Address of [samples, structures], and elements from one sample's to the next.
    """
    _scale_kernels().forward(plan.spec_address, *tensors, *theta, plan.units, plan.width)


def scale_backward(
    plan: Traversal, tensors: tuple[int, int, int], theta: tuple[int, int], d_theta: int
) -> None:
    """Write dx and, at the address `d_theta`, the contiguous gradient of theta; see :func:`scale_forward`."""
    _scale_kernels().backward(plan.spec_address, *tensors, *theta, d_theta, plan.units, plan.width)


def divergence(
    dtype: str,
    addresses: NDArray[np.int64],
    sizes: NDArray[np.int64],
    bounds: NDArray[np.float64],
    gradients: NDArray[np.floating] | None,
) -> tuple[NDArray[np.float64], NDArray[np.int64], int]:
    """Return (KL per layer in nats, kept structures per layer, -1 or the first bad structure).

    Parameters
    ----------
    dtype : {"float32", "float64"}
        Of the parameters.
    addresses : ndarray of int64, shape (3, layers)
        Of mu, log_sigma and mask of each layer, contiguous.
    sizes : ndarray of int64
        Structures of each layer.
    bounds : ndarray of float64, shape (2, layers)
        log_a and log_b of each layer.
    gradients : ndarray, shape (2, structures of all layers), or None
        Where the derivatives by mu and log_sigma go.
    """
    kernels = _kl_kernels(dtype)
    values, kept = np.empty(sizes.size), np.empty(sizes.size, np.int64)
    room = np.empty((2, 0), dtype) if gradients is None else gradients
    wanted = gradients is not None
    bad = kernels.divergence(*addresses, sizes, *bounds, values, kept, room[0], room[1], wanted)
    return values, kept, int(bad)


def scaled_gradients(
    dtype: str, sizes: NDArray[np.int64], weights: NDArray[np.float64], gradients: NDArray[np.floating]
) -> NDArray[np.floating]:
    """Return the gradients of :func:`divergence`, each times the weight of its layer."""
    out = np.empty_like(gradients)
    _kl_kernels(dtype).scale(sizes, weights, gradients[0], gradients[1], out[0], out[1])
    return out


def gathered(
    addresses: NDArray[np.int64], sizes: NDArray[np.int64], width: int
) -> tuple[NDArray[np.float32], int, int]:
    """Return the parameters of several layers side by side, how many structures are masked, and the address.

    Parameters
    ----------
    addresses : ndarray of int64, shape (3, layers)
        Of mu, log_sigma and mask of each layer, contiguous float32.
    sizes : ndarray of int64
        Structures of each layer.
    width : int
        Their sum.
    """
    parameters = np.empty((3, width), np.float32)
    masked, address = _together_kernels().gather(*addresses, sizes, parameters)
    return parameters, masked, address


def unchanged(addresses: tuple[int, int, int], parameters: int, width: int, size: int) -> bool:
    """Tell whether the parameters of a layer are still those that were gathered.

    Parameters
    ----------
    addresses : tuple of int
        Of mu, log_sigma and mask of the layer.
    parameters : int
        Address of its first structure in what :func:`gathered` returned.
    width, size : int
        Structures of all layers gathered, and of this.
    """
    return bool(_together_kernels().unchanged(*addresses, parameters, width, size))


def all_unchanged(
    addresses: NDArray[np.int64], sizes: NDArray[np.int64], parameters: NDArray[np.float32]
) -> bool:
    """Tell whether the parameters of all layers are still what :func:`gathered` returned for them."""
    return bool(_together_kernels().all_unchanged(*addresses, sizes, parameters))


def draw_together(
    parameters: NDArray[np.float32],
    sizes: NDArray[np.int64],
    bounds: tuple[float, float],
    seeds: NDArray[np.int64],
    theta: NDArray[np.float32],
    derivatives: NDArray[np.float32],
) -> int:
    """Draw the noise of several layers, each from its own seed; return -1 or the first bad structure.

    Parameters
    ----------
    parameters : ndarray, shape (3, structures of all layers)
        As :func:`gathered`.
    sizes : ndarray of int64
        Structures of each layer.
    bounds : tuple of float
        log_a and log_b.
    seeds : ndarray of int64, shape (layers,)
        64 bits, signed.
    theta : ndarray, shape (samples, structures of all layers)
        Where it goes.
    derivatives : ndarray, shape (2, samples, structures of all layers)
        Where those of theta by mu and log_sigma go.
    """
    return int(_together_kernels().draw(parameters, sizes, *bounds, seeds, theta, *derivatives))


def add_gradients_together(
    d_theta: NDArray[np.float32],
    sizes: NDArray[np.int64],
    starts: NDArray[np.int64],
    derivatives: NDArray[np.float32],
    gradients: NDArray[np.float32],
) -> None:
    """Add the gradients by mu and log_sigma that come of that of theta, each rounded to float32 before.

    Parameters
    ----------
    d_theta, sizes, derivatives
        Of the shapes that :func:`draw_together` takes.
    starts : ndarray of int64
        Where each layer's structures start in `gradients`.
    gradients : ndarray, shape (2, structures)
        What is added to.
    """
    _together_kernels().reduce(d_theta, sizes, starts, *derivatives, *gradients)


@functools.cache
def _noise_kernels(dtype: str) -> NoiseKernels:
    # Imported when first needed: binding the formulas to Numba takes longer than an import should.
    from bmrs_kernels.cpu.noise_kernels import noise_kernels

    return noise_kernels(dtype)


@functools.cache
def _kl_kernels(dtype: str) -> KlKernels:
    from bmrs_kernels.cpu.divergence_kernels import kl_kernels

    return kl_kernels(dtype)


@functools.cache
def _together_kernels() -> TogetherKernels:
    from bmrs_kernels.cpu.together_kernels import together_kernels

    return together_kernels()


@functools.cache
def _scale_kernels() -> ScaleKernels:
    from bmrs_kernels.cpu.scale_kernels import scale_kernels

    return scale_kernels()
