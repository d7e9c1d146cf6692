"""``python -m benchmarks.zoo``: what can be pruned of how many architectures, beside Torch-Pruning."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.measuring.keeping import replace
from benchmarks.measuring.source import RESULTS, ROOT
from benchmarks.zoo.architectures import ARCHITECTURES
from benchmarks.zoo.child import BMRS, TORCH_PRUNING, measured
from benchmarks.zoo.record import add, continued, new_record, row_of
from benchmarks.zoo.table import is_exact, page

SECONDS = 600.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what the record lacks, and write it after each architecture; return the exit status.

    It is 1 if an answer changed where it may not. An architecture on which something fails is a row that says
    so, and the next one is measured.
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    parser = _parser()
    options = parser.parse_args(arguments)
    fresh = new_record(arguments, options.seed)
    try:
        record, differing = continued(options.json, fresh)
        _check(options, differing)
    except ValueError as error:
        parser.error(str(error))
    if differing:
        _say(f"{options.json} was made with another {', '.join(differing)}: all is measured anew")
    if options.again:
        record = fresh
    done = {row["architecture"] for row in record["rows"]} if not options.only else set()
    for name in _wanted(options):
        if name in done:
            continue
        row = row_of(name, *(_measured(who, name, options) for who in (BMRS, TORCH_PRUNING)))
        add(record, row)
        replace(options.json, json.dumps(record, indent=1, ensure_ascii=False) + "\n")
        replace(options.json.with_suffix(".md"), page(record))
        _say(_line(row))
    wrong = [row["architecture"] for row in record["rows"] if _is_wrong(row[BMRS])]
    _say(f"{len(record['rows'])} of {len(ARCHITECTURES)} entries of the zoo are in {options.json}")
    if wrong:
        _say(f"not exact: {', '.join(wrong)}")
    return 1 if wrong else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.zoo",
        description=f"{__doc__} A run that was stopped goes on where it was.",
    )
    add_option = parser.add_argument
    add_option(
        "--only",
        action="append",
        choices=ARCHITECTURES,
        metavar="NAME",
        help="this one, though the record has it; may be repeated",
    )
    add_option("--quick", action="store_true", help="only those that `make test-zoo` runs")
    add_option("--again", action="store_true", help="measure anew what the record has")
    add_option(
        "--seconds",
        type=float,
        default=SECONDS,
        help="after which a measurement is stopped (default: %(default)s)",
    )
    add_option("--seed", type=int, default=0, help="of parameters, inputs, gates (default: %(default)s)")
    add_option(
        "--json",
        type=Path,
        metavar="FILE.json",
        default=ROOT / RESULTS / "zoo.json",
        help=f"the record; its page, .md, lies beside it (default: {RESULTS}/zoo.json)",
    )
    return parser


def _check(options: argparse.Namespace, differing: list[str]) -> None:
    if options.seconds <= 0:
        raise ValueError(f"--seconds must be positive, got {options.seconds}")
    if options.json.suffix != ".json" or not options.json.parent.is_dir():
        raise ValueError(f"--json takes a name in .json in a folder that exists, got {options.json}")
    if differing and options.only:
        raise ValueError(
            f"{options.json} was made with another {', '.join(differing)}, and with --only the rest of it "
            "would be lost: give --json another file"
        )


def _wanted(options: argparse.Namespace) -> list[str]:
    names = options.only or ARCHITECTURES
    return [name for name in names if not (options.quick and ARCHITECTURES[name].slow)]


def _measured(who: str, name: str, options: argparse.Namespace) -> dict[str, Any]:
    return measured(who, name, seed=options.seed, seconds=options.seconds)


def _is_wrong(ours: dict[str, Any]) -> bool:
    return "error" not in ours and not is_exact(ours)


def _line(row: dict[str, Any]) -> str:
    told = [row["architecture"]]
    for who in (BMRS, TORCH_PRUNING):
        found = row[who]
        told.append(
            f"{who} {found['error']}"
            if "error" in found
            else f"{who} {100 * found['share']:.1f} %, difference {found['difference']}, "
            f"{found['whole_seconds']:.0f} s"
        )
    return "; ".join(told)


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
