"""Ways for a message that may fail or must wait: pushes with a time limit, few at once, or through the store.

Without any of them a push starts at once and takes as long as it takes (`Engine._send`). Here a message passes through
steps: it may wait for one of its sender's few places; a push then has a time limit. Through the store (IOTA's first
generation of transport, 2025) the sender asks for a presigned address, uploads, and is done; the receiver polls, asks
for an address and downloads. A message whose receiver is not there has failed and is sent again as `retry` says.
"""

from collections import deque
from collections.abc import Callable
from math import ceil
from typing import TYPE_CHECKING, Any, Final

from orionbed.plan import Plan
from orionbed.schedule.retries import Retries
from sim.clock import Call
from sim.deadlines import Deadlines
from sim.peer import SimPeer
from sim.store_traffic import StoreTraffic
from sim.transfer import Transfer

if TYPE_CHECKING:
    from sim.engine import Engine, Message

_NO_LIMIT: Final = 1 << 30


def retries_of(plan: Plan) -> Retries:
    """Return when this scenario's sends are tried again."""
    schedule = plan.scenario.pipeline.schedule
    if schedule.kind != "queue":
        return Retries(attempts=1)
    retry = schedule.retry
    return Retries(
        attempts=schedule.attempts,
        first_s=retry.backoff,
        cap_s=retry.backoff_cap,
        push_timeout_s=retry.push_timeout,
        drop_after_s=retry.drop_after,
        backward=retry.backward,
    )


def make_sending(
    engine: "Engine",
    arrive: "Callable[[Message], object]",
    again: "Callable[[Message], object]",
) -> "Sending | None":
    """Return the way that messages go, `None` where nothing can happen to them.

    `arrive` takes in a message at its receiver, `again` sends one that has failed once more, or gives it up.
    """
    schedule = engine.plan.scenario.pipeline.schedule
    if schedule.kind != "queue":
        return None
    plain = schedule.via == "p2p" and schedule.retry.push_timeout is None and schedule.retry.concurrent is None
    return None if plain else Sending(engine, arrive, again)


class Sending:
    """Messages on their way, each with the clock's call or the transfer that it waits for."""

    def __init__(
        self, engine: "Engine", arrive: "Callable[[Message], object]", again: "Callable[[Message], object]"
    ) -> None:
        plan = engine.plan
        schedule = plan.scenario.pipeline.schedule
        assert schedule.kind == "queue"
        self._engine = engine
        self._arrive = arrive
        self._again = again
        self._clock = engine.clock
        self._bytes = float(plan.boundary_bytes)
        self._store = schedule.store if schedule.via == "object-storage" else None
        limit_s = schedule.retry.push_timeout
        self._pushes = None if limit_s is None else Deadlines(engine.clock, limit_s, self._is_over, self._late)
        self._fetches = Deadlines(engine.clock, schedule.store.timeout, self._is_over, self._late)
        self._connect_s = schedule.connect_timeout
        self._places = schedule.retry.concurrent or _NO_LIMIT
        self._num_sending = [0] * len(plan.peers)
        self._waiting: list[deque[Message]] = [deque() for _ in plan.peers]
        # Of those that their sender still works on, and those that lie in the store or are being fetched.
        self._leaving: dict[Message, Call | Transfer] = {}
        self._stored: dict[Message, Call | Transfer] = {}
        self.traffic = StoreTraffic(engine.network)
        self.num_timeouts = 0
        self.num_requests = 0
        self.most_waiting = 0
        self._phases: list[float] = []
        if self._store is not None:
            random = engine.streams.get("store/poll")
            self._phases = random.uniform(0.0, self._store.poll_every, len(plan.peers)).tolist()

    def send(self, message: "Message") -> None:
        """Send a message, or let it wait for a place."""
        sender = message[3].index
        if self._num_sending[sender] < self._places:
            self._begin(message)
        else:
            self._waiting[sender].append(message)
            self.most_waiting = max(self.most_waiting, len(self._waiting[sender]))

    def _begin(self, message: "Message") -> None:
        source, target = message[3], message[4]
        if self._store is None and target.status != "training":
            self._failed(message, self._connect_s)
            return
        self._num_sending[source.index] += 1
        if self._store is None:
            transfer = self._engine.network.send(source.index, target.index, self._bytes, self._pushed, message)
            self._leaving[message] = transfer
            if self._pushes is not None:
                self._pushes.watch(message, transfer)
        else:
            self.num_requests += 1
            self._leaving[message] = self._clock.call_in(self._store.request, self._upload, message)

    def _is_over(self, message: "Message", transfer: Transfer) -> bool:
        return self._leaving.get(message) is not transfer and self._stored.get(message) is not transfer

    def _late(self, message: "Message", transfer: Transfer) -> None:
        """A transfer has used up its time without being through: it has failed."""
        if self._leaving.get(message) is transfer:
            self._leave(message)
        else:
            del self._stored[message]
        self._engine.network.cancel(transfer)
        self.num_timeouts += 1
        self._failed(message, 0.0)

    def _leave(self, message: "Message") -> None:
        """The sender is done with a message; the next one has its place."""
        sender = message[3].index
        del self._leaving[message]
        self._num_sending[sender] -= 1
        self._next(sender)

    def _next(self, sender: int) -> None:
        while self._waiting[sender] and self._num_sending[sender] < self._places:
            self._begin(self._waiting[sender].popleft())

    def _pushed(self, message: "Message") -> None:
        self._leave(message)
        self._arrive(message)

    # ---------------------------------------------------------------- through the store

    def _upload(self, message: "Message") -> None:
        transfer = self.traffic.up(message[3].index, self._bytes, self._uploaded, message)
        self._leaving[message] = transfer
        if self._pushes is not None:
            self._pushes.watch(message, transfer)

    def _uploaded(self, message: "Message") -> None:
        """The tensor lies in the store, to be found at the receiver's next poll."""
        assert self._store is not None
        self._leave(message)
        now, phase, every_s = self._clock.now, self._phases[message[4].index], self._store.poll_every
        at_s = max(now, phase + ceil((now - phase) / every_s) * every_s)
        self._stored[message] = self._clock.call_at(at_s + self._store.request, self._download, message)

    def _download(self, message: "Message") -> None:
        assert self._store is not None
        target = message[4]
        if target.status != "training":
            del self._stored[message]
            self._failed(message, 0.0)
            return
        self.num_requests += 1
        transfer = self.traffic.down(target.index, self._bytes, self._fetched, message)
        self._stored[message] = transfer
        self._fetches.watch(message, transfer)

    def _fetched(self, message: "Message") -> None:
        del self._stored[message]
        self._arrive(message)

    # ---------------------------------------------------------------- things that go wrong

    def _failed(self, message: "Message", after_s: float) -> None:
        """Try a message again after a pause: forwards to whom the router chooses then, gradients to the same peer."""
        record = self._engine.ledger.open.get(message[1])
        if record is not None:
            record.attempts += 1
            pause_s = self._engine.handing_on.retries.pause_s(record.attempts)
            self._clock.call_in(after_s + pause_s, self._again, message)

    def is_pushing(self, transfer: Transfer) -> bool:
        """Whether a transfer is the push of a message."""
        return isinstance(transfer.arg, tuple) and self._leaving.get(transfer.arg) is transfer

    def broke_off(self, transfer: Transfer) -> None:
        """The connection of a transfer broke; if it was the push of a message, the next one has its place."""
        if self.is_pushing(transfer):
            self._leave(transfer.arg)

    def cut_off(self, peer: SimPeer, transfers: list[Transfer], reason: str) -> None:
        """A peer stops, and `transfers` from and to it with it: what it has not sent is lost."""
        for transfer in transfers:
            message: Any = transfer.arg
            if self._leaving.pop(message, None) is not None:
                # The next one starts when the peer is known to be gone.
                self._num_sending[message[3].index] -= 1
                self._clock.call_in(0.0, self._next, message[3].index)
            self._stored.pop(message, None)
        lost = [message for message in self._leaving if message[3] is peer]
        for message in lost:
            call = self._leaving.pop(message)
            assert isinstance(call, Call)
            call.cancel()
        lost += self._waiting[peer.index]
        self._waiting[peer.index].clear()
        self._num_sending[peer.index] = 0
        for message in lost:
            self._engine.drop(peer, message[1], reason)

    def reset(self) -> None:
        """Forget everything: the training phase is over."""
        for waiting in (self._leaving, self._stored):
            for handle in waiting.values():
                if isinstance(handle, Call):
                    handle.cancel()
            waiting.clear()
        for queue in self._waiting:
            queue.clear()
        self._num_sending = [0] * len(self._num_sending)

    def summary(self) -> dict[str, Any]:
        """Return the summary's part about sends."""
        stored, read = self.traffic.moved()
        return {
            "push_timeouts": self.num_timeouts,
            "most_sends_waiting": self.most_waiting,
            "store_requests": self.num_requests,
            "store_bytes_up": stored,
            "store_bytes_down": read,
        }
