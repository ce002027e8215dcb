"""What came of a contest, as plain data."""

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class EpochResult:
    """One epoch. `bound_s` is the time that no router can beat; counts are of activations.

    created = completed + lost + flushed.
    """

    time_s: float
    bound_s: float
    created: int
    completed: int
    lost: int
    flushed: int
    moved: int


@dataclass(frozen=True, slots=True)
class SeedResult:
    """One router on one seed. `faults` counts calls by what was wrong with them; `thinking_s` is wall time.

    `asking_s` less `thinking_s` is what it costs to run the router in a process of its own.
    """

    router: str
    seed: int
    num_layers: int
    epochs: tuple[EpochResult, ...]
    calls: int
    fallbacks: int
    faults: dict[str, int]
    first_fault: str
    asking_s: float
    thinking_s: float

    @property
    def total_s(self) -> float:
        """Simulated time of all epochs, without merges."""
        return sum(epoch.time_s for epoch in self.epochs)

    @property
    def bound_s(self) -> float:
        """The least that all epochs can take."""
        return sum(epoch.bound_s for epoch in self.epochs)

    def plain(self) -> dict[str, Any]:
        """Return what depends on the seed alone, for JSON: no wall times."""
        left_out = {"asking_s", "thinking_s"}
        found = {key: value for key, value in asdict(self).items() if key not in left_out}
        return {**found, "total_s": self.total_s, "bound_s": self.bound_s}
