"""``python -m benchmarks``: the noise layer against its rivals.

``… training-step``: whole training steps; ``… first-use``: what is compiled when nothing is yet;
``… growth``: what is done to a network, by its size.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark that was asked for; return the exit status."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    if given[:1] == ["training-step"]:
        from benchmarks.training_step import command as training_step

        return training_step.main(given[1:])
    if given[:1] == ["first-use"]:
        from benchmarks.first_use import command as first_use

        return first_use.main(given[1:])
    if given[:1] == ["growth"]:
        from benchmarks.growth import command as growth

        return growth.main(given[1:])
    from benchmarks.noise import command as noise

    return noise.main(given)


if __name__ == "__main__":
    sys.exit(main())
