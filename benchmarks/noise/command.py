"""The command line of ``python -m benchmarks``: the operations of the noise layer against their rivals."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from benchmarks.arrays import speed
from benchmarks.measuring.machine import one_core, this_machine, versions
from benchmarks.measuring.options import (
    add_common_options,
    check_common_options,
    limited_threads,
    positive_shape,
    thread_text,
)
from benchmarks.noise.comparison import ComparisonError, print_comparison, read_earlier
from benchmarks.noise.figure import draw_figure
from benchmarks.noise.measurement import NoiseSettings, Result, measure
from benchmarks.noise.problem import DTYPES, OPS, Problem, ProblemError
from benchmarks.noise.record import problem_record, run_record, write
from benchmarks.noise.table import LEGEND, console, print_result

PACKAGES = ("bmrs-pruning", "torch", "triton", "numpy", "scipy", "numba")
ARRAYS_ROUNDS = 3
SECONDS = 3.0


def main(arguments: Sequence[str]) -> int:
    """Measure, print, and write what was asked for; return the exit status."""
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        check_common_options(options)
        problems = _problems(options)
        earlier = None if options.compare is None else read_earlier(options.compare)
    except (ProblemError, ComparisonError, ValueError) as error:
        parser.error(str(error))
    on = console()
    with limited_threads(options.threads):
        record, results = _run(on, options, problems, arguments)
    if earlier is not None:
        print_comparison(on, earlier, record)
    if options.json is not None:
        write(record, options.json)
    if options.plot is not None and results:
        draw_figure(
            results, f"{record['machine']['processor']}, {thread_text(options.threads)}", options.plot
        )
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        epilog="Further: python -m benchmarks training-step, first-use and growth, and "
        "python -m benchmarks.arrays, each with --help.",
    )
    add = parser.add_argument
    titles = "; ".join(f"{name}: {op.title}" for name, op in OPS.items())
    add("--op", action="append", choices=OPS, help=f"only this one; may be repeated. {titles}")
    add(
        "--shape",
        action="append",
        type=positive_shape,
        metavar="N,C,…",
        help="with one --op: this shape instead of its own; may be repeated",
    )
    add(
        "--dtype",
        action="append",
        choices=DTYPES,
        help="of the activations (default: float32; on a GPU bfloat16, too, where there are activations)",
    )
    add("--device", choices=("cpu", "cuda"), default="cpu", help="default: %(default)s")
    add("--no-compile", action="store_true", help="without torch.compile of the naive formula")
    add("--compare", type=Path, metavar="FILE", help="an earlier run's --json, to print ratios to")
    add_common_options(parser, seconds=SECONDS, per="problem")
    return parser


def _problems(options: argparse.Namespace) -> list[Problem]:
    ops = options.op or [op for op in OPS if options.device == "cpu" or op != "arrays"]
    if options.shape and len(ops) != 1:
        raise ProblemError("--shape needs one --op: the operations take different numbers of axes")
    if options.device == "cuda" and not torch.cuda.is_available():
        raise ProblemError(
            "--device cuda: this torch sees no CUDA device; --device cpu measures the processor"
        )
    if options.device == "cuda" and "arrays" in ops:
        raise ProblemError("--op arrays runs on the CPU only")
    device = torch.device(options.device)
    return [
        Problem(op, shape, dtype, device, options.seed)
        for op in dict.fromkeys(ops)
        for shape in options.shape or OPS[op].shapes_on(options.device)
        for dtype in _dtypes(op, options)
    ]


def _dtypes(op: str, options: argparse.Namespace) -> list[str]:
    if op == "arrays":
        return ["float64"]
    both = options.device == "cuda" and OPS[op].share is not None
    return list(dict.fromkeys(options.dtype or (["float32", "bfloat16"] if both else ["float32"])))


def _run(
    on: Console, options: argparse.Namespace, problems: list[Problem], arguments: Sequence[str]
) -> tuple[dict[str, Any], list[Result]]:
    """Measure problem by problem, printing each as it is done."""
    accelerator = torch.cuda.get_device_name() if options.device == "cuda" else None
    machine, installed = this_machine(accelerator), versions(*PACKAGES)
    settings = {"seed": options.seed, "threads": options.threads, "device": options.device}
    record = run_record(machine, installed, arguments, **settings) | {"problems": [], "arrays": []}
    on.print(f"{machine}; {thread_text(options.threads)}, seed {options.seed}")
    on.print(", ".join(f"{name} {number}" for name, number in installed.items()))
    on.print(f"\n{LEGEND}\n")
    results = []
    for problem in problems:
        torch.manual_seed(options.seed)
        if problem.op == "arrays":
            record["arrays"] += _measure_arrays(on, problem, options.rounds or ARRAYS_ROUNDS)
            continue
        limits = NoiseSettings(options.rounds, options.seconds, not options.no_compile)
        result = measure(problem, limits)
        print_result(on, result)
        record["problems"].append(problem_record(result))
        results.append(result)
    return record, results


def _measure_arrays(on: Console, problem: Problem, rounds: int) -> list[dict[str, Any]]:
    """Measure the array functions as ``python -m benchmarks.arrays speed`` does, on fewer elements."""
    (size,) = problem.shape
    with one_core():
        timings = [speed.measure(name, size, rounds) for name in speed.FUNCTIONS]
    on.print(f"arrays {size:,} float64: bmrs_core against SciPy, one core")
    on.print("\n".join(speed.table(timings)), soft_wrap=True)
    on.print()
    return [{"size": size, **timing.record()} for timing in timings]
