"""How far a run of real peers has got, for whoever shows it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Progress:
    """Seconds of the run, micro-batches applied and to be applied; `share` where neither tells how much is over."""

    now_s: float
    applied: int
    target: int | None
    share: float | None = None
