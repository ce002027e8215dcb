"""One directed connection as its source sees it: messages that wait, the window, credits."""

from collections import deque
from collections.abc import Callable
from math import ceil, inf
from typing import Final, NamedTuple

from emulator.throttle.paths import PathPlan

_LEAST_SHARE: Final = 0.25
_CHUNKS_PER_MESSAGE: Final = 8


class Message:
    """A message on its way out. `credited` counts the bytes that the target's downlink has taken in."""

    __slots__ = (
        "body", "chunk", "control", "credited", "extra_delay_s", "header", "number", "offset", "stamp_s", "total"
    )  # fmt: skip

    def __init__(self, number: int, header: bytes, body: memoryview, stamp_s: float, *, control: bool) -> None:
        self.number = number
        self.header = header
        self.body = body
        self.total = len(body)
        self.stamp_s = stamp_s
        self.control = control
        self.offset = 0  # bytes that have departed for the first time
        self.credited = 0
        self.chunk = 0
        self.extra_delay_s = 0.0


class Chunk(NamedTuple):
    """A part of a message that may depart."""

    message: Message
    offset: int
    num_bytes: int
    repeated: bool


class Flow:
    """What a peer sends to another over one connection: when its next chunk may start, and which one that is.

    Messages of the control class go first, each class in order. They need no credit, being small: a full window does
    not hold them up, though they count in it. All times are run seconds; `ready_s` and `control_s` are when the next
    chunk may start, of any class and of the control class, infinite if none waits; `refresh` brings them up to date
    after anything that touches the flow.

    `served` is what fair sharing has given it so far, and belongs to the uplink.
    """

    __slots__ = (
        "_control", "_credits", "_data", "_limit_bytes", "_repeats", "control_s", "departed_bytes", "gate_s",
        "halted", "num_chunks", "pace_s", "peer", "plan", "ready_s", "repeated_bytes", "served",
        "shares_link", "uncredited", "uncredited_bytes", "window_bytes",
    )  # fmt: skip

    def __init__(self, peer: int, plan: PathPlan, opened_s: float) -> None:
        path = plan.at(opened_s)
        self.peer = peer
        self.plan = plan
        self.gate_s = opened_s + path.handshake_s  # neither class departs before
        self.pace_s = -inf  # the connection's own rate and the site hold data back until then
        self.window_bytes = min(path.initial_window_bytes, path.window_bytes)
        self._limit_bytes = path.window_bytes
        self.uncredited_bytes = 0
        self.uncredited: dict[int, Message] = {}
        self._control: deque[Message] = deque()
        self._data: deque[Message] = deque()
        self._repeats: deque[tuple[float, Chunk]] = deque()
        self._credits: deque[tuple[float, int]] = deque()
        self.departed_bytes = 0
        self.repeated_bytes = 0
        self.num_chunks = 0
        self.halted = False  # the connection's own rate is 0 with no end in sight
        self.ready_s = self.control_s = inf
        self.served = 0.0
        self.shares_link = path.wan is not None and path.crosses_site

    @property
    def idle(self) -> bool:
        """Whether nothing waits to depart."""
        return not (self._control or self._data or self._repeats)

    def add(self, message: Message) -> None:
        """Let a message wait."""
        (self._control if message.control else self._data).append(message)
        self.uncredited[message.number] = message
        self.refresh()

    def credit(self, number: int, num_bytes: int, stamp_s: float) -> None:
        """Take in a credit that counts from `stamp_s` on; ValueError for bytes that were not under way."""
        message = self.uncredited.get(number)
        if message is None or message.credited + num_bytes > message.offset:
            raise ValueError(f"credit for {num_bytes} bytes of message {number} that are not under way")
        message.credited += num_bytes
        if message.credited == message.total:
            del self.uncredited[number]
        if num_bytes:
            self._credits.append((stamp_s, num_bytes))

    def repeat(self, number: int, offset: int, num_bytes: int, stamp_s: float) -> None:
        """Send a chunk again, not before `stamp_s`; ValueError for one that was not under way."""
        message = self.uncredited.get(number)
        if message is None or offset + num_bytes > message.offset:
            raise ValueError(f"{num_bytes} bytes at {offset} of message {number} are not under way")
        self._repeats.append((stamp_s, Chunk(message, offset, num_bytes, repeated=True)))

    def refresh(self) -> None:
        """Work out `ready_s` and `control_s`."""
        release = self.plan.release
        self.control_s = release(max(self._control[0].stamp_s, self.gate_s)) if self._control else inf
        ready_s = inf
        if self._repeats and not self.halted:
            ready_s = max(self._repeats[0][0], self.gate_s)
        if self._data and not self.halted:
            ready_s = min(ready_s, max(self._data[0].stamp_s, self.gate_s, self.pace_s, self._window_opens_s()))
        self.ready_s = min(release(ready_s), self.control_s)

    def take(self, start_s: float, chunk_bytes: "ChunkBytes") -> Chunk:
        """Return the chunk that starts at `start_s`, which must not be before `ready_s`; it counts as under way."""
        assert self.ready_s <= start_s
        self._apply_credits(start_s)
        self.num_chunks += 1
        if self.control_s <= start_s:
            return self._first_of(self._control, inf, start_s, chunk_bytes)
        if self._repeats and self._repeats[0][0] <= start_s:
            _, chunk = self._repeats.popleft()
            self.repeated_bytes += chunk.num_bytes
            return chunk
        return self._first_of(self._data, self.window_bytes - self.uncredited_bytes, start_s, chunk_bytes)

    def untake(self, chunk: Chunk) -> None:
        """Put back the chunk that was taken last: it cannot depart after all."""
        message = chunk.message
        self.num_chunks -= 1
        if chunk.repeated:
            self._repeats.appendleft((-inf, chunk))
            self.repeated_bytes -= chunk.num_bytes
            return
        waiting = self._control if message.control else self._data
        if not waiting or waiting[0] is not message:
            waiting.appendleft(message)
        message.offset -= chunk.num_bytes
        self.uncredited_bytes -= chunk.num_bytes
        self.departed_bytes -= chunk.num_bytes

    def _first_of(self, waiting: deque[Message], room_bytes: float, start_s: float, chunk_bytes: "ChunkBytes") -> Chunk:
        message = waiting[0]
        if not message.chunk:
            message.chunk = equal_chunk(message.total, chunk_bytes(self, message.total, start_s))
        offset = message.offset
        num_bytes = min(message.chunk, message.total - offset)
        if num_bytes > room_bytes:
            num_bytes = max(1, int(room_bytes))
        message.offset = offset + num_bytes
        self.uncredited_bytes += num_bytes
        self.departed_bytes += num_bytes
        if message.offset == message.total:
            waiting.popleft()
        return Chunk(message, offset, num_bytes, repeated=False)

    def _window_opens_s(self) -> float:
        """Return when the window has room for the next chunk of data, or for a good part of it."""
        message = self._data[0]
        chunk = message.chunk or message.total / _CHUNKS_PER_MESSAGE
        need = min(message.total - message.offset, max(chunk, 1.0) * _LEAST_SHARE, self.window_bytes * _LEAST_SHARE)
        room = self.window_bytes - self.uncredited_bytes
        if room >= need:
            return -inf
        limit = self._limit_bytes
        window = self.window_bytes
        for stamp_s, num_bytes in self._credits:
            grown = min(limit, window + num_bytes)
            room += num_bytes + grown - window
            window = grown
            if room >= need:
                return stamp_s
        return inf

    def _apply_credits(self, now_s: float) -> None:
        """Let the credits count whose time has come."""
        credits_ = self._credits
        while credits_ and credits_[0][0] <= now_s:
            _, num_bytes = credits_.popleft()
            self.uncredited_bytes -= num_bytes
            self.window_bytes = min(self._limit_bytes, self.window_bytes + num_bytes)


def equal_chunk(total: int, wanted: int) -> int:
    """Return the size of chunks, about `wanted`, that cut a message into equal parts; at least 1."""
    return max(1, ceil(total / max(1, ceil(total / wanted)))) if total else 1


ChunkBytes = Callable[[Flow, int, float], int]
"""(flow, size of a message, start) -> how large the chunks of such a message should be."""
