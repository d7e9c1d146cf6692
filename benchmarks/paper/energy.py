"""The energy of a run by codecarbon, as the paper tracked it, where that is asked for and installed."""

from __future__ import annotations

from importlib.util import find_spec
from types import TracebackType
from typing import Any


def can_be_measured() -> bool:
    """Whether codecarbon is installed."""
    return find_spec("codecarbon") is not None


class Energy:
    """Measures while a block runs; not asked to, it does nothing.

    The figure is codecarbon's: of the whole machine where counters can be read, else estimated from the
    processor's rating. What runs beside the block is counted, too.

    Parameters
    ----------
    wanted : bool
        Whether to measure.
    """

    def __init__(self, wanted: bool) -> None:
        self.tracker: Any = None
        if wanted:
            from codecarbon import OfflineEmissionsTracker

            # The country decides the CO2 only, which isn't recorded.
            self.tracker = OfflineEmissionsTracker(
                country_iso_code="DNK", output_methods=[], log_level="critical", allow_multiple_runs=True
            )

    def __enter__(self) -> Energy:
        if self.tracker is not None:
            self.tracker.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.tracker is not None:
            self.tracker.stop()

    def measured(self) -> dict[str, float]:
        """Kilowatt-hours, if they were measured."""
        if self.tracker is None:
            return {}
        return {"energy_kwh": float(self.tracker.final_emissions_data.energy_consumed)}
