"""What one peer sends to another: over one connection, opened again when it breaks, until the other end has it all."""

import socket
import ssl
import threading
from collections.abc import Callable
from time import monotonic
from typing import Final

from orionbed.transport.backlog import SMALL_BYTES, Backlog
from orionbed.transport.counts import SentCount
from orionbed.transport.frames import ANSWER_BYTES, Kind, read_answer
from orionbed.transport.greeting import Hello, Identity, greet
from orionbed.transport.messages import Body, Message
from orionbed.transport.pipe import Pipe, make_pipe
from orionbed.transport.reader import Reader
from orionbed.transport.telemetry import Telemetry, telemetry

Address = tuple[str, int]
Failed = Callable[[int, bytes, int, str], object]

CONNECT_WITHIN_S: Final = 3.0
MOST_FRUITLESS: Final = 20
_PAUSES_S: Final = (0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.0)


class Connection:
    """A connection that has been greeted. `broken` once nothing more can come of it."""

    def __init__(self, pipe: Pipe) -> None:
        self.pipe = pipe
        self.broken = False
        self.fruitful = False


class Outgoing:
    """The messages from this peer to one other. All methods may be called from any thread, and none waits long.

    `failed` is called from the line's own thread, without a lock held.
    """

    def __init__(
        self, identity: Identity, target: int, token: bytes, *, tls: ssl.SSLContext | None, failed: Failed,
        patience_s: float,
    ) -> None:  # fmt: skip
        self._identity, self._target, self._token, self._tls = identity, target, token, tls
        self._failed, self._patience_s = failed, patience_s
        self._changed = threading.Condition()
        self._backlog = Backlog(target)
        self._address: Address | None = None
        self._gone = False
        self._warm = False
        self._closed = False
        self._connection: Connection | None = None
        self._fruitless = 0
        self._reason = "it never answered"
        self._thread: threading.Thread | None = None

    def send(self, header: bytes, body: Body, *, control: bool) -> int:
        """Let a message wait to be sent; return its sequence number. ValueError: too large, or closed."""
        with self._changed:
            if self._closed:
                raise ValueError("the endpoint is closed")
            sequence = self._backlog.add(header, body, control=control)
            self._go()
        return sequence

    def warm(self) -> None:
        """Open the connection before it is needed."""
        with self._changed:
            if not self._closed:
                self._warm = True
                self._go()

    def set_address(self, address: Address | None) -> None:
        """Say where the peer listens; what waits for another place fails."""
        with self._changed:
            if address == self._address and self._gone is (address is None):
                return
            if self._address is not None or address is None:
                reason = "the peer is gone" if address is None else "the peer has moved"
                self._backlog.fail_all(reason)
                self._break(reason)
            self._address, self._gone = address, address is None
            self._fruitless = 0
            self._changed.notify_all()

    def cut(self, reason: str) -> None:
        """Reset the connection; what was under way is sent again."""
        with self._changed:
            self._break(reason)

    def flush(self, deadline_s: float) -> bool:
        """Wait until everything has been acknowledged or has failed; return whether it has by that second."""
        with self._changed:
            done = lambda: self._closed or not (self._backlog or self._backlog.has_failures)  # noqa: E731
            return self._changed.wait_for(done, max(0.0, deadline_s - monotonic()))

    def count(self) -> SentCount:
        """Return the counts as they are now."""
        with self._changed:
            return self._backlog.count()

    def telemetry(self) -> Telemetry:
        """Return how the connection is doing."""
        with self._changed:
            connection = self._connection
            return telemetry(connection.pipe.sock if connection else None, self._backlog.times)

    def close(self) -> None:
        """Give up everything that waits, silently."""
        with self._changed:
            self._closed = True
            self._break("closed")
            self._changed.notify_all()

    def join(self) -> None:
        """Wait for the thread to end, after `close`."""
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def _go(self) -> None:
        if self._thread is None:
            name = f"transport-{self._identity.index}-to-{self._target}"
            self._thread = threading.Thread(target=self._run, name=name, daemon=True)
            self._thread.start()
        self._changed.notify_all()

    def _break(self, reason: str) -> None:
        if self._connection is not None and not self._connection.broken:
            self._reason = reason
            self._connection.broken = True
            self._connection.pipe.reset()
            self._changed.notify_all()

    def _run(self) -> None:
        """Connect, write, and begin again when that breaks: the line's own thread."""
        backlog = self._backlog
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or self._warm or backlog or backlog.has_failures)
                if self._closed:
                    return
            self._report()
            connection = self._open()
            if connection is not None:
                self._serve(connection)

    def _report(self) -> None:
        """Say which messages have failed."""
        with self._changed:
            failures = self._backlog.failures()
        for message, reason in failures:
            self._failed(self._target, message.header, message.sequence, reason)
        with self._changed:
            self._changed.notify_all()

    def _open(self) -> Connection | None:
        """Return a new connection; None when nothing waits for one, or when it has been tried for long enough."""
        since_s = monotonic()
        while True:
            with self._changed:
                if not self._wanted():
                    return None
                if self._fruitless:
                    pause_s = _PAUSES_S[min(self._fruitless, len(_PAUSES_S)) - 1]
                    address = self._address
                    self._changed.wait_for(lambda: not self._wanted() or self._address != address, pause_s)  # noqa: B023
                    if not self._wanted():
                        return None
                address = self._address
            try:
                if address is None:
                    raise ConnectionError("its address is not known")
                return self._connect(address, min(CONNECT_WITHIN_S, self._patience_s))
            except OSError as error:
                self._reason = str(error) or type(error).__name__
            with self._changed:
                self._fruitless += 1
                if monotonic() - since_s >= self._patience_s:
                    self._give_up()
                    return None

    def _wanted(self) -> bool:
        """Whether there is anything to connect for; a peer that is gone has nothing."""
        if self._gone:
            self._backlog.fail_all("the peer is gone")
            self._warm = False
        return not (self._closed or self._backlog.has_failures) and (self._warm or bool(self._backlog))

    def _give_up(self) -> None:
        self._backlog.fail_all(f"no connection to peer {self._target} for {self._patience_s:g} s: {self._reason}")
        self._warm, self._fruitless = False, 0

    def _connect(self, address: Address, within_s: float) -> Connection:
        deadline_s = monotonic() + within_s
        sock = socket.create_connection(address, within_s)
        pipe = make_pipe(sock, self._tls, server_side=False, deadline_s=deadline_s)
        try:
            return self._greeted(Connection(pipe), address)
        except BaseException:
            with self._changed:
                self._connection = None
                pipe.close()
            raise

    def _greeted(self, connection: Connection, address: Address) -> Connection:
        pipe = connection.pipe
        with self._changed:
            self._connection = connection
            first = self._backlog.first
            if self._closed or self._address != address:
                self._break("it is not wanted any more")
        pipe.shake_hands()
        try:
            welcome = greet(pipe, self._token, Hello(self._identity, first), self._target)
        except TimeoutError:
            if self._tls is not None:
                raise
            raise ConnectionError("it is there and says nothing, as one does that waits for TLS") from None
        pipe.until(None)
        with self._changed:
            if not connection.broken:
                self._backlog.resume(welcome.target, welcome.expected)
                self._warm = False
                self._changed.notify_all()
        return connection

    def _serve(self, connection: Connection) -> None:
        """Write what waits until the connection is broken."""
        name = f"transport-{self._identity.index}-answers-of-{self._target}"
        hearing = threading.Thread(target=self._hear, args=(connection,), name=name, daemon=True)
        hearing.start()
        try:
            while batch := self._next_batch(connection):
                _write(connection.pipe, batch)
        except OSError as error:
            self._reason = str(error)
        connection.pipe.reset()
        hearing.join()
        with self._changed:
            self._connection = None
            connection.pipe.close()
            self._backlog.rewind()
            self._warm = True  # the other end may count on it
            self._fruitless = 0 if connection.fruitful else self._fruitless + 1
            if self._fruitless > MOST_FRUITLESS:
                self._give_up()

    def _next_batch(self, connection: Connection) -> list[Message]:
        """Wait for messages and return those to be written next: a large one, or some small; none at the end."""
        backlog = self._backlog
        while True:
            with self._changed:
                self._changed.wait_for(lambda: connection.broken or backlog.has_failures or backlog.waits)
                if connection.broken:
                    return []
                batch = [] if backlog.has_failures else backlog.take()
            if not batch:
                self._report()
                continue
            self._resolve(batch[0])
            return batch

    def _resolve(self, message: Message) -> None:
        """Wait for the body of a message; one that cannot be had is given up."""
        if not callable(message.body):
            return
        try:
            message.resolve()
        except Exception as error:  # noqa: BLE001 - whatever the caller's function raises
            message.body = memoryview(b"")
            with self._changed:
                self._backlog.fail(message, f"its body could not be had: {error}")
            return
        with self._changed:
            self._backlog.resolved(message)

    def _hear(self, connection: Connection) -> None:
        """Take in the other end's answers."""
        reader = Reader(connection.pipe, lambda: None)
        reason = "the other end sent nonsense"
        try:
            while True:
                kind, sequence = read_answer(reader.exactly(ANSWER_BYTES))
                with self._changed:
                    self._heard(connection, kind, sequence)
        except OSError as error:
            reason = str(error)
        with self._changed:
            self._break(reason)

    def _heard(self, connection: Connection, kind: Kind, sequence: int) -> None:
        self._backlog.answered(kind, sequence)
        if kind is Kind.ACKNOWLEDGED:
            connection.fruitful = True
            self._fruitless = 0
        self._changed.notify_all()


def _write(pipe: Pipe, batch: list[Message]) -> None:
    """Write messages, small ones with one call."""
    if sum(message.num_bytes for message in batch) <= SMALL_BYTES:
        pipe.send(b"".join(piece for message in batch for piece in message.pieces()))
        return
    for message in batch:
        for piece in message.pieces():
            pipe.send(piece)
