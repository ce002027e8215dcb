"""All absences of all peers of a plan: what `churn` says, its parts put together."""

from collections.abc import Iterator

from orionbed.absences.absence import LIFETIME, Absence, united
from orionbed.absences.bulk import BulkLosses
from orionbed.absences.hours import at_home, in_windows
from orionbed.absences.lifetimes import alternating
from orionbed.absences.liquid import LiquidPeers
from orionbed.absences.recorded import away_by, read_churn_trace
from orionbed.absences.who import some_of
from orionbed.plan import Plan
from orionbed.streams import Streams


class Absences:
    """The absences of every peer from `start_s` on, the second at which peers begin to train.

    Every part of `churn` draws from streams of its own (`churn/...`), per peer or per group: adding one moves nothing
    in the others, and what is drawn does not depend on how far other peers have been asked for.
    """

    def __init__(self, plan: Plan, seed: int, start_s: float = 0.0) -> None:
        self._plan = plan
        self._streams = Streams(seed)
        self._start_s = start_s
        churn = plan.scenario.churn
        self._churn = None if isinstance(churn, str) else churn
        if self._churn is None:
            return
        flapping, bulk, liquid = self._churn.flapping, self._churn.bulk, self._churn.liquid
        streams = self._streams
        self._lifetimes = self._churn.lifetimes
        self._flapping = (
            frozenset()
            if flapping is None
            else some_of(plan.peers, flapping.who, flapping.share, streams.get("churn/flapping"))
        )
        self._bulk = None if bulk is None else BulkLosses(bulk, plan.peers, streams, start_s)
        self._liquid = None if liquid is None else LiquidPeers(liquid, plan, streams, start_s)
        self._trace = None if self._churn.trace is None else read_churn_trace(self._churn.trace)

    def of(self, index: int) -> Iterator[Absence]:
        """Yield the absences of a peer, without end unless it leaves for good; ask once per peer."""
        rows = list(self._rows(index))
        return rows[0] if len(rows) == 1 else united(rows)

    def _rows(self, index: int) -> Iterator[Iterator[Absence]]:
        churn, peers, start_s = self._churn, self._plan.peers, self._start_s
        if churn is None:
            return
        if self._lifetimes is not None:
            yield alternating(*self._lifetimes, self._streams.get(f"churn/{index}"), start_s, LIFETIME)
        if churn.flapping is not None and index in self._flapping:
            random = self._streams.get(f"churn/flapping/{index}")
            yield alternating(churn.flapping.up, churn.flapping.down, random, start_s, "flapping")
        if self._bulk is not None:
            yield united([self._bulk.of(index)])
        if self._trace is not None:
            yield away_by(self._trace.get(peers[index].name, ()), start_s)
        for window in churn.windows:
            yield in_windows(window, index, peers, start_s)
        if self._liquid is not None:
            yield self._liquid.of(index)
        if churn.diurnal is not None:
            yield at_home(churn.diurnal, peers[index], peers, self._streams.get(f"churn/diurnal/{index}"), start_s)
