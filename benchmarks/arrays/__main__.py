"""``python -m benchmarks.arrays accuracy`` and ``… speed``, run from the root of the repository."""

from __future__ import annotations

import argparse
from pathlib import Path


def main(arguments: list[str] | None = None) -> None:
    """Print one of the two reports."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.arrays", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("accuracy", help="errors on the reference tables, as markdown")
    speed_parser = commands.add_parser(
        "speed", help="nanoseconds per element on one core, beside SciPy and NumPy"
    )
    speed_parser.add_argument("--size", type=int, default=1_000_000, help="elements (default: %(default)s)")
    speed_parser.add_argument(
        "--rounds", type=int, default=7, help="interleaved rounds (default: %(default)s)"
    )
    speed_parser.add_argument("--json", type=Path, metavar="FILE", help="write the measurements as JSON too")
    speed_parser.add_argument(
        "--record", action="store_true", help="write them to the results of this kind of processor"
    )
    chosen = parser.parse_args(arguments)
    if chosen.command == "accuracy":
        from benchmarks.arrays import accuracy

        print("\n".join(accuracy.report()))
    else:
        from benchmarks.arrays import speed

        speed.main(chosen.size, chosen.rounds, speed.record_file() if chosen.record else chosen.json)


if __name__ == "__main__":
    main()
