"""``python -m bmrs_torch.warm``: compile beforehand what a CPU will need, say in the image of a container.

Machine code goes to Numba's disk cache, as it does when it is first needed: into the folder NUMBA_CACHE_DIR,
or beside the installed files. It is for processors like this one.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial

from bmrs_core import delta_f_normal, delta_f_uniform, log_mean_grad, mean, snr
from bmrs_core.backends.disk_cache import is_kept

__all__ = ["DTYPES", "main", "parts"]

DTYPES = ("float32", "bfloat16", "float16", "float64")

# A mild posterior, and a nearly uniform one, for which some formulas have a text of their own.
_MU = [-3.0, -3.0]
_SIGMA = [0.5, 1000.0]


def parts(dtypes: Sequence[str] = DTYPES) -> dict[str, Callable[[], object]]:
    """What there is to compile, by name; what several need is compiled by the first of them that is called.

    Parameters
    ----------
    dtypes : sequence of str
        Of the activations that noise will lie on, from `DTYPES`.

    Returns
    -------
    dict of names to callables

    Examples
    --------
    >>> from bmrs_torch.warm import parts
    >>> list(parts(["bfloat16"]))[:3]
    ['noise of small layers, drawn', 'noise of small layers, applied', 'noise on bfloat16']
    """
    # Imported when needed, as everywhere: binding the formulas to Numba takes longer than an import should.
    from bmrs_kernels.cpu.divergence_kernels import kl_kernels
    from bmrs_kernels.cpu.noise_kernels import noise_kernels
    from bmrs_kernels.cpu.scale_kernels import scale_kernels
    from bmrs_kernels.cpu.together_kernels import together_kernels

    found: dict[str, Callable[[], object]] = {}
    if set(dtypes) - {"float64"}:
        found["noise of small layers, drawn"] = together_kernels
        found["noise of small layers, applied"] = scale_kernels
    for dtype in dtypes:
        found[f"noise on {dtype}"] = partial(noise_kernels, dtype)
    for dtype in dict.fromkeys("float64" if dtype == "float64" else "float32" for dtype in dtypes):
        found[f"divergence, {dtype} parameters"] = partial(kl_kernels, dtype)
    return found | {
        "E[θ]": lambda: mean(_MU, _SIGMA),
        "E[θ], gradient": lambda: log_mean_grad(_MU, _SIGMA),
        "SNR": lambda: snr(_MU, _SIGMA),
        "ΔF_N": lambda: delta_f_normal(_MU, _SIGMA, sigma_p=0.1),
        "ΔF_U": lambda: (
            delta_f_uniform(_MU, _SIGMA),
            delta_f_uniform(_MU, _SIGMA, log_a_reduced=-19.9, log_b_reduced=-0.1),
        ),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Compile, print the seconds of each part, and return 1 if nothing could be kept."""
    parser = argparse.ArgumentParser(prog="python -m bmrs_torch.warm", description=__doc__)
    parser.add_argument(
        "--dtype",
        action="append",
        choices=DTYPES,
        help="of activations; may be repeated (default: all)",
    )
    options = parser.parse_args(arguments)
    for name, compile_part in parts(options.dtype or DTYPES).items():
        start = time.perf_counter()
        compile_part()
        sys.stdout.write(f"{time.perf_counter() - start:7.1f} s  {name}\n")
        sys.stdout.flush()
    return 0 if is_kept() else 1


if __name__ == "__main__":
    sys.exit(main())
