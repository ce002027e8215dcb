"""One peer's end of the transport: send messages, have others' delivered, see how the connections are doing."""

import threading
from collections.abc import Iterable
from time import monotonic
from typing import TYPE_CHECKING, Final

from orionbed.transport.counts import Counters
from orionbed.transport.greeting import Identity
from orionbed.transport.incoming import Deliver, Delivery, Incoming
from orionbed.transport.messages import Body
from orionbed.transport.outgoing import Address, Failed, Outgoing
from orionbed.transport.telemetry import Telemetry

if TYPE_CHECKING:
    from orionbed.fleet.tls import Credentials

__all__ = ["Address", "Delivery", "Endpoint"]

PATIENCE_S: Final = 10.0


class Endpoint:
    """Sends and receives the messages of one peer. Make it after a fork, never before; OSError: it cannot listen.

    Messages are pushed: they leave at once, and whoever gets them reads at all times. Each is delivered once, and those
    of one class (data, control) from one source in order; one that is damaged or lost with its connection is sent
    again. `deliver(Delivery)` is called from a thread per source, `failed(target, header, sequence, reason)` from a
    thread per target, when a message could not be delivered: the peer was not reached for `patience_s`, is gone, or was
    started anew. Both must be short, and `failed` must not raise; they may call any method but `close`. An exception
    out of `deliver` breaks the connection, and the message comes again.

    `token` is the run's secret, which both ends of a connection prove to know; `credentials` have all connections run
    over TLS 1.3, both ends with a certificate of the same authority. `life` counts how often the peer has been started:
    an earlier life is not listened to any more.

    All methods may be called from any thread.
    """

    def __init__(
        self,
        index: int,
        *,
        token: bytes,
        deliver: Deliver,
        failed: Failed,
        host: str = "127.0.0.1",
        port: int = 0,
        credentials: "Credentials | None" = None,
        life: int = 0,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self.index = index
        self._token, self._failed, self._patience_s = token, failed, patience_s
        self._client = credentials.client() if credentials else None
        server = credentials.server() if credentials else None
        self._incoming = Incoming(Identity.new(index, life), token, server, deliver, (host, port))
        self._lock = threading.Lock()
        self._outgoing: dict[int, Outgoing] = {}
        self._closed = False
        self.set_address(index, self.address)

    @property
    def address(self) -> Address:
        """Where this peer listens."""
        return self._incoming.address

    def set_address(self, peer: int, address: Address | None) -> None:
        """Say where a peer listens; None: it is gone. What waits for it at another place fails."""
        self._to(peer).set_address(address)
        if address is None:
            self._incoming.end(peer)

    def warm(self, peers: Iterable[int]) -> None:
        """Open the connections to these peers before they are needed."""
        for peer in peers:
            self._to(peer).warm()

    def send(self, target: int, header: bytes, body: Body, *, control: bool = False) -> int:
        """Send a message and return its sequence number; control messages overtake data that waits.

        Data messages to one peer are numbered from 0, control messages from 2**62. The body is not copied, and must
        stay as it is until it has arrived or failed; if it is a function without arguments, that is called in a thread
        of the transport when it is the message's turn, and may wait. ValueError: it is too large, or this is closed.
        """
        return self._to(target).send(header, body, control=control)

    def cut(self, peer: int, reason: str) -> None:
        """Reset the connections from and to a peer; they are opened again when needed, and nothing is lost."""
        self._to(peer).cut(reason)
        self._incoming.cut(peer)

    def flush(self, within_s: float) -> bool:
        """Wait until everything that was sent has arrived or failed; return whether it has."""
        deadline_s = monotonic() + within_s
        return all(line.flush(deadline_s) for line in self._lines())

    def absent_s(self, peer: int) -> float | None:
        """Return for how long a peer that was connected to this one has not been; None if it is, or never was."""
        since_s = self._incoming.source(peer).absent_since_s
        return None if since_s is None else monotonic() - since_s

    def counters(self) -> Counters:
        """Return what went between this peer and the others."""
        sent = tuple(line.count() for line in self._lines())
        received = tuple(self._incoming.counts())
        return Counters(
            sent=tuple(count for count in sent if count.num_connections or count.num_unsent),
            received=received,
            num_corrupted=sum(count.num_damaged for count in received),
            num_resent=sum(count.num_repeated for count in sent),
            num_reconnects=sum(max(0, count.num_connections - 1) for count in sent),
        )

    def telemetry(self) -> dict[int, Telemetry]:
        """Return how the connection to each peer is doing."""
        with self._lock:
            lines = {peer: line for peer, line in self._outgoing.items() if peer != self.index}
        return {peer: line.telemetry() for peer, line in lines.items()}

    def close(self) -> None:
        """End all threads and connections; what has not arrived is given up silently. May be called again."""
        with self._lock:
            self._closed = True
            lines = list(self._outgoing.values())
        self._incoming.close()
        for line in lines:
            line.close()
        for line in lines:
            line.join()
        self._incoming.join()

    def _to(self, peer: int) -> Outgoing:
        with self._lock:
            line = self._outgoing.get(peer)
            if line is None:
                line = self._outgoing[peer] = Outgoing(
                    self._incoming.identity,
                    peer,
                    self._token,
                    tls=self._client,
                    failed=self._failed,
                    patience_s=self._patience_s,
                )
                if self._closed:
                    line.close()
            return line

    def _lines(self) -> list[Outgoing]:
        with self._lock:
            return list(self._outgoing.values())
