"""How n peers agree on a sum of numbers: ring, tree, parameter servers, or everybody fetching everything.

Each takes what one peer contributes (`num_bytes`), moves it over the peers' own links and calls back when everybody has
the result. Without contention, on links of rate r and delay d, with n peers and b bytes each:

    ring         2 (n-1) (b/n / r + d)            every peer sends 2 (n-1)/n b
    tree         2 ceil(log2 n) (b / r + d)       2 (n-1) b altogether
    sharded-ps   2 ((n-1)/n b / r + d)            every peer sends 2 (n-1)/n b
    central-ps   2 ((n-1) b / r + d)              peer 0 sends and receives (n-1) b, the others b
    gather       b/r + (n-1) b/r + 2 d'           through the object store, d' away: up b, down (n-1) b
    all-to-all   (n-1) b/r + d                    everybody sends all of b to everybody
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

Done = Callable[[], object]


class Carrier(Protocol):
    """What carries the messages: the network, or something in front of it."""

    def send(
        self, source: int, target: int, size_bytes: float, deliver: Callable[[Any], object], arg: Any = None
    ) -> object:
        """Send from peer to peer; `deliver(arg)` is called when all has arrived."""

    def to_storage(self, peer: int, size_bytes: float, done: Callable[[Any], object], arg: Any = None) -> object:
        """Upload to the object store."""

    def from_storage(self, peer: int, size_bytes: float, done: Callable[[Any], object], arg: Any = None) -> object:
        """Download from the object store."""


class Collective(Protocol):
    """One exchange under way; `sent_bytes` is what all peers have put on the wire for it so far."""

    sent_bytes: float

    def abandon(self) -> None:
        """Stop: what still arrives is ignored, and `done` is not called."""


class _Base:
    """Counts what has yet to arrive in the present phase, then goes on to the next."""

    def __init__(self, network: Carrier, peers: Sequence[int], num_bytes: float, done: Done) -> None:
        self.network = network
        self.peers = peers
        self.num_bytes = num_bytes
        self.done = done
        self.sent_bytes = 0.0
        self._pending = 0
        self._abandoned = False
        self._next: Done = done

    def abandon(self) -> None:
        self._abandoned = True

    def send(self, source: int, target: int, num_bytes: float) -> None:
        """Send within the present phase."""
        self.sent_bytes += num_bytes
        self.network.send(self.peers[source], self.peers[target], num_bytes, self._arrived)

    def phase(self, num_messages: int, then: Done) -> None:
        """Begin a phase of so many messages; `then` is called when all of them have arrived."""
        self._pending, self._next = num_messages, then
        if num_messages == 0:
            then()

    def _arrived(self, _: object) -> None:
        if self._abandoned:
            return
        self._pending -= 1
        if self._pending == 0:
            self._next()


class Ring(_Base):
    """Reduce-scatter and all-gather: in each of 2 (n-1) rounds every peer passes one n-th on to the next.

    A peer starts its next round as soon as it has the part that it is to pass on, whatever the others do.
    """

    def __init__(self, network: Carrier, peers: Sequence[int], num_bytes: float, done: Done) -> None:
        super().__init__(network, peers, num_bytes, done)
        count = len(peers)
        self._rounds = 2 * (count - 1)
        self.phase(count * self._rounds, done)
        for peer in range(count if self._rounds else 0):
            self._pass_on((peer, 0))

    def _pass_on(self, what: tuple[int, int]) -> None:
        peer, number = what
        count = len(self.peers)
        share = self.num_bytes / count
        self.sent_bytes += share
        target = (peer + 1) % count
        self.network.send(self.peers[peer], self.peers[target], share, self._received, (target, number + 1))

    def _received(self, what: tuple[int, int]) -> None:
        if self._abandoned:
            return
        if what[1] < self._rounds:
            self._pass_on(what)
        self._arrived(None)


class Tree(_Base):
    """Reduce along a binomial tree to the first peer, then broadcast down it, round by round."""

    def __init__(self, network: Carrier, peers: Sequence[int], num_bytes: float, done: Done) -> None:
        super().__init__(network, peers, num_bytes, done)
        self._depth = max(0, (len(peers) - 1).bit_length())
        self._up(0)

    def _pairs(self, level: int) -> list[tuple[int, int]]:
        step = 1 << level
        return [(low, low + step) for low in range(0, len(self.peers), 2 * step) if low + step < len(self.peers)]

    def _up(self, level: int) -> None:
        if level == self._depth:
            self._down(self._depth - 1)
            return
        pairs = self._pairs(level)
        self.phase(len(pairs), lambda: self._up(level + 1))
        for parent, child in pairs:
            self.send(child, parent, self.num_bytes)

    def _down(self, level: int) -> None:
        if level < 0:
            self.done()
            return
        pairs = self._pairs(level)
        self.phase(len(pairs), lambda: self._down(level - 1))
        for parent, child in pairs:
            self.send(parent, child, self.num_bytes)


class ShardedServer(_Base):
    """Every peer sums one n-th for all: everybody sends everybody its part, then the sums go back."""

    def __init__(self, network: Carrier, peers: Sequence[int], num_bytes: float, done: Done) -> None:
        super().__init__(network, peers, num_bytes, done)
        self._round(lambda: self._round(done))

    def _round(self, then: Done) -> None:
        count = len(self.peers)
        self.phase(count * (count - 1), then)
        for source in range(count):
            for target in range(count):
                if source != target:
                    self.send(source, target, self.num_bytes / count)


class CentralServer(_Base):
    """The first peer sums for all."""

    def __init__(self, network: Carrier, peers: Sequence[int], num_bytes: float, done: Done) -> None:
        super().__init__(network, peers, num_bytes, done)
        others = range(1, len(peers))
        self.phase(len(others), self._back)
        for source in others:
            self.send(source, 0, num_bytes)

    def _back(self) -> None:
        others = range(1, len(self.peers))
        self.phase(len(others), self.done)
        for target in others:
            self.send(0, target, self.num_bytes)


class Gather(_Base):
    """Everybody uploads to the object store, and when all have, downloads what the others uploaded."""

    def __init__(self, network: Carrier, peers: Sequence[int], num_bytes: float, done: Done) -> None:
        super().__init__(network, peers, num_bytes, done)
        if len(peers) == 1:
            done()
            return
        self.phase(len(peers), self._fetch)
        for peer in peers:
            self.sent_bytes += num_bytes
            network.to_storage(peer, num_bytes, self._arrived)

    def _fetch(self) -> None:
        self.phase(len(self.peers), self.done)
        for peer in self.peers:
            self.network.from_storage(peer, (len(self.peers) - 1) * self.num_bytes, self._arrived)


class AllToAll(_Base):
    """Everybody sends all that it has to everybody."""

    def __init__(self, network: Carrier, peers: Sequence[int], num_bytes: float, done: Done) -> None:
        super().__init__(network, peers, num_bytes, done)
        count = len(peers)
        self.phase(count * (count - 1), done)
        for source in range(count):
            for target in range(count):
                if source != target:
                    self.send(source, target, num_bytes)


Make = Callable[[Carrier, Sequence[int], float, Done], Collective]
ALGORITHMS: dict[str, Make] = {
    "ring": Ring,
    "tree": Tree,
    "sharded-ps": ShardedServer,
    "central-ps": CentralServer,
    "gather": Gather,
    "all-to-all": AllToAll,
}
