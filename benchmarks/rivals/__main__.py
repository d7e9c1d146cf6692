"""``python -m benchmarks.rivals``: BMRS beside Torch-Pruning, retraining and no pruning, at equal cost."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.demo.data import DataError, load_images
from benchmarks.measuring.options import limited_threads
from benchmarks.measuring.source import RESULTS, ROOT
from benchmarks.rivals.errors import PruningError
from benchmarks.rivals.images import FASHION_MNIST, Split, split
from benchmarks.rivals.learning import accuracy
from benchmarks.rivals.methods import trained
from benchmarks.rivals.plan import Wanted, missing
from benchmarks.rivals.protocol import (
    PROCEDURES,
    SPLIT_SEED,
    SUBJECTS,
    TEST,
    VALIDATION_SHARE,
    Run,
)
from benchmarks.rivals.publishing import publish
from benchmarks.rivals.record import Record, key_of, made_with, sizes
from benchmarks.rivals.store import Store
from benchmarks.rivals.table import page

_PAUSE = 5.0
_WITHOUT_TORCH_PRUNING = {"bmrs", "bmrs_teacher", "unpruned"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Do the runs that the record lacks, until they or the minutes are used up; return the exit status."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        wanted = _wanted(options)
        if options.table:
            print(page(Record(options.record, FASHION_MNIST)))
            return 0
        whole = load_images(options.data, download_to=options.scratch / "fashion-mnist")
        images = split(whole, seed=SPLIT_SEED, share=VALIDATION_SHARE)
        record = Record(options.record, images.name)
    except DataError as error:
        print(error, file=sys.stderr)
        return 2
    except ValueError as error:
        parser.error(str(error))
    with limited_threads(1):
        _work(wanted, record, images, options, made_with(arguments))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.rivals",
        description=f"{__doc__} Runs that are in the record are skipped; several processes share the work.",
    )
    add, everything = parser.add_argument, Wanted()
    add("--minutes", type=float, default=float("inf"), help="after which no run is begun (default: no limit)")
    add("--networks", nargs="+", choices=SUBJECTS, default=everything.networks)
    add("--methods", nargs="+", choices=PROCEDURES, default=everything.methods)
    add("--budgets", nargs="+", type=float, default=everything.budgets, help="parts of the multiply-adds")
    add("--epochs", nargs="+", type=int, default=everything.epochs, help="further ones, at least 2")
    add("--seeds", type=int, help="how many (default: 3 or 5, by the network)")
    add("--table", action="store_true", help="only print what the record holds")
    add("--data", help="folder with the IDX files, or 'digits'; default: looked for")
    add("--scratch", type=Path, default=Path("runs/rivals"), help="for networks (default: %(default)s)")
    add(
        "--record",
        type=Path,
        metavar="FILE.jsonl",
        default=ROOT / RESULTS / "rivals.jsonl",
        help=f"its page, .md, and figures lie beside it (default: {RESULTS}/rivals.jsonl)",
    )
    return parser


def _wanted(options: argparse.Namespace) -> Wanted:
    if not all(0 < budget < 1 for budget in options.budgets):
        raise ValueError(f"--budgets must lie between 0 and 1, got {options.budgets}")
    if min(options.epochs) < 2:
        raise ValueError(f"--epochs must be at least 2, of which BMRS needs one, got {options.epochs}")
    if options.seeds is not None and options.seeds < 1:
        raise ValueError(f"--seeds must be at least 1, got {options.seeds}")
    if options.record.suffix != ".jsonl" or not options.record.parent.is_dir():
        raise ValueError(f"--record takes a name in .jsonl in a folder that exists, got {options.record}")
    needing = sorted(set(options.methods) - _WITHOUT_TORCH_PRUNING)
    if needing and not options.table and find_spec("torch_pruning") is None:
        raise ValueError(f"{', '.join(needing)} need Torch-Pruning: `make rivals` installs it")
    return Wanted(options.networks, options.methods, options.budgets, options.epochs, options.seeds)


def _work(
    wanted: Wanted, record: Record, images: Split, options: argparse.Namespace, made: dict[str, Any]
) -> None:
    """Do one run after another; what others do at the same time is left to them."""
    store = Store(options.scratch)
    started = time.monotonic()
    while time.monotonic() - started < 60 * options.minutes:
        done = _one(wanted, record, images, store, made)
        if done is None:
            print("nothing is left to do", flush=True)
            break
        if not done:
            time.sleep(_PAUSE)
    publish(record)


def _one(wanted: Wanted, record: Record, images: Split, store: Store, made: dict[str, Any]) -> bool | None:
    """Do the first run that nobody does; return whether there was one, None if nothing is missing at all."""
    record.read()
    waiting = None
    for run in missing(wanted, record):
        waiting = False  # what others do now may decide what comes next
        with store.claim(f"run-{key_of(run, images.name)}") as ours:
            if not ours:
                continue
            record.read()  # it may have been finished between
            if record.find(run) is None:
                outcome = _outcome(run, images, store)
                record.add(run, outcome, made)
                if run.split == TEST:
                    publish(record)
                print(_line(run, outcome), flush=True)
            return True
    return waiting


def _outcome(run: Run, images: Split, store: Store) -> dict[str, Any]:
    """Do a run. Only a final one sees the test images."""
    started = time.monotonic()
    try:
        found = trained(run, images, store)
    except PruningError as error:
        return {"error": str(error), "seconds": time.monotonic() - started}
    outcome = {"validation_accuracy": accuracy(found.model, images.validation), **sizes(found, images)}
    if run.split == TEST:
        outcome["test_accuracy"] = accuracy(found.model, images.test)
    return {**outcome, "seconds": time.monotonic() - started}


def _line(run: Run, outcome: dict[str, Any]) -> str:
    budget = "" if run.budget is None else f" to {run.budget:g}"
    variant = f", {run.variant}" if run.variant else ""
    what = f"{run.network}, {run.method}{budget}, {run.epochs} epochs at {run.lr:g}{variant}"
    found = outcome.get("error") or (
        f"{100 * outcome['validation_accuracy']:.2f} % validation"
        + (f", {100 * outcome['test_accuracy']:.2f} % test" if run.split == TEST else "")
        + f", {100 * outcome['macs_left']:.1f} % MACs, {100 * outcome['parameters_left']:.1f} % parameters"
    )
    return f"{what}, seed {run.seed}: {found} ({outcome['seconds']:.0f} s)"


if __name__ == "__main__":
    raise SystemExit(main())
