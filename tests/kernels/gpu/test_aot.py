"""The GPU kernels compiled without a GPU: what the compiler makes of them must stay as lean as it is."""

from __future__ import annotations

import pytest

pytest.importorskip("triton", reason="Triton comes with a CUDA build of torch, or from .ci/triton.txt")

from benchmarks.aot import __main__ as aot
from benchmarks.aot.budget import cost
from benchmarks.aot.compilation import TARGETS, compile_launch
from benchmarks.aot.problems import DTYPES, PROBLEMS, LaunchProblem, launches, parameter_launches
from benchmarks.aot.resources import Resources, resources
from bmrs_kernels.gpu.launch import Launch

NVIDIA = ("sm_80", "sm_90", "sm_100")
# Between them they have every kernel; what is rarer is compiled for one target only.
COMMON = ("maps", "tokens", "neurons", "map-elements")
DRAWING = ("neurons", "map-elements")
CASES = [
    *((problem, dtype, target) for problem in COMMON for dtype in DTYPES for target in TARGETS),
    *((problem, dtype, "sm_90") for problem in ("channels-last", "odd-maps") for dtype in DTYPES),
    *(("odd-elements", dtype, "sm_90") for dtype in ("float32", "bfloat16")),
]
ROW_NOISE = ("maps", "channels-last", "tokens", "odd-maps")


def found_in(launch: Launch, target: str) -> Resources:
    found = resources(compile_launch(launch, target))
    name = launch.kernel.__name__
    assert found.spilled == 0, f"{name} keeps {found.spilled} bytes a thread in memory"
    assert found.float64 == 0, f"{name} computes in float64"
    return found


@pytest.mark.parametrize(("problem", "dtype", "target"), CASES)
def test_kernels_stay_in_registers_in_single_precision(problem: str, dtype: str, target: str) -> None:
    for launch in launches(PROBLEMS[problem], dtype):
        found = found_in(launch, target)
        of_the_size_of_x = launch.kernel.__name__.startswith(("scale_", "element_"))
        # Of 16 bits a thread draws for 8 bytes at a time: there arithmetic is what takes the time.
        due = PROBLEMS[problem].wide and (dtype == "float32" or problem not in DRAWING)
        if of_the_size_of_x and due and target in NVIDIA:
            sums = 2 if launch.kernel.__name__.endswith("backward") else 0
            assert found.wide_loads > 0
            assert found.wide_stores > 0
            # Partial sums apart, nothing is stored in less than 16 bytes at a time.
            assert found.narrow_stores <= sums


@pytest.mark.parametrize("target", TARGETS)
def test_kernels_of_the_parameters_stay_in_registers_in_single_precision(target: str) -> None:
    for launch in parameter_launches():
        found_in(launch, target)


@pytest.mark.parametrize("direction", ["forward", "backward"])
@pytest.mark.parametrize(
    ("problem", "dtype"),
    [
        *((problem, dtype) for problem in ROW_NOISE for dtype in DTYPES),
        *((problem, "float32") for problem in DRAWING),
    ],
)
def test_memory_is_what_a_kernel_waits_for(problem: str, dtype: str, direction: str) -> None:
    found = cost(problem, dtype, direction, "sm_90")
    # Where every element is drawn, Triton 3.6 needs 5 to 10 % more instructions than 3.9.
    assert found.instructions <= found.budget * (1.1 if problem in DRAWING else 1.0)
    if PROBLEMS[problem].wide:
        assert found.resources.wide_stores == found.stores_due
        assert found.resources.wide_loads >= found.loads_due


def test_the_command_prints_what_was_counted(capsys: pytest.CaptureFixture[str]) -> None:
    assert aot.main(["--problem", "maps", "--dtype", "float32"]) == 0
    printed = capsys.readouterr().out
    found = cost("maps", "float32", "backward", "sm_90")
    assert f"{found.instructions:.1f}" in printed
    assert f"{found.budget:.0f}" in printed
    assert max(map(len, printed.splitlines())) <= 120


# Tensors whose axes, strides or numbers of programs are 1 are compiled with other constants.
UNUSUAL = {
    "five axes": LaunchProblem("", (4, 3, 8, 14, 14), 2, "sample"),
    "five axes, per element": LaunchProblem("", (4, 3, 8, 14, 14), 2, "element"),
    "one structure": LaunchProblem("", (4, 1, 14, 14), 1, "sample"),
    "one sample": LaunchProblem("", (1, 5, 14, 14), 1, "batch"),
    "one element": LaunchProblem("", (1, 1), 1, "sample"),
    "few": LaunchProblem("", (7, 3), 1, "element"),
}


@pytest.mark.parametrize("problem", UNUSUAL)
def test_unusual_shapes_compile(problem: str) -> None:
    for launch in launches(UNUSUAL[problem], "float32"):
        found_in(launch, "sm_90")
