"""The network of pipelines with fixed schedules: messages of one connection follow one another.

A connection carries its bytes in the order in which they were given to it, so a message waits until the one before it
has drained; only different connections share links. Peers of queue-driven pipelines open a request per message
instead, whose transfers share their connection's way like any others (`sim.network`).
"""

from collections import deque
from collections.abc import Callable
from typing import Any

from sim.clock import COMPLETION
from sim.filling import Flow
from sim.network import Network
from sim.transfer import ALONE, FLYING, OVER, Connection, Transfer

Message = tuple[float, Callable[[Any], object], Any]


class InOrderNetwork(Network):
    """A network whose connections carry one message at a time."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._under_way: dict[Connection, Transfer] = {}
        self._held: dict[Connection, deque[Message]] = {}

    def send(
        self, source: int, target: int, size_bytes: float, deliver: Callable[[Any], object], arg: Any = None
    ) -> Transfer:
        """Send when the connection's messages before this one have drained; what is held back cannot be cancelled."""
        if not size_bytes >= 0.0:
            raise ValueError(f"cannot send {size_bytes} bytes")
        connection = self._connections[source].get(target)
        if connection is not None and connection in self._under_way:
            self._held.setdefault(connection, deque()).append((size_bytes, deliver, arg))
            held = Transfer()
            held.connection, held.size_bytes, held.state = connection, size_bytes, OVER
            return held
        return self._start(source, target, (size_bytes, deliver, arg))

    def cancel(self, transfer: Transfer) -> float:
        """Destroy what has not drained, as in any network; the connection's next message begins."""
        left = super().cancel(transfer)
        self._over(transfer)
        return left

    def cancel_peer(self, peer: int) -> list[Transfer]:
        """Destroy all that is on its way from or to a peer, and what waits for its connections."""
        for waiting in (self._under_way, self._held):
            for connection in [c for c in waiting if peer in {c.source, c.target}]:
                del waiting[connection]
        return super().cancel_peer(peer)

    def _start(self, source: int, target: int, message: Message) -> Transfer:
        transfer = super().send(source, target, *message)
        self._watch(transfer)
        return transfer

    def _watch(self, transfer: Transfer) -> None:
        """Note that a transfer is under way, and learn when it has drained."""
        if transfer.state in {FLYING, OVER}:
            return
        self._under_way[transfer.connection] = transfer
        if transfer.state == ALONE:
            self._clock.call_at(transfer.drained_s, self._drained_alone, transfer, COMPLETION)

    def _begin(self, transfer: Transfer) -> None:
        super()._begin(transfer)
        self._watch(transfer)

    def _drained_alone(self, transfer: Transfer) -> None:
        if transfer.state == ALONE:
            self._over(transfer)

    def _ended(self, flow: Flow) -> None:
        super()._ended(flow)
        self._over(flow.arg)

    def _over(self, transfer: Transfer) -> None:
        """The transfer has drained: the next message of its connection begins."""
        connection = transfer.connection
        if self._under_way.get(connection) is not transfer:
            return
        del self._under_way[connection]
        held = self._held.get(connection)
        if held:
            if self._clock.now <= connection.ready_s:
                connection.fast = False  # it has only just opened: this message is one of its first too
            self._start(connection.source, connection.target, held.popleft())
