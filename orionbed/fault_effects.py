"""What faults do to links and peers at a time, and when that changes.

Where faults overlap, factors multiply, of absolute capacities the smallest wins and of absolute delays the longest,
added delays add up, independent chances combine, and a reset wins over a blackhole: the order of faults is no matter.
"""

import math
from collections.abc import Iterable, Iterator
from typing import Final, Literal, NamedTuple

from orionbed.faults import ResolvedFault

Blocked = Literal["blackhole", "reset"] | None

LEAST_CHUNK_BYTES: Final = 64
MOST_CHUNK_BYTES: Final = 64 * 1024
_CHUNK_S: Final = 0.001
_MOST_CHUNK_S: Final = 0.004
_CHUNKS_PER_MESSAGE: Final = 8


class LinkState(NamedTuple):
    """What faults make of the way from one peer to another; the defaults change nothing.

    The capacity of a pair is the smaller of the sender's uplink and the receiver's downlink.
    """

    capacity_factor: float = 1.0
    capacity_bps: float | None = None
    extra_owd_s: float = 0.0
    jitter_sd_s: float = 0.0
    loss: float = 0.0
    blocked: Blocked = None
    corrupt: float = 0.0
    owd_s: float | None = None

    def capacity(self, undisturbed_bps: float) -> float:
        """Return the capacity in bit/s of a pair that has this capacity without faults."""
        return self.capacity_factor * (undisturbed_bps if self.capacity_bps is None else self.capacity_bps)

    def delay(self, undisturbed_s: float) -> float:
        """Return the one-way delay in seconds of a pair that has this delay without faults."""
        return self.extra_owd_s + (undisturbed_s if self.owd_s is None else self.owd_s)


def link_state(faults: Iterable[ResolvedFault], source: int, target: int, at_s: float) -> LinkState:
    """Return what the faults make of the way from one peer to another at a time of the run.

    A crash or a pause of one of the two is no matter of the link: see `orionbed.faults.ResolvedFault.hits`.
    """
    state = LinkState()
    for fault in faults:
        if fault.pairs and fault.hits((source, target), at_s):
            state = combined(state, _effect(fault, at_s))
    return state


def combined(one: LinkState, other: LinkState) -> LinkState:
    """Return what two states make of a link together; the order does not matter."""
    return LinkState(
        capacity_factor=one.capacity_factor * other.capacity_factor,
        capacity_bps=_smallest(one.capacity_bps, other.capacity_bps),
        extra_owd_s=one.extra_owd_s + other.extra_owd_s,
        # Independent jitters: their variances add up.
        jitter_sd_s=math.hypot(one.jitter_sd_s, other.jitter_sd_s),
        loss=_either(one.loss, other.loss),
        blocked="reset" if "reset" in (one.blocked, other.blocked) else one.blocked or other.blocked,
        corrupt=_either(one.corrupt, other.corrupt),
        owd_s=_longest(one.owd_s, other.owd_s),
    )


def compute_factor(faults: Iterable[ResolvedFault], peer: int, at_s: float) -> float:
    """Return the factor of the time that the peer's operations take at a time of the run; 1 without faults."""
    slowed = (fault for fault in faults if fault.kind == "slow" and fault.hits(peer, at_s))
    return math.prod(fault.parameters.number("compute_factor") for fault in slowed)


def end_of(faults: Iterable[ResolvedFault], peer: int, start_s: float, lasts_s: float) -> float:
    """Return when an operation ends that would last so long on a healthy peer.

    What slows the peer at its start slows all of it; while the peer is paused nothing of it gets done.
    """
    end_s = start_s + lasts_s * compute_factor(faults, peer, start_s)
    awake_s = start_s
    for from_s, to_s in sorted((f.start_s, f.end_s) for f in faults if f.kind == "pause" and peer in f.peers):
        if from_s < end_s and awake_s < to_s:
            end_s += to_s - max(from_s, awake_s)
            awake_s = to_s
    return end_s


def clock_offset_s(faults: Iterable[ResolvedFault], peer: int, at_s: float) -> float:
    """Return how much more than the time of the run a peer's own clock shows."""
    wrong = [fault for fault in faults if fault.kind == "clock" and fault.hits(peer, at_s)]
    drifts = (1e-6 * fault.parameters.number("drift_ppm") * (at_s - fault.start_s) for fault in wrong)
    return sum(fault.parameters.number("offset_s") for fault in wrong) + sum(drifts)


def num_chunks(size_bytes: float, bytes_per_s: float) -> int:
    """Return into how many chunks, each with a checksum of its own, a message is cut.

    As the emulator does: 1 ms of the rate each, more for a large message, up to 4 ms, and 64 B to 64 KiB.
    """
    wanted = min(max(bytes_per_s * _CHUNK_S, size_bytes / _CHUNKS_PER_MESSAGE), bytes_per_s * _MOST_CHUNK_S)
    return math.ceil(size_bytes / min(max(wanted, LEAST_CHUNK_BYTES), MOST_CHUNK_BYTES))


def change_times(faults: Iterable[ResolvedFault]) -> list[float]:
    """Return all times at which anything changes, in order; between two of them all states are constant."""
    times: set[float] = set()
    for fault in faults:
        if fault.end_s > fault.start_s:
            times.update((fault.start_s, fault.end_s))
            times.update(time for time in _edges(fault) if time < fault.end_s)
    return sorted(time for time in times if math.isfinite(time))


def _effect(fault: ResolvedFault, at_s: float) -> LinkState:
    values = fault.parameters
    if fault.kind == "partition":
        return LinkState(blocked="reset" if values["mode"] == "reset" else "blackhole")
    if fault.kind == "flap":
        return LinkState(blocked="blackhole" if _is_down(fault, at_s) else None)
    if fault.kind == "corrupt":
        return LinkState(corrupt=values.number("per_chunk"))
    assert fault.kind == "link", f"{fault.kind} is no fault of links"
    return LinkState(
        capacity_factor=values.number("capacity_factor", 1.0),
        capacity_bps=values.number("capacity_bps") if "capacity_bps" in values else None,
        extra_owd_s=values.number("extra_owd_s"),
        jitter_sd_s=values.number("jitter_sd_s"),
        loss=values.number("loss"),
        owd_s=values.number("owd_s") if "owd_s" in values else None,
    )


def _edges(fault: ResolvedFault) -> Iterator[float]:
    """Yield when the links of a flap go down and up."""
    if fault.kind == "flap":
        assert math.isfinite(fault.end_s), "a flap has an end"
        number = 0
        while (down_s := _down_s(fault, number)) < fault.end_s:
            yield from (down_s, _up_s(fault, number))
            number += 1


def _is_down(fault: ResolvedFault, at_s: float) -> bool:
    """Whether the links are down, by the same sums as the edges, so that both agree to the last bit."""
    number = math.floor((at_s - fault.start_s) / fault.parameters.number("period_s"))
    if at_s < _down_s(fault, number):
        number -= 1
    elif at_s >= _down_s(fault, number + 1):
        number += 1
    return at_s < _up_s(fault, number)


def _down_s(fault: ResolvedFault, number: int) -> float:
    return fault.start_s + number * fault.parameters.number("period_s")


def _up_s(fault: ResolvedFault, number: int) -> float:
    return fault.start_s + (number + fault.parameters.number("duty")) * fault.parameters.number("period_s")


def _either(one: float, other: float) -> float:
    """Chance of at least one of two independent events."""
    return one + other - one * other


def _smallest(one: float | None, other: float | None) -> float | None:
    return min((value for value in (one, other) if value is not None), default=None)


def _longest(one: float | None, other: float | None) -> float | None:
    return max((value for value in (one, other) if value is not None), default=None)
