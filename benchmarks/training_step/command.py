"""The command line of ``python -m benchmarks training-step``: Table 3 of the paper, on this machine."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import torch

from benchmarks.measuring.machine import this_machine, versions
from benchmarks.measuring.options import (
    add_common_options,
    check_common_options,
    limited_threads,
    thread_text,
)
from benchmarks.noise.command import PACKAGES
from benchmarks.noise.record import run_record, write
from benchmarks.noise.table import console
from benchmarks.training_step.measurement import StepSettings, measure
from benchmarks.training_step.networks import LARGE_NETWORKS, NETWORKS
from benchmarks.training_step.steps import FREE, NAIVE, OURS, Adam
from benchmarks.training_step.table import LEGEND, draw_figure, print_results, record

SECONDS = 6.0


def main(arguments: Sequence[str]) -> int:
    """Measure, print, and write what was asked for; return the exit status."""
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        check_common_options(options)
        if options.device == "cuda" and not torch.cuda.is_available():
            raise ValueError(
                "--device cuda: this torch sees no CUDA device; --device cpu measures the processor"
            )
    except ValueError as error:
        parser.error(str(error))
    on = console()
    device = torch.device(options.device)
    adam = Adam(options.fused, not options.one_group)
    settings = StepSettings(adam, options.rounds, options.seconds, options.seed, device)
    machine = this_machine(torch.cuda.get_device_name() if device.type == "cuda" else None)
    installed = versions(*PACKAGES)
    on.print(f"{machine}; {thread_text(options.threads)}, seed {options.seed}")
    on.print(", ".join(f"{name} {number}" for name, number in installed.items()))
    on.print(f"\n{LEGEND}\n")
    networks = NETWORKS | LARGE_NETWORKS
    chosen = dict.fromkeys(options.network or (networks if device.type == "cuda" else NETWORKS))
    with limited_threads(options.threads):
        results = [measure(key, networks[key], (OURS, FREE, NAIVE), settings) for key in chosen]
    print_results(on, results)
    if options.json is not None:
        about = {
            "seed": options.seed,
            "threads": options.threads,
            "device": options.device,
            "adam": {"fused": options.fused, "parameter_groups": not options.one_group},
        }
        whole = run_record(machine, installed, ["training-step", *arguments], **about)
        write(whole | {"networks": [record(result) for result in results]}, options.json)
    if options.plot is not None:
        draw_figure(results, f"{machine.processor}, {thread_text(options.threads)}", options.plot)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks training-step", description=__doc__)
    add = parser.add_argument
    add(
        "--network",
        action="append",
        choices=[*NETWORKS, *LARGE_NETWORKS],
        help=f"only this one; may be repeated (default: all, {', '.join(LARGE_NETWORKS)} on a GPU only)",
    )
    add("--device", choices=("cpu", "cuda"), default="cpu", help="default: %(default)s")
    add("--fused", action="store_true", help="fused Adam for all, instead of torch's default")
    add(
        "--one-group",
        action="store_true",
        help="give Adam bmrs_torch's parameters in one group, not in the two of parameter_groups",
    )
    add_common_options(parser, seconds=SECONDS, per="network")
    return parser
