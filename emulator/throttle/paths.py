"""The way from one peer to another: delay, window and mishaps, and how these change while the run goes on."""

from bisect import bisect_right, insort
from dataclasses import dataclass, replace
from math import inf, isfinite
from typing import Final

from emulator.throttle.changes import BlockChange, CorruptChange, PathChange
from emulator.throttle.rates import Rate
from emulator.throttle.shared_clock import SharedClock

MIN_RTO_S: Final = 0.2


@dataclass(frozen=True, slots=True)
class Path:
    """How bytes get from one peer to another.

    `owd_s` is the one-way delay in run seconds. At most `window_bytes` are under way without credit; the window begins
    at `initial_window_bytes` and grows by every byte that is credited (equal values: a warm connection). `rate` bounds
    this connection alone, in bytes per run second. Each message has a random extra delay: normal with `jitter_sd_s`,
    and with `spike_probability` a lognormal spike; the delay never falls below half of `owd_s`. Each chunk is lost with
    probability `loss` and then comes later by a retransmission, max(0.2 s, one round trip). A new connection sends its
    first byte `handshake_s` after it was opened. `crosses_site` says whether the site's shared clocks are on the way,
    `wan` is a clock shared by all traffic between the two sites.
    """

    owd_s: float
    window_bytes: float = inf
    initial_window_bytes: float = inf
    rate: float = inf
    jitter_sd_s: float = 0.0
    spike_probability: float = 0.0
    spike_median_s: float = 0.02
    spike_sigma: float = 1.0
    loss: float = 0.0
    handshake_s: float = 0.0
    crosses_site: bool = True
    wan: SharedClock | None = None

    def __post_init__(self) -> None:
        """Check ranges; ValueError."""
        if not (isfinite(self.owd_s) and self.owd_s >= 0.0 and self.handshake_s >= 0.0 and self.jitter_sd_s >= 0.0):
            raise ValueError("delays of a path must be finite and not below 0")
        if not (self.window_bytes > 0.0 and self.initial_window_bytes > 0.0 and self.rate >= 0.0):
            raise ValueError("windows of a path must be above 0 and its rate not below 0")
        if not (0.0 <= self.loss <= 1.0 and 0.0 <= self.spike_probability <= 1.0):
            raise ValueError("probabilities of a path must be 0 to 1")

    @property
    def retransmission_s(self) -> float:
        """The extra delay of a chunk that was lost."""
        return max(MIN_RTO_S, 2.0 * self.owd_s)


class PathPlan:
    """The path towards one peer over the run: its own values and the changes, each from a run second on.

    Changes may be added in any order, also for the past; of two at one second the later added counts. `rate` is the
    connection's own rate with all its changes; None if it is unlimited throughout.
    """

    def __init__(self, path: Path) -> None:
        self._paths: list[tuple[float, int, Path]] = [(-inf, 0, path)]
        self._corruption: list[tuple[float, int, float]] = [(-inf, 0, 0.0)]
        self._blocks: list[tuple[float, int, bool]] = []
        self._own = path
        self._count = 0
        self.rate = Rate.constant(path.rate) if path.rate < inf else None

    def add(self, at_s: float, change: BlockChange | PathChange | CorruptChange) -> None:
        """Take in a change that holds from `at_s` on."""
        self._count += 1
        match change:
            case BlockChange():
                insort(self._blocks, (at_s, self._count, change.blocked))
            case CorruptChange():
                insort(self._corruption, (at_s, self._count, change.per_chunk))
            case PathChange():
                own = self._own
                path = replace(
                    own,
                    owd_s=own.owd_s + change.added_owd_s,
                    jitter_sd_s=own.jitter_sd_s if change.jitter_sd_s is None else change.jitter_sd_s,
                    loss=own.loss if change.loss is None else change.loss,
                )
                if self.rate is None and min(change.rate_factor, change.rate_ceiling) < inf:
                    self.rate = Rate.constant(own.rate)
                if self.rate is not None:
                    self.rate.change(at_s, change.rate_factor, change.rate_ceiling)
                insort(self._paths, (at_s, self._count, path), key=lambda entry: entry[:2])

    def at(self, time_s: float) -> Path:
        """Return the path as it is at a run second."""
        if len(self._paths) == 1:
            return self._own
        return self._paths[bisect_right(self._paths, time_s, key=lambda entry: entry[0]) - 1][2]

    def corruption(self, time_s: float) -> float:
        """Return the probability that a chunk is corrupted at a run second."""
        if len(self._corruption) == 1:
            return 0.0
        return self._corruption[bisect_right(self._corruption, time_s, key=lambda entry: entry[0]) - 1][2]

    def release(self, time_s: float) -> float:
        """Return the first run second from `time_s` on at which the way is open; infinite if no end is known."""
        if not self._blocks or time_s == inf:
            return time_s
        blocked = False
        for at_s, _, now_blocked in self._blocks:
            if at_s > time_s and not blocked:
                return time_s
            if blocked and not now_blocked and at_s > time_s:
                time_s = at_s
            blocked = now_blocked
        return inf if blocked else time_s

    def open_until(self, time_s: float) -> float:
        """Return when the way, open at `time_s`, is next blocked; infinite if no block is known."""
        return min((at_s for at_s, _, blocked in self._blocks if blocked and at_s > time_s), default=inf)
