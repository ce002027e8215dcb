"""The clock of a run: seconds of the scenario, mapped to this machine's monotonic clock."""

import time
from dataclasses import dataclass


@dataclass(slots=True)
class PacedClock:
    """Run seconds that pass `dilation` real seconds each, from run second 0 at `origin_s` of `time.monotonic()` on.

    `origin_s` may be set later if it is not known yet, but before anything asks for the time. All processes of a
    machine see the same monotonic clock, so equal values mean equal clocks. ValueError: a dilation that is not above 0.
    """

    origin_s: float
    dilation: float = 1.0

    def __post_init__(self) -> None:
        if not self.dilation > 0.0:
            raise ValueError(f"a run second must take more than 0 real seconds, not {self.dilation}")

    def now(self) -> float:
        """Return the present run second; negative before the run begins."""
        return (time.monotonic() - self.origin_s) / self.dilation

    def real_until(self, run_s: float) -> float:
        """Return the real seconds from now until a run second; negative if it has passed."""
        return self.origin_s + run_s * self.dilation - time.monotonic()
