"""What ``bmrs_torch.warm`` compiles, part by part: run in a process with a cache of its own."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

from numba.core import event

from bmrs_torch.warm import parts


class _Compilations(event.Listener):  # type: ignore[misc]
    """Counts the functions that Numba compiles."""

    count = 0

    def on_start(self, event: Any) -> None:  # noqa: ARG002
        self.count += 1

    def on_end(self, event: Any) -> None:
        """Nothing: it was counted when it started."""


def main() -> None:
    """Print wall and processor seconds and the number of functions of each part, as JSON."""
    compilations = _Compilations()
    event.register("numba:compile", compilations)
    rows = []
    for name, compile_part in parts(sys.argv[1:]).items():
        before, wall, processor = compilations.count, time.perf_counter(), time.process_time()
        compile_part()
        rows.append(
            {
                "part": name,
                "seconds": time.perf_counter() - wall,
                "processor_seconds": time.process_time() - processor,
                "functions": compilations.count - before,
            }
        )
    json.dump(rows, sys.stdout)


if __name__ == "__main__":
    main()
