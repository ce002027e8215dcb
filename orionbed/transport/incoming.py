"""What others send to this peer: connections are let in, messages checked, delivered in order, and acknowledged."""

import socket
import ssl
import threading
import zlib
from collections.abc import Callable
from contextlib import suppress
from time import monotonic
from typing import Final, NamedTuple

import numpy as np

from orionbed.transport.counts import ReceivedCount
from orionbed.transport.frames import CRC_BYTES, HEAD_BYTES, Head, Kind, answer, crc_bytes, lane_of, read_head
from orionbed.transport.greeting import Challenge, Identity, Welcome
from orionbed.transport.pipe import Pipe, make_pipe
from orionbed.transport.reader import Reader
from orionbed.transport.sources import Source

GREET_WITHIN_S: Final = 5.0
MOST_STRANGERS: Final = 64
_BACKLOG: Final = 256
_ACKNOWLEDGE_EVERY: Final = 64
_PAUSE_S: Final = 0.05


class Delivery(NamedTuple):
    """A message that has come. Nobody else has its body."""

    source: int
    sequence: int
    header: bytes
    body: memoryview


Deliver = Callable[[Delivery], object]


class Incoming:
    """The listening socket and one thread for each connection. `deliver` is called from these threads."""

    def __init__(
        self, identity: Identity, token: bytes, tls: ssl.SSLContext | None, deliver: Deliver, address: tuple[str, int]
    ) -> None:
        self._token, self._tls, self._deliver = token, tls, deliver
        self._listener = socket.create_server(address, backlog=_BACKLOG, family=_family(address[0]))
        name = self._listener.getsockname()
        self.address = (str(name[0]), int(name[1]))
        self.identity = identity
        self._lock = threading.Lock()
        self._sources: dict[int, Source] = {}
        self._pipes: set[Pipe] = set()
        self._threads: list[threading.Thread] = []
        self._num_strangers = 0
        self._closed = False
        self._accepting = threading.Thread(target=self._accept, name=f"transport-{identity.index}-listens", daemon=True)
        self._accepting.start()

    def source(self, index: int) -> Source:
        """Return what is known of a peer."""
        with self._lock:
            return self._sources.setdefault(index, Source(index))

    def cut(self, index: int) -> None:
        """Reset the connection of a peer."""
        if (pipe := self.source(index).pipe) is not None:
            pipe.reset()

    def end(self, index: int) -> None:
        """End the connection of a peer."""
        if (pipe := self.source(index).pipe) is not None:
            pipe.end()

    def counts(self) -> list[ReceivedCount]:
        """Return the counts of all peers' lives."""
        with self._lock:
            return [count for source in self._sources.values() for count in source.counts]

    def close(self) -> None:
        """Let nobody in any more and break all connections."""
        with self._lock:
            self._closed = True
            pipes = list(self._pipes)
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        for pipe in pipes:
            pipe.end()

    def join(self) -> None:
        """Wait for all threads to end, after `close`."""
        own = threading.current_thread()
        with self._lock:
            threads = [self._accepting, *self._threads]
        for thread in threads:
            if thread is not own:
                thread.join()
        self._listener.close()

    def _accept(self) -> None:
        while not self._closed:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                # Too many open files pass; a closed listener does not.
                threading.Event().wait(0.0 if self._closed else _PAUSE_S)
                continue
            with self._lock:
                if self._closed or self._num_strangers >= MOST_STRANGERS:
                    sock.close()
                    continue
                self._num_strangers += 1
                thread = threading.Thread(target=self._serve, args=(sock,), daemon=True, name="transport-in")
                self._threads = [one for one in self._threads if one.is_alive()] + [thread]
                thread.start()

    def _serve(self, sock: socket.socket) -> None:
        """Greet and read one connection."""
        pipe: Pipe | None = None
        try:
            try:
                pipe = make_pipe(
                    sock, self._tls, server_side=True, deadline_s=monotonic() + GREET_WITHIN_S
                )  # fmt: skip
                source = self._greeted(pipe)
            finally:
                with self._lock:
                    self._num_strangers -= 1
            try:
                Receiver(source, pipe, self._deliver).run()
            finally:
                source.detach(pipe)
        except OSError:
            pass  # a stranger, or a connection that broke: its source opens another
        finally:
            if pipe is not None:
                with self._lock:
                    self._pipes.discard(pipe)
                pipe.end()
                pipe.close()

    def _greeted(self, pipe: Pipe) -> Source:
        with self._lock:
            if self._closed:
                raise ConnectionError("closed")
            self._pipes.add(pipe)
        pipe.shake_hands()
        challenge = Challenge(pipe, self._token)
        hello = challenge.hear(self.identity.index)
        source = self.source(hello.source.index)
        expected = source.attach(hello, pipe)
        try:
            challenge.welcome(Welcome(self.identity, expected))
            pipe.until(None)
        except OSError:
            source.detach(pipe)
            raise
        return source


class Receiver:
    """Reads messages from one connection until it breaks."""

    def __init__(self, source: Source, pipe: Pipe, deliver: Deliver) -> None:
        self._source, self._pipe, self._deliver = source, pipe, deliver
        self._reader = Reader(pipe, self._acknowledge)
        self._done: list[int | None] = [None, None]
        self._num_done = 0

    def run(self) -> None:
        """Read until the connection breaks. OSError: it has; FrameError: what came in was no message."""
        while True:
            head = read_head(self._reader.exactly(HEAD_BYTES))
            header = bytes(self._reader.exactly(head.header_bytes))
            # Not zeroed: every byte is written before anybody sees it.
            body = np.empty(head.body_bytes, np.uint8).data if head.body_bytes else memoryview(b"")
            crc = self._reader.into(body, zlib.crc32(header))
            intact = self._reader.exactly(CRC_BYTES) == crc_bytes(crc)
            with self._source.lock:
                if self._source.pipe is not self._pipe:
                    return
                self._take(head, header, body, intact=intact)
            if self._num_done >= _ACKNOWLEDGE_EVERY:
                self._acknowledge()

    def _take(self, head: Head, header: bytes, body: memoryview, *, intact: bool) -> None:
        verdict = self._source.judge(head, intact=intact)
        if verdict == "refuse":
            self._acknowledge()
            self._pipe.send(answer(Kind.REFUSED, head.sequence))
        elif verdict == "take":
            if head.kind is Kind.MESSAGE:
                self._deliver(Delivery(self._source.index, head.sequence, header, body))
                self._source.counts[-1].num_messages += 1
                self._source.counts[-1].num_bytes += head.body_bytes
            self._source.taken(head)
        if verdict in {"take", "repeat"}:
            lane = lane_of(head.sequence)
            self._done[lane] = max(head.sequence, self._done[lane] or 0)
            self._num_done += 1

    def _acknowledge(self) -> None:
        """Say up to where everything is here."""
        if self._num_done:
            self._num_done = 0
            answers = [answer(Kind.ACKNOWLEDGED, sequence) for sequence in self._done if sequence is not None]
            self._done = [None, None]
            self._pipe.send(b"".join(answers))


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET
