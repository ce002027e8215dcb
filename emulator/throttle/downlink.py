"""The downlink of a peer: in which order chunks that have arrived pass it, and when, in virtual time."""

from math import inf
from typing import NamedTuple

from emulator.throttle.incoming import Assembly, Held, Incoming, Lane
from emulator.throttle.rates import Rate
from emulator.throttle.shared_clock import SharedClock


class Passed(NamedTuple):
    """A chunk that has passed the downlink at `finish_s`, and the messages that are complete with it."""

    source: Incoming
    held: Held
    finish_s: float
    completed: list[Assembly]


class Downlink:
    """Gives the downlink to the chunks of several connections, one after the other.

    A chunk of n bytes starts at max(link free, first bit here, last bit here - n / C), since bytes pass while they come
    in, and has passed n / C later. Control messages go
    first, among equals the lane that has been served the least (as in `Uplink`). `site` is a link that the peers of a
    site share on the way in; `crosses_site` says whose bytes take it.
    """

    def __init__(self, rate: Rate, site: SharedClock | None = None) -> None:
        self.rate = rate
        self._site = site
        self._busy: dict[Lane, None] = {}
        self._through_site: set[int] = set()
        self._free_s = -inf
        self._turn = 0.0
        self._stalled = False

    def cross_site(self, source: int) -> None:
        """The bytes of a source take the site's shared link from now on."""
        if self._site is not None:
            self._through_site.add(source)

    def wait(self, lane: Lane) -> None:
        """A lane has got a chunk."""
        if lane not in self._busy:
            self._busy[lane] = None
            self._set_ready(lane)

    def remove(self, source: Incoming) -> None:
        """Forget a connection that is gone."""
        for lane in source.lanes:
            self._busy.pop(lane, None)

    def changed(self) -> None:
        """The rate has changed: work out again when chunks may start."""
        self._stalled = False
        for lane in self._busy:
            self._set_ready(lane)

    def backlog_s(self, now_s: float) -> float:
        """Return when the next of the chunks that have arrived starts to pass; infinite if none waits for the link."""
        if not self._stalled:
            for lane in self._busy:
                if lane.ready_s <= now_s:
                    return self._free_s
        return inf

    def serve(self, now_s: float) -> Passed | None:
        """Let the next chunk pass if it may start by `now_s`, else return None."""
        while not self._stalled:
            lane = self._choose(now_s)
            if lane is None:
                return None
            if self._site is None or lane.passed_s < inf or lane.owner.source not in self._through_site:
                return self._pass(lane)
            # Only the first chunk of a lane waits for the shared link, so lanes, not bytes, share it equally.
            chunk = lane.chunks[0]
            lane.passed_s = self._site.passed(chunk.begin_s, chunk.arrival_s, chunk.num_bytes)
            self._set_ready(lane)
        return None

    def _choose(self, now_s: float) -> Lane | None:
        """Return the lane whose turn it is if it may start by `now_s`."""
        start_s = inf
        for lane in self._busy:
            start_s = min(start_s, lane.ready_s)
        start_s = max(start_s, self._free_s)
        if start_s > now_s:
            return None
        best: Lane | None = None
        best_key = (True, inf, inf)
        turn = self._turn
        for lane in self._busy:
            if lane.ready_s <= start_s:
                served = lane.served
                key = (not lane.control, max(served, turn), served)
                if key < best_key:
                    best, best_key = lane, key
        return best

    def _pass(self, lane: Lane) -> Passed | None:
        chunk = lane.chunks[0]
        arrival_s = chunk.arrival_s if lane.passed_s == inf else lane.passed_s
        start_s = max(self._free_s, lane.ready_s)
        finish_s = max(self.rate.finish(start_s, chunk.num_bytes), arrival_s)
        if finish_s == inf:
            self._stalled = True  # until the rate changes
            return None
        self._free_s = finish_s
        self._turn = max(self._turn, lane.served)
        lane.served = self._turn + chunk.num_bytes
        lane.owner.serve(lane)
        lane.passed_s = inf
        if lane.chunks:
            self._set_ready(lane)
        else:
            lane.ready_s = inf
            del self._busy[lane]
        return Passed(lane.owner, chunk, finish_s, lane.completed() if chunk.intact else [])

    def _set_ready(self, lane: Lane) -> None:
        """Work out when the first chunk of a lane may start."""
        chunk = lane.chunks[0]
        arrival_s = chunk.arrival_s if lane.passed_s == inf else lane.passed_s
        begin_s = arrival_s - (chunk.arrival_s - chunk.begin_s)
        lane.ready_s = self.rate.entry(begin_s, arrival_s, chunk.num_bytes)
