"""The way that bytes of a merge take: from peer to peer, or through the object store."""

from collections.abc import Callable
from typing import Any

from sim.network import Network
from sim.transfer import Transfer

Deliver = Callable[[Any], object]


class Parcel:
    """What is called when bytes of a merge arrive; no tuple, which is how boundary tensors travel."""

    __slots__ = ("arg", "deliver")

    def __init__(self, deliver: Deliver, arg: object) -> None:
        self.deliver = deliver
        self.arg = arg

    def __call__(self) -> None:
        """Hand it over."""
        self.deliver(self.arg)


def hand_over(parcel: Parcel) -> None:
    """Deliver a parcel."""
    parcel()


class Wire:
    """A network for the steps of a collective: every message from peer to peer, or each up to the store and down.

    `direct_bytes` counts what went from peer to peer; the store counts for itself.
    """

    def __init__(self, network: Network, *, through_storage: bool) -> None:
        self._network = network
        self._through_storage = through_storage
        self.direct_bytes = 0.0

    def send(self, source: int, target: int, size_bytes: float, deliver: Deliver, arg: object = None) -> Transfer:
        """Start to send; `deliver(arg)` is called when all has arrived."""
        parcel = Parcel(deliver, arg)
        if not self._through_storage:
            self.direct_bytes += size_bytes
            return self._network.send(source, target, size_bytes, hand_over, parcel)

        def fetch(_: object) -> None:
            self._network.from_storage(target, size_bytes, hand_over, parcel)

        return self.to_storage(source, size_bytes, fetch)

    def to_storage(self, peer: int, size_bytes: float, done: Deliver, arg: object = None) -> Transfer:
        """Start to upload."""
        return self._network.to_storage(peer, size_bytes, hand_over, Parcel(done, arg))

    def from_storage(self, peer: int, size_bytes: float, done: Deliver, arg: object = None) -> Transfer:
        """Start to download."""
        return self._network.from_storage(peer, size_bytes, hand_over, Parcel(done, arg))
