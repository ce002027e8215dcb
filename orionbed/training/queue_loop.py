"""The loop of a queue-driven peer: routing by what others broadcast, retries, slots that expire."""

from orionbed.policies import queue_policy
from orionbed.schedule.actions import Action
from orionbed.schedule.routers import StageView
from orionbed.streams import Block
from orionbed.training.compute import Body, Compute
from orionbed.training.cursor import Cursor
from orionbed.training.loop import PeerLoop
from orionbed.training.reporting import Reporter
from orionbed.training.surroundings import Header, Setup, Transport
from orionbed.training.timeline import Event

KEPT_GRADIENTS = 64
SILENT_AFTER = 1.2
"""A peer that has not been heard of for so many broadcast intervals is taken for gone."""


class QueueLoop(PeerLoop):
    """Asynchronous, backward first, within an in-flight window. See `orionbed.schedule.queue_driven`."""

    def __init__(self, setup: Setup, transport: Transport, reporter: Reporter, compute: Compute) -> None:
        super().__init__(setup, transport, reporter, compute)
        plan, schedule = self.plan, self.plan.scenario.pipeline.schedule
        assert schedule.kind == "queue"
        self._block = schedule
        self.poll_loop_s, self.poll_empty_s = schedule.poll_loop, schedule.poll_empty
        self.poll_full_s = schedule.poll_full
        uniform = Block(self.streams.get(f"router/{setup.index}/{setup.life}").random).take
        self.cursor = Cursor(self.replica, plan.num_replicas)
        self.policy = self._queue = queue_policy(plan, uniform, self.cursor.take, self.stage, self.replica)
        following = [peer for peer in plan.peers if peer.stage == self.stage + 1]
        self._view = StageView([p.index for p in following], [plan.known_speed(p) for p in following], free_cache=1)
        self._heard_s = dict.fromkeys(self._view.peers, 0.0)
        self._listeners = [peer.index for peer in plan.peers if peer.stage == self.stage - 1]
        # micro-batch -> what was sent on, how often, and to whom
        self._sent: dict[int, tuple[Body, int, int | None]] = {}
        self._taken: set[int] = set()
        self._used: set[int] = set()
        # the last gradients sent back, for the case that one does not get through: body, to whom, how often
        self._back: dict[int, tuple[Body, int, int]] = {}
        self.gone: set[int] = set()
        self._expiry: dict[int, Event] = {}
        phases = self.streams.get("broadcast").uniform(0.0, schedule.status_every, len(plan.peers))
        self._phase_s = float(phases[setup.index])
        self._broadcasting = False

    # ---------------------------------------------------------------- phases

    def _join(self) -> None:
        # Who is silent is known only after a while: at first all are taken to be there.
        self._heard_s = dict.fromkeys(self._view.peers, self.now_s)
        for position in range(len(self._view.peers)):
            self._view.fresh[position] = True
        self._view.version += 1
        super()._join()
        self._announce()
        if not self._broadcasting and self._listeners:
            self._broadcasting = True
            self.timeline.at(self.now_s + self._phase_s, self._broadcast)

    def forget_all(self) -> None:
        if self.stage == 0:
            for number in self._queue.held():
                self._drop(number, "flushed at merge")
        for event in self._expiry.values():
            event.cancel()
        self._expiry.clear()
        self._sent.clear()
        self._taken.clear()
        self._used.clear()
        self._back.clear()
        super().forget_all()

    # ---------------------------------------------------------------- status

    def _broadcast(self, _: object) -> None:
        if self.status == "training":
            self._announce()
        self.timeline.at(self.now_s + self._block.status_every, self._broadcast)

    def _announce(self) -> None:
        # Others judge by the sender's own clock how old this is.
        at_s = self.ailments.clock_s(self.now_s)
        header = {"k": "S", "free": self._queue.num_free, "queue": self._queue.num_queued, "e": self.epoch, "at": at_s}
        for listener in self._listeners:
            self.transport.send(listener, header, b"", 0.0, self.now_s, control=True)

    def _hear(self, header: Header) -> None:
        position = self._view.peers.index(header["from"])
        self._heard_s[header["from"]] = min(self.now_s, header["at"])
        self._view.update(position, header["free"], header["queue"])

    def _forget_silent(self) -> None:
        silent_s = self.ailments.clock_s(self.now_s) - SILENT_AFTER * self._block.status_every
        for position, peer in enumerate(self._view.peers):
            if self._heard_s[peer] < silent_s:
                self._view.drop(position)

    # ---------------------------------------------------------------- sending

    def hand_on(self, action: Action, result: Body) -> None:
        number = action.microbatch
        if action.kind == "F":
            assert result is not None
            self._sent[number] = (result, 0, None)
            life_s = self._block.cache_ttl * (self.plan.num_stages - self.stage)
            self._expiry[number] = self.timeline.at(self.now_s + life_s, self._expire, number)
            self._send_forward(number)
            return
        target = self.policy.route(action, None)
        self._release(number)
        if target is not None:
            assert result is not None
            self._back[number] = (result, target, 0)
            if len(self._back) > KEPT_GRADIENTS:
                del self._back[next(iter(self._back))]
            self.send_boundary("B", number, self.stage - 1, target, result)

    def _send_forward(self, number: int) -> None:
        body, attempt, target = self._sent[number]
        if target is None or target in self.gone:
            self._forget_silent()
            target = self.policy.route(Action("F", self.stage, number), self._view)
        self._sent[number] = (body, attempt, target)
        if target is None:
            self._retry(number)
        else:
            self.send_boundary("F", number, self.stage + 1, target, body, attempt)

    def _retry(self, number: int, *, elsewhere: bool = True) -> None:
        """Try again after a connection timeout, unless that was the last attempt.

        To the same peer, unless it has said no or is gone: it may have the micro-batch, and only its answer was lost.
        """
        if number not in self._sent:
            return
        body, attempt, target = self._sent[number]
        self._sent[number] = (body, attempt + 1, None if elsewhere else target)
        self.timeline.at(self.now_s + self._block.connect_timeout, self._resend, (number, self.epoch))

    def _resend(self, what: tuple[int, int]) -> None:
        number, epoch = what
        if number not in self._sent or self.status != "training" or epoch != self.epoch:
            return
        attempt = self._sent[number][1]
        if attempt >= self._block.attempts:
            self._give_up(number, "no peer to send to")
        else:
            self.reporter.journal(self.now_s, "retried", chunk=self.stage, microbatch=number, attempt=attempt)
            self._send_forward(number)

    def failed(self, what: tuple[int, Header, str]) -> None:
        target, header, reason = what
        self.reporter.failure(target, self.now_s, header["plan_bytes"])
        kind, number = header["k"], header.get("m", -1)
        if header.get("e") != self.epoch or self.status != "training":
            return
        if kind == "F":
            self._retry(number, elsewhere=False)
        elif kind == "B" and number in self._back and self._back[number][1] not in self.gone:
            self.timeline.at(self.now_s + self._block.connect_timeout, self._send_back, (number, self.epoch))
        elif kind == "B":
            self._drop(number, f"way back lost: {reason}")

    def _send_back(self, what: tuple[int, int]) -> None:
        """Send a gradient again whose receiver may not have got it."""
        number, epoch = what
        if number not in self._back or self.status != "training" or epoch != self.epoch:
            return
        body, target, attempt = self._back[number]
        self._back[number] = (body, target, attempt + 1)
        if target in self.gone or attempt + 1 >= self._block.attempts:
            self._drop(number, "way back lost")
        else:
            self.send_boundary("B", number, self.stage - 1, target, body, attempt + 1)

    # ---------------------------------------------------------------- receiving

    def on_boundary(self, header: Header, body: Body) -> None:
        number = header["m"]
        if self.status != "training":
            if header["k"] == "F":
                self.transport.send(
                    header["from"], {"k": "N", "m": number, "e": header["e"]}, b"", 0.0, self.now_s, control=True
                )
            return
        if header["k"] == "B" and number in self._used:
            self.reporter.journal(self.now_s, "refused", chunk=self.stage, microbatch=number, detail="here before")
            return
        if header["k"] == "B" and not self.policy.holds(number):
            self.reporter.journal(self.now_s, "refused", chunk=self.stage, microbatch=number, detail="not held")
            self._drop(number, "way back lost")
            return
        if header["k"] == "B":
            self._used.add(number)
            self._release(number)  # from here on it can neither expire nor be sent again
        elif header["k"] == "F":
            if number in self._taken:
                self.reporter.journal(self.now_s, "refused", chunk=self.stage, microbatch=number, detail="here before")
                return
            self._taken.add(number)
        super().on_boundary(header, body)

    def on_other(self, header: Header, body: Body) -> None:  # noqa: ARG002
        if header["k"] == "S":
            self._hear(header)
        elif header["k"] == "N" and header["e"] == self.epoch:
            self._retry(header["m"])

    # ---------------------------------------------------------------- losing

    def _release(self, number: int) -> None:
        self._sent.pop(number, None)
        event = self._expiry.pop(number, None)
        if event is not None:
            event.cancel()

    def _expire(self, number: int) -> None:
        self._give_up(number, "slot expired")

    def _give_up(self, number: int, reason: str) -> None:
        """Free the slot of a micro-batch that will not come back."""
        self._release(number)
        self.compute.worker.forget(number)
        self.policy.on_lost(number)
        self._drop(number, reason)
        self.wake_if_ready(self.now_s)

    def _drop(self, number: int, reason: str) -> None:
        self.reporter.journal(self.now_s, "dropped", chunk=self.stage, microbatch=number, detail=reason)
        self.reporter.flush(self.account, "idle" if self.account.idle else "busy")
