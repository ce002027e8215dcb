"""One peer's end of the throttled network: send messages, have them delivered, change the links, count."""

import socket
import ssl
import threading
from collections import deque
from collections.abc import Callable
from math import isfinite
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from emulator.throttle.changes import Change, LinkChange
from emulator.throttle.counters import Counters
from emulator.throttle.downlink import Downlink
from emulator.throttle.frames import MAX_CHUNK_BYTES, MAX_HEADER_BYTES, MAX_MESSAGE_BYTES
from emulator.throttle.link import SCRATCH_BYTES
from emulator.throttle.mishaps import Mishaps
from emulator.throttle.outgoing import Message
from emulator.throttle.paths import Path, PathPlan
from emulator.throttle.poller import Poller
from emulator.throttle.rates import Rate
from emulator.throttle.receiving import Deliver, Delivery, Receiving
from emulator.throttle.sending import Address, Failed, Sending
from emulator.throttle.shared_clock import SharedClock
from emulator.throttle.uplink import Uplink
from orionbed.fleet.clock import PacedClock

__all__ = ["Address", "Delivery", "Endpoint", "Path"]

CHUNK_BYTES: Final = (4 * 1024, 64 * 1024)
_LONGEST_WAIT_S: Final = 1.0
_BACKLOG: Final = 256
_SHARE_OF_LEAD: Final = 0.75


class Endpoint:
    """Sends and receives messages of one peer over real TCP connections, at the rates and delays of its links.

    Make it in the process of the peer (after a fork), `start` it, tell it where the others listen (`set_address`),
    send, and `close` it. All times are run seconds of `clock`; rates are bytes per run second. `deliver` and `failed`
    are called from the endpoint's own thread and must be short; they may call `send` and the other methods but `close`.
    What they raise ends the endpoint.

    `path(peer)` describes the way to each other peer and is asked once per peer. `site_out` and `site_in` are links
    that this peer shares with the others of its site, for paths that cross the site. `chunk_bytes` bounds the size of
    chunks: scale it down where bytes and rates are scaled down. A frame is written up to `lead_real_s` real seconds
    before it departs (not ahead of time where a shared link is on the way). `token` is the run's secret; `life` counts
    how often the peer has been started. TLS contexts must not check host names. ValueError: bounds of chunks that make
    no sense.

    Everything but `start` and `close` may be called from any thread, at any time.
    """

    def __init__(
        self,
        index: int,
        clock: PacedClock,
        *,
        uplink: Rate,
        downlink: Rate,
        path: Callable[[int], Path],
        deliver: Deliver,
        failed: Failed,
        seed: int,
        token: bytes,
        lead_real_s: float = 0.004,
        site_out: SharedClock | None = None,
        site_in: SharedClock | None = None,
        chunk_bytes: tuple[int, int] = CHUNK_BYTES,
        life: int = 0,
        host: str = "127.0.0.1",
        server_tls: ssl.SSLContext | None = None,
        client_tls: ssl.SSLContext | None = None,
    ) -> None:
        if not 1 <= chunk_bytes[0] <= chunk_bytes[1] <= MAX_CHUNK_BYTES:
            raise ValueError(f"chunks must have 1 to {MAX_CHUNK_BYTES} bytes, not {chunk_bytes}")
        self.index = index
        self._clock = clock
        self._path = path
        self._plans: dict[int, PathPlan] = {}
        self._listener = socket.create_server(
            (host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=_BACKLOG
        )
        self._listener.settimeout(0.0)
        self.address: Address = self._listener.getsockname()[:2]
        self._bell, self._ear = socket.socketpair()
        self._bell.settimeout(0.0)
        self._ear.settimeout(0.0)
        self._poller = Poller(self._ear)
        self._poller.add(self._ear, self._hear)
        scratch = memoryview(bytearray(SCRATCH_BYTES))
        mishaps = Mishaps(seed, f"{index}/{life}")
        self._uplink = Uplink(uplink, chunk_bytes, mishaps, site_out)
        self._downlink = Downlink(downlink, site_in)
        common: dict[str, Any] = {"clock": clock, "poller": self._poller, "scratch": scratch, "plan": self._plan}
        common |= {"lead_s": lead_real_s / clock.dilation, "token": token}
        self._sending = Sending(
            index, life=life, uplink=self._uplink, mishaps=mishaps, failed=failed, tls=client_tls, **common
        )
        self._receiving = Receiving(
            index, listener=self._listener, downlink=self._downlink, deliver=deliver, tls=server_tls, **common
        )
        self._commands: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()
        self._lock = threading.Lock()
        self._num_messages = 0
        self._enqueued_bytes: dict[int, int] = {}
        self._rung = False
        self._patience_real_s = _SHARE_OF_LEAD * lead_real_s
        self._closing = False
        self._closed = False
        self._thread = threading.Thread(target=self._run, name=f"endpoint-{index}", daemon=True)

    def start(self) -> None:
        """Begin to listen, send and receive."""
        self._thread.start()

    def close(self) -> None:
        """End the thread and close all sockets; nothing is delivered or reported afterwards. May be called again."""
        self._closing = True
        if self._thread.is_alive():
            self._ring()
            self._thread.join()
        if not self._closed:
            self._close_sockets()

    def set_address(self, peer: int, address: Address | None) -> None:
        """Say where a peer listens now; None: it is gone.

        A change ends the earlier connections from and to the peer.
        """
        self._post(self._set_address, peer, address)

    def send(
        self, peer: int, header: bytes, body: bytes | bytearray | memoryview, *, stamp_s: float, control: bool = False
    ) -> int:
        """Enqueue a message at run second `stamp_s` and return its number; never blocks.

        Only the body is charged. It is not copied and must stay as it is until it has been credited or has failed.
        `failed` is called if the connection ends before all of it was credited: it may have been delivered nevertheless
        if only its last credit is missing. Messages of one class arrive in order, as long as the connection lives;
        `control` ones overtake the others. ValueError: too large, or a stamp that is no time.
        """
        view = memoryview(body).cast("B")
        if len(header) > MAX_HEADER_BYTES or len(view) > MAX_MESSAGE_BYTES or not isfinite(stamp_s):
            raise ValueError(f"cannot send a header of {len(header)} and a body of {len(view)} bytes at {stamp_s} s")
        with self._lock:
            number = self._num_messages
            self._num_messages += 1
            if peer != self.index:
                self._enqueued_bytes[peer] = self._enqueued_bytes.get(peer, 0) + len(view)
        if peer == self.index:
            self._post(self._receiving.from_self, Delivery(peer, header, view, stamp_s, stamp_s, number))
        else:
            self._post(self._sending.submit, peer, Message(number, header, view, stamp_s, control=control))
        return number

    def queued_bytes(self, peer: int) -> int:
        """Return the bytes that were given to `send` for a peer and have neither departed nor failed."""
        return self._enqueued_bytes.get(peer, 0) - self._sending.departed_bytes.get(peer, 0)

    def cut(self, peer: int, reason: str) -> None:
        """Reset the connections from and to a peer; messages that were under way fail with `reason`."""
        self._post(self._cut, peer, reason)

    def change(self, at_s: float, change: Change) -> None:
        """Let a change hold from run second `at_s` on; best announced before, so that no chunk straddles it."""
        self._post(self._change, at_s, change)

    def counters(self) -> Counters:
        """Return what has gone over each connection; exact while nothing moves."""
        sent, num_resent = self._sending.counts()
        received, num_corrupted = self._receiving.counts()
        return Counters(tuple(sent), tuple(received), num_corrupted, num_resent, self._sending.num_reconnects)

    def lateness(self) -> NDArray[np.float64]:
        """Return the real seconds by which deliveries came after their stamp (n,)."""
        return self._receiving.lateness.array()

    def frame_lateness(self) -> NDArray[np.float64]:
        """Return the real seconds by which frames came in after they should have arrived (n,); 0 for those in time.

        Where this is large, connections may have shared a downlink in another order than their stamps say.
        """
        return self._receiving.frame_lateness.array()

    def _post(self, function: Callable[..., None], *args: Any) -> None:
        """Let the I/O thread call a function soon."""
        self._commands.append((function, args))
        if not self._rung and threading.current_thread() is not self._thread:
            self._ring()

    def _ring(self) -> None:
        self._rung = True
        try:
            self._bell.send(b"!")
        except (BlockingIOError, OSError):
            return  # the bell is ringing already, or nobody listens any longer

    def _hear(self) -> None:
        self._ear.recv(4096)

    def _run(self) -> None:
        """Do what is due, then sleep until something is: the I/O thread."""
        clock, sending, receiving = self._clock, self._sending, self._receiving
        commands = self._commands
        try:
            while not self._closing:
                self._rung = False
                while commands:
                    function, args = commands.popleft()
                    function(*args)
                now_s = clock.now()
                if sending.next_step_s <= now_s:
                    sending.step(now_s)
                if receiving.next_step_s(now_s) <= now_s:
                    receiving.step(now_s)
                wake_s = min(sending.next_step_s, receiving.next_step_s(now_s))
                timeout_s = 0.0 if commands else min(clock.real_until(wake_s), _LONGEST_WAIT_S)
                self._poller.wait(timeout_s, self._patience_real_s)
        finally:
            self._close_sockets()

    def _close_sockets(self) -> None:
        self._closed = True
        self._sending.close()
        self._receiving.close()
        self._listener.close()
        self._poller.close()
        self._bell.close()
        self._ear.close()

    def _plan(self, peer: int) -> PathPlan:
        plan = self._plans.get(peer)
        if plan is None:
            path = self._path(peer)
            plan = self._plans[peer] = PathPlan(path)
            # Frames are here so much before they arrive that nobody needs to look for them sooner.
            self._patience_real_s = min(self._patience_real_s, path.owd_s * self._clock.dilation)
        return plan

    def _set_address(self, peer: int, address: Address | None) -> None:
        if self._sending.set_address(peer, address):
            self._cut(peer, "the peer is gone" if address is None else "the peer has moved")

    def _cut(self, peer: int, reason: str) -> None:
        self._sending.end(peer, reason)
        self._receiving.end(peer, reason)

    def _change(self, at_s: float, change: Change) -> None:
        if not isinstance(change, LinkChange):
            self._plan(change.peer).add(at_s, change)
        elif change.direction == "up":
            self._uplink.rate.change(at_s, change.factor, change.ceiling)
        else:
            self._downlink.rate.change(at_s, change.factor, change.ceiling)
        self._uplink.changed()
        self._receiving.changed(self._clock.now())
