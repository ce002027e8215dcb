"""The uplink of a peer: which chunk departs next, and when, in virtual time."""

from math import inf
from typing import Final, NamedTuple

from emulator.throttle.mishaps import Mishaps
from emulator.throttle.outgoing import Chunk, Flow
from emulator.throttle.rates import Rate
from emulator.throttle.shared_clock import SharedClock

_CHUNK_S: Final = 0.001
_MOST_CHUNK_S: Final = 0.004
_CHUNKS_PER_MESSAGE: Final = 8
_SHARE_OF_WINDOW: Final = 1 / 8


class Departure(NamedTuple):
    """A chunk with its times: its last bit leaves the uplink at `departure_s`, and arrives at `arrival_s`.

    `begin_s` is when its first bit arrives, after all that slows it down on the way.
    """

    flow: Flow
    chunk: Chunk
    departure_s: float
    begin_s: float
    arrival_s: float
    corrupt: bool


class Uplink:
    """Gives the uplink to the chunks of several flows, one after the other.

    If `shares_link`, some of them go on over a link that other processes use too. Then chunks must not be chosen ahead
    of time: whoever looks ahead furthest would get the most.

    A chunk starts at max(link free, message enqueued, window open, ...) and the link is free again when its bytes have
    passed at the link's rate: never "now". Of the flows that could start at that moment, those with a control message
    go first; among equals the one that has been served the least goes first, where a flow that had nothing to send
    does not save up (start-time fair queueing: the bytes of two busy flows never differ by more than a chunk each).
    """

    def __init__(
        self, rate: Rate, chunk_bytes: tuple[int, int], mishaps: Mishaps, site: SharedClock | None = None
    ) -> None:
        self.rate = rate
        self._chunk_bounds = chunk_bytes
        self._mishaps = mishaps
        self._site = site
        self._busy: dict[Flow, None] = {}
        self._free_s = -inf
        self._turn = 0.0
        self._last_arrival_s: dict[Flow, float] = {}
        self.next_start_s = inf
        self.shares_link = site is not None

    def wait(self, flow: Flow) -> None:
        """A flow has something to send, or may send earlier or later than before."""
        flow.refresh()
        if flow.shares_link:
            self.shares_link = True
        if flow.idle:
            self._busy.pop(flow, None)
        else:
            self._busy[flow] = None
            self.next_start_s = min(self.next_start_s, max(self._free_s, flow.ready_s))

    def remove(self, flow: Flow) -> None:
        """Forget a flow whose connection is gone."""
        self._busy.pop(flow, None)
        self._last_arrival_s.pop(flow, None)

    def changed(self) -> None:
        """The link's rate, or a path, has changed or will change: look at everything again."""
        for flow in self._busy:
            flow.halted = False
            flow.refresh()
        self.next_start_s = -inf

    def depart(self, horizon_s: float) -> Departure | None:
        """Reserve the link for the next chunk if it can start by `horizon_s`, else return None.

        Then `next_start_s` says when that will be, as far as known; infinite while nothing can start.
        """
        while True:
            flow, start_s = self._choose()
            self.next_start_s = start_s
            if flow is None or start_s > horizon_s:
                return None
            if flow.plan.release(start_s) > start_s:
                flow.gate_s = start_s  # the way is blocked
                flow.refresh()
                continue
            chunk = flow.take(start_s, self._chunk_bytes)
            finish_s = self.rate.finish(start_s, chunk.num_bytes)
            pace_s = self._paced(flow, chunk, start_s)
            closes_s = flow.plan.open_until(start_s)
            if pace_s < inf and finish_s < inf and finish_s <= closes_s:
                return self._reserve(flow, chunk, start_s, finish_s, pace_s)
            flow.untake(chunk)
            if finish_s == inf:
                self.next_start_s = inf  # the link stands still until its rate changes
                return None
            if pace_s == inf:
                flow.halted = True
            else:
                flow.gate_s = closes_s  # it would leave during the block, so it waits for its end
            flow.refresh()

    def _choose(self) -> tuple[Flow | None, float]:
        """Return the flow whose turn it is, and when it starts."""
        start_s = inf
        for flow in self._busy:
            start_s = min(start_s, flow.ready_s)
        start_s = max(start_s, self._free_s)
        if start_s == inf:
            return None, inf
        best: Flow | None = None
        best_key = (True, inf, inf)
        turn = self._turn
        for flow in self._busy:
            if flow.ready_s <= start_s:
                served = flow.served
                key = (flow.control_s > start_s, max(served, turn), served)
                if key < best_key:
                    best, best_key = flow, key
        assert best is not None
        return best, start_s

    @staticmethod
    def _paced(flow: Flow, chunk: Chunk, start_s: float) -> float:
        """Return when the connection's own rate has let the chunk through; it stretches data only."""
        rate = flow.plan.rate
        if rate is None or chunk.message.control:
            return start_s
        return rate.finish(max(flow.pace_s, start_s), chunk.num_bytes)

    def _reserve(self, flow: Flow, chunk: Chunk, start_s: float, finish_s: float, pace_s: float) -> Departure:
        num_bytes = chunk.num_bytes
        path = flow.plan.at(start_s)
        self._free_s = finish_s
        self._turn = max(self._turn, flow.served)
        flow.served = self._turn + num_bytes
        arrival_s = max(finish_s, pace_s)  # the link itself is free for others meanwhile
        if pace_s > start_s:
            flow.pace_s = max(flow.pace_s, pace_s)
        lasts_s = arrival_s - start_s
        if path.crosses_site:
            for clock in (self._site, path.wan):
                if clock is not None:
                    # One chunk of a flow at a time waits for a shared link, so flows, not bytes, share it equally.
                    arrival_s = clock.passed(arrival_s - lasts_s, arrival_s, num_bytes)
                    flow.pace_s = max(flow.pace_s, arrival_s)
        arrival_s += path.owd_s + self._mishaps.extra_delay_s(chunk, path)
        arrival_s = max(arrival_s, self._last_arrival_s.get(flow, -inf))
        self._last_arrival_s[flow] = arrival_s
        corrupt = self._mishaps.corrupts(flow.plan.corruption(start_s))
        self.wait(flow)
        return Departure(flow, chunk, finish_s, arrival_s - lasts_s, arrival_s, corrupt)

    def _chunk_bytes(self, flow: Flow, total: int, start_s: float) -> int:
        """Return how large the chunks of a message should be: 1 ms of the rate, more for a large one, up to 4 ms."""
        least, most = self._chunk_bounds
        rate = self.rate.at(start_s)
        if flow.plan.rate is not None:
            rate = min(rate, flow.plan.rate.at(start_s))
        if rate == inf:
            # Nothing but the window holds this flow: a chunk must be small beside it, or credits come in gulps.
            return int(min(most, max(least, flow.plan.at(start_s).window_bytes * _SHARE_OF_WINDOW)))
        wanted = min(max(rate * _CHUNK_S, total / _CHUNKS_PER_MESSAGE), rate * _MOST_CHUNK_S)
        return int(min(max(wanted, least), most))
