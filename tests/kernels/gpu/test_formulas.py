"""The formulas bound to Triton: they compile for GPUs without one, and agree with the CPU's."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bmrs_core.backends.formula import FORMULAS
from bmrs_core.evaluation import run

pytest.importorskip("triton", reason="Triton comes with a CUDA build of torch, or from .ci/triton.txt")

ROOT = Path(__file__).parents[3]
EPS = 2.0**-23
TARGETS = {
    "sm_80": ("cuda", 80, 32),
    "sm_90": ("cuda", 90, 32),
    "sm_100": ("cuda", 100, 32),
    "gfx942": ("hip", "gfx942", 64),
}
OF_THE_NOISE_LAYER = ("kl_divergence_grad", "log_quantile_grad", "mean")


def compiled(name: str, target: str) -> Any:
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from tests.kernels.gpu.probe import probe_of

    kernel, constants = probe_of(name)
    types = {"x_ptr": "*fp32", "out_ptr": "*fp32", "n": "i32"} | dict.fromkeys(
        [*constants, "BLOCK"], "constexpr"
    )
    source = ASTSource(kernel, types, constexprs={**constants, "BLOCK": 128})
    options = {"num_warps": 4, "enable_fp_fusion": True}
    return triton.compile(source, target=GPUTarget(*TARGETS[target]), options=options)


def spilled_bytes(ptx: str, arch: int) -> int:
    """What the assembler reports of stack, spill stores and spill loads."""
    from triton.backends.nvidia.compiler import get_ptxas

    suffix = "a" if arch >= 90 else ""
    command = [get_ptxas(arch).path, "-v", f"--gpu-name=sm_{arch}{suffix}", "/dev/stdin", "-o", "/dev/null"]
    report = subprocess.run(command, input=ptx, capture_output=True, text=True, check=True).stderr
    found = re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", report)
    assert found, report
    return sum(map(int, found.groups()))


def test_formulas_have_names_of_their_own() -> None:
    """Two of one name in one kernel would silently be one and the same."""
    from bmrs_kernels.gpu.formulas import FORMULAS as BOUND

    names = {f"{function.fn.__module__}.{function.fn.__qualname__}" for function in BOUND.values()}
    assert len(names) == len(BOUND)


@pytest.mark.parametrize("name", FORMULAS)
def test_every_formula_compiles_in_single_precision(name: str) -> None:
    ptx = compiled(name, "sm_90").asm["ptx"]
    assert ".f64" not in ptx


@pytest.mark.parametrize("name", OF_THE_NOISE_LAYER)
@pytest.mark.parametrize("target", ["sm_80", "sm_90", "sm_100"])
def test_the_noise_layers_formulas_stay_in_registers(name: str, target: str) -> None:
    assert spilled_bytes(compiled(name, target).asm["ptx"], TARGETS[target][1]) == 0  # type: ignore[arg-type]


@pytest.mark.parametrize("name", OF_THE_NOISE_LAYER)
def test_the_noise_layers_formulas_compile_for_amd(name: str) -> None:
    assert re.search(r"\.vgpr_spill_count:\s+0\b", compiled(name, "gfx942").asm["amdgcn"])


def typical_inputs(count: int = 256) -> dict[str, np.ndarray[Any, np.dtype[np.float64]]]:
    """Float32 arguments of every formula, from where training takes the parameters."""
    draw = np.random.default_rng(20)
    mu, sigma = draw.uniform(-25, 5, count), np.exp(draw.uniform(-5, 4, count))
    u, a, b = draw.uniform(0.001, 0.999, count), np.full(count, -20.0), np.zeros(count)
    by_count = {4: (mu, sigma, a, b), 5: (u, mu, sigma, a, b)}
    special = {
        "log_mass": (a + 4, b - 5, mu, sigma, a, b),
        "reduced_prior": (a, b + 1e-6, a, b),
        "delta_f_normal": (mu, sigma, a, b + 1e-6, b + 1.2533141, b + 0.79788456, b + 1, a, b),
        "delta_f_uniform": (mu, sigma, a + 4, b - 5, a, b),
        "log_ndtr_diff": (mu, mu + sigma),
        "log_erf_diff": (mu / 4, (mu + sigma) / 4),
        "delta_f_gaussian": (mu, sigma, b, 2 * sigma, b, sigma / 4),
        "reduced_posterior": (mu, sigma, a, b + 1, a, b),
        "log_uniform_pdf": (u, a, b),
        "log_uniform_cdf": (u, a, b),
        "log_uniform_quantile": (u, a, b),
        "log_density": (-20 * u, mu, sigma, a, b),
    }
    return {
        name: np.stack(special.get(name) or by_count[formula.inputs]).astype(np.float32).astype(np.float64)
        for name, formula in FORMULAS.items()
    }


@pytest.fixture(scope="module")
def interpreted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Every formula in Triton's interpreter, which wants a process of its own."""
    folder = tmp_path_factory.mktemp("interpreter")
    np.savez(folder / "inputs.npz", **typical_inputs())  # type: ignore[arg-type]  # the arrays' names
    path = os.pathsep.join([str(ROOT), *sys.path])
    command = [sys.executable, "-m", "tests.kernels.gpu.interpreted_formulas"]
    subprocess.run(
        [*command, str(folder / "inputs.npz"), str(folder / "results.npz")],
        check=True,
        cwd=folder,
        env={**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": path, "PYTHONWARNINGS": "ignore"},
    )
    with np.load(folder / "results.npz") as results:
        return dict(results)


@pytest.mark.parametrize("name", FORMULAS)
def test_single_precision_agrees_with_the_cpu(name: str, interpreted: dict[str, Any]) -> None:
    inputs = typical_inputs()[name]
    expected = tuple(np.empty(inputs.shape[1]) for _ in range(FORMULAS[name].outputs))
    run(name, tuple(inputs), expected)
    for found, truth in zip(interpreted[name].astype(np.float64), expected, strict=True):
        representable = abs(truth) > 2.0**-126
        assert np.isfinite(found[np.isfinite(truth)]).all()
        error = abs(found - truth)[representable] / abs(truth[representable]) / EPS
        # Rounding, amplified where a value is near its zero: float32 is for the noise, decisions are float64.
        assert np.median(error) <= 4
        assert np.quantile(error, 0.9) <= 32
