"""A peer's loop: it asks its policy what to do, does it on real tensors, and hands on the result.

One piece of code for every backend that really computes. The loop knows seconds of the run only; whoever drives it
decides when they come, and carries its messages. It mirrors the simulator's engine step by step, so that the two can be
held against one another: what one peer knows is all it uses.
"""

from collections.abc import Callable
from math import ceil, inf

from orionbed import tracing
from orionbed.account import CAUSE_OF_STATUS, KIND_CODES, Account
from orionbed.policies import durations_of
from orionbed.schedule.actions import Action
from orionbed.schedule.policy import Policy, Waiting
from orionbed.streams import Block, Streams
from orionbed.training.ailments import Ailments
from orionbed.training.compute import Body, Compute
from orionbed.training.reporting import Reporter
from orionbed.training.surroundings import Hands, Header, Setup, Transport
from orionbed.training.text import sample_of
from orionbed.training.timeline import Event, Timeline


class PeerLoop:
    """What all peers have in common; `QueueLoop` and `FixedLoop` know the rest."""

    policy: Policy
    hands: Hands | None = None
    """Who works in real time; without, the work of an operation is done at once and its seconds are counted."""
    poll_loop_s = poll_empty_s = poll_full_s = 0.0

    def __init__(self, setup: Setup, transport: Transport, reporter: Reporter, compute: Compute) -> None:
        self.setup = setup
        self.plan = setup.plan
        self.me = setup.plan.peers[setup.index]
        self.stage, self.replica = self.me.stage, self.me.replica
        self.transport, self.reporter, self.compute = transport, reporter, compute
        self.timeline = Timeline()
        self.account = Account()
        self.streams = Streams(setup.seed)
        self.status = "startup"
        self.epoch = 0
        self.bytes_boundary = 0.0
        self.on_command: Callable[[Header], None] = lambda _what: None
        self.ailments = Ailments(setup.faults, setup.index)
        self._num_applied_steps = 0
        self._work = 0
        self._durations = durations_of(setup.plan, self.stage, self.me.speed, self.me.hardware)
        # what came for an operation, and from whom
        self._inputs: dict[tuple[str, int, int], tuple[Body, int]] = {}
        self._source = -1
        self._until_s = inf
        self._accumulated: list[tuple[int, int]] = []
        self._action: Action | None = None
        self._action_s = 0.0
        self._result: Body = None
        self._to_do: Action | None = None
        self._begun = False
        self._stepped = self._on_record = False
        self._running: Event | None = None
        self._wake: Event | None = None
        self._poll_s = 0.0
        jitter = setup.plan.scenario.peers.jitter
        stream = self.streams.get(f"jitter/{setup.index}/{setup.life}")
        self._jitter = Block(stream.standard_normal).take if jitter else None

    @property
    def now_s(self) -> float:
        """Second of the run that the peer has got to."""
        return self.timeline.now_s

    @property
    def generation(self) -> int:
        """What messages are tagged with: those of another generation are too late."""
        return self.epoch

    def held(self) -> list[int]:
        """Return the micro-batches that are here in any form: queued, in flight, or in the accumulator."""
        found = [self.number_of(microbatch) for microbatch in self.policy.held()]
        return sorted({*found, *(number for _, number in self._accumulated)})

    def number_of(self, microbatch: int) -> int:
        """Return the number in the whole run of what the policy calls `microbatch`."""
        return microbatch

    # ---------------------------------------------------------------- phases

    def begin(self, epoch: int, until_s: float) -> None:
        """Join the training phase that is under way, or ends at `until_s`."""
        self.account.charge(CAUSE_OF_STATUS[self.status], self.now_s)
        self.status = "training"
        self.epoch = self.reporter.epoch = epoch
        self.account.waiting_for_first = True
        self._until_s = until_s
        if until_s < inf:
            self.timeline.at(until_s, self._end_phase, epoch)
        self._join()

    def _join(self) -> None:
        self.look(self.now_s, 0.0)

    def _end_phase(self, epoch: int) -> None:
        if self.status == "training" and self.epoch == epoch:
            self.end_training()

    def end_training(self) -> None:
        """Leave the training phase: what is in flight is flushed, gradients at hand become a last step."""
        self.halt()
        self.flush_step()
        self.forget_all()
        self.status = "merging"
        self.tell({"t": "ended", "epoch": self.epoch, "steps": self.policy.num_steps})

    def halt(self) -> None:
        """Stop what is being done, and account for it; what has really begun is brought to its end."""
        if self._begun:
            self.settle()
            action, result = self._conclude()
            if action.kind == "B":  # others may still use a gradient; an activation comes too late
                self.hand_on(action, result)
        account, now = self.account, self.now_s
        if self._running is not None:
            self._running.cancel()
            self._running = self._to_do = None
            account.charge(tracing.CAUSE_POLLING, max(account.accounted_s, min(now, self._action_s)))
            account.charge(tracing.CAUSE_THROWN_AWAY, now)
        elif account.idle:
            if self._wake is not None:
                self._wake.cancel()
                self._wake = None
            self.end_idle(now)

    def settle(self) -> None:
        """Wait until no operation is being worked on, so that weights stay as they are and all steps are on record."""
        if self.hands is not None:
            self.timeline.now_s = max(self.now_s, self.hands.wait())
            if self._stepped:
                self._apply_step()
                self._on_record = True

    def take_merged(self, version: int, weights: bytes) -> None:
        """Take over the weights that a merge gave, as a version of the stage."""
        self.compute.load_weights(weights)
        self._work = 0
        event = "committed" if self.status == "merging" else "adopted"
        self.journal_version(event, version, self.compute.worker.weights_hash())

    def work_since(self, version: int) -> int:  # noqa: ARG002
        """Return how many micro-batches' gradients the weights have taken in since a merge made this version."""
        return self._work

    def journal_version(self, event: str, version: int, digest: str, source: int = -1) -> None:
        """Write down that this stage has come to a version, by itself or from others."""
        chunk = self.compute.chunks[0]
        self.reporter.journal(self.now_s, event, chunk=chunk, step=version, detail=digest, source=source)

    def flush_step(self) -> None:
        """Use the gradients that have been accumulated, as a step that takes no time."""
        if self._accumulated:
            self._apply_step()

    def forget_all(self) -> None:
        """Drop everything in flight; the peers that made it write down that it is gone."""
        self.policy.reset()
        self._inputs.clear()
        self.compute.worker.reset()
        self._accumulated.clear()
        self.reporter.journal(self.now_s, "reset")

    def close(self, at_s: float) -> None:
        """Account for every second up to `at_s`, where the run ends."""
        self.timeline.now_s = max(self.timeline.now_s, at_s)
        account = self.account
        if self.status == "training" and self._running is not None:
            account.charge(tracing.CAUSE_POLLING, max(account.accounted_s, min(at_s, self._action_s)))
            account.charge(tracing.CAUSE_FILL, at_s)
        elif self.status == "training" and account.idle:
            account.end_idle(at_s)
        else:
            account.charge(CAUSE_OF_STATUS[self.status], at_s)

    # ---------------------------------------------------------------- operations

    def look(self, now_s: float, gap_s: float) -> None:
        """Start the next operation `gap_s` from now, or be idle."""
        action = self.policy.next_action()
        if action is not None:
            self._begin(action, now_s + gap_s)
            return
        account, waiting = self.account, self.policy.waiting
        account.idle = True
        account.ready_s = -1.0
        account.idle_by_sync = waiting is Waiting.SYNC
        account.idle_by_window = waiting is Waiting.WINDOW
        self._poll_s = self.poll_full_s if account.idle_by_window else self.poll_empty_s
        self.reporter.flush(account, "idle")

    def _begin(self, action: Action, start_s: float) -> None:
        if self.account.idle:
            self.end_idle(start_s)
        kind = action.kind
        self._action, self._action_s = action, start_s
        if kind == "F" and action.chunk == 0:
            self.created(action.microbatch)
        # The work itself is done at once, or when the driver has told others; its seconds pass until it is finished.
        self._to_do = action
        self.account.waiting_for_first = False
        if self.hands is not None:
            self._running = self.timeline.at(start_s, self._start)
            return
        if self.setup.measured:
            self.work()
            duration = self.compute.last_s
        else:
            duration = self._durations[action.chunk][kind]
            if self._jitter is not None:
                duration *= max(0.05, 1.0 + self.plan.scenario.peers.jitter * self._jitter())
        end_s = self.ailments.end_s(start_s, duration)
        # What the end of the phase cuts off must not leave its gradient behind.
        if not self.setup.deferred and end_s < self._until_s:
            self.work()
        self._running = self.timeline.at(end_s, self._finish)

    def work(self) -> None:
        """Do the real work of the operation under way, if that is still to be done."""
        action, self._to_do = self._to_do, None
        if action is None:
            return
        if action.kind != "STEP":
            self._result = self._computed(action)
        elif self.hands is not None:
            self.compute.step(self.divisor())
            self._stepped = True

    def _start(self, _: object) -> None:
        """Let the work of the operation under way begin; it lasts as long as it lasts."""
        action = self._action
        assert action is not None
        assert self.hands is not None
        self._action_s = self.now_s
        self._begun = True
        self._running = Event(inf, self._finish, None)
        what = action.kind if action.kind == "STEP" else f"{action.kind} of micro-batch {self.number_of(action[2])}"
        self.hands.begin(what, self.work, self._worked, self._running)

    def _worked(self, ending: Event) -> None:
        """Finish the operation whose work is done, later if the peer is slow; not if it was halted."""
        if ending.fn is None:
            return
        end_s = self.ailments.slowed_s(self._action_s, self.now_s)
        if end_s > self.now_s:
            self._running = self.timeline.at(end_s, self._finish)
        else:
            self._finish(None)

    def _computed(self, action: Action) -> Body:
        kind, chunk, microbatch = action
        needed = "F" if kind == "F" or ("F", chunk, microbatch) in self._inputs else "B"
        body, self._source = self._inputs.pop((needed, chunk, microbatch), (None, -1))
        return self.compute.run(kind, chunk, self.number_of(microbatch), body)

    def end_idle(self, until_s: float) -> None:
        """End the peer's idle time and account for it."""
        started_s = self.account.accounted_s
        cause = self.account.end_idle(until_s)
        if until_s > started_s:
            self.reporter.span(tracing.LANE_COMPUTE, tracing.KIND_IDLE, cause, -1, (started_s, until_s))

    def _finish(self, _: object) -> None:
        self.work()
        action, result = self._conclude()
        if action.kind != "STEP":
            self.hand_on(action, result)
        self.look(self.now_s, self.poll_loop_s)

    def _conclude(self) -> tuple[Action, Body]:
        """Account for the operation that ends now; return it and its result."""
        now, action, account = self.now_s, self._action, self.account
        assert action is not None
        if self._running is not None:
            self._running.cancel()
        kind = action.kind
        if self._action_s > account.accounted_s:
            account.cause_s[tracing.CAUSE_POLLING] += self._action_s - account.accounted_s
        account.accounted_s = now
        account.work_s[kind] += now - self._action_s
        account.num_done[kind] += 1
        self._running = None
        self._begun = False
        number = -1 if kind == "STEP" else self.number_of(action.microbatch)
        span_s = (self._action_s, now)
        self.reporter.span(tracing.LANE_COMPUTE, KIND_CODES[kind], tracing.CAUSE_NONE, number, span_s)
        self.policy.on_finished(action)
        if kind == "STEP":
            if not self._on_record:
                self._apply_step()
            self._on_record = False
        else:
            self._journal(action, number)
            self.reporter.flush(account, "busy")
        result, self._result = self._result, None
        return action, result

    def _journal(self, action: Action, number: int) -> None:
        kind, chunk, _ = action
        event = "forward" if kind == "F" else "backward"
        self.reporter.journal(self.now_s, event, chunk=chunk, microbatch=number, detail=kind, source=self._source)
        loss = self.compute.take_loss(number)
        if loss is not None:
            self.reporter.journal(self.now_s, "loss", chunk=chunk, microbatch=number, detail=repr(loss))
        if kind in {"B", "W"}:
            self._accumulated.append((chunk, number))
            self.reporter.journal(self.now_s, "accumulated", chunk=chunk, microbatch=number, step=self.step_number())

    def _apply_step(self) -> None:
        divisor = self.divisor()
        self._num_applied_steps += 1
        self._work += len({number for _, number in self._accumulated})
        if not self._stepped:
            self.compute.step(divisor)
        self._stepped = False
        for chunk, number in self._accumulated:
            self.reporter.journal(
                self.now_s, "applied", chunk=chunk, microbatch=number, step=self.step_number(), detail=str(divisor)
            )
        self._accumulated.clear()
        self.stepped()

    def divisor(self) -> int:
        """Return how many micro-batches the gradient at hand is the sum of."""
        return len({number for _, number in self._accumulated})

    def step_number(self) -> int:
        """Return the number of the optimizer step just taken."""
        return self._num_applied_steps

    def stepped(self) -> None:
        """Do what follows an optimizer step."""

    # ---------------------------------------------------------------- messages

    def created(self, microbatch: int) -> None:
        """Write down that a micro-batch has come into the world."""
        number = self.number_of(microbatch)
        training = self.plan.scenario.training
        sample = sample_of(training.data, self.compute.shape, self.setup.seed, number)
        self.reporter.journal(self.now_s, "created", chunk=0, microbatch=number, detail=sample)

    def hand_on(self, action: Action, result: Body) -> None:
        """Send the result of an operation where it goes."""
        raise NotImplementedError

    def send_boundary(  # noqa: PLR0917
        self, kind: str, microbatch: int, chunk: int, target: int, body: Body, attempt: int = 0
    ) -> None:
        """Send a boundary tensor for `chunk` to a peer, which may be this one."""
        header = {"k": kind, "m": microbatch, "c": chunk, "e": self.generation, "a": attempt}
        if target == self.me.index:
            self.timeline.at(self.now_s, self.arrive, ({**header, "from": target, "sent": self.now_s}, body))
            return
        self.bytes_boundary += self.plan.boundary_bytes
        self.transport.send(target, header, body, float(self.plan.boundary_bytes), self.now_s)

    def arrive(self, what: tuple[Header, Body]) -> None:
        """Take in a message; drivers put it on the timeline at the second it arrives."""
        header, body = what
        if header["k"] not in {"F", "B"}:
            self.on_other(header, body)
            return
        if header["from"] != self.me.index:
            self.tell_message(header)
        if header["e"] == self.generation or self.status != "training":
            self.on_boundary(header, body)

    def on_boundary(self, header: Header, body: Body) -> None:
        """Take in an activation or a gradient of the present training phase."""
        kind, microbatch, chunk = header["k"], header["m"], header["c"]
        self._inputs[kind, chunk, microbatch] = body, header["from"]
        self.policy.on_message(kind, microbatch, header["from"], chunk)
        self.wake_if_ready(header["sent"])

    def on_other(self, header: Header, body: bytes) -> None:
        """Take in a message that is no boundary tensor."""

    def tell_message(self, header: Header) -> None:
        """Report a transfer, for the trace."""
        number = self.number_of(header["m"])
        self.reporter.transfer(header["from"], number, float(self.plan.boundary_bytes), (header["sent"], self.now_s))

    def failed(self, what: tuple[int, Header, str]) -> None:
        """Take note that a message could not be delivered; drivers put it on the timeline."""

    def tell(self, message: Header) -> None:
        """Tell whoever runs the peer, after all that has happened so far."""
        self.reporter.flush(self.account, self.status)
        self.on_command({**message, "at_s": self.now_s})

    def wake_if_ready(self, sent_s: float) -> None:
        """Start the idle peer at the next tick of its polling, if there is something to do."""
        account = self.account
        if not (account.idle and self._wake is None and self.policy.ready()):
            return
        now = self.now_s
        account.ready_s, account.ready_sent_s = now, sent_s
        if self._poll_s <= 0.0 or account.waiting_for_first:
            self._woken(None)
            return
        since = account.accounted_s
        at_s = max(now, since + ceil((now - since) / self._poll_s) * self._poll_s)
        self._wake = self.timeline.at(at_s, self._woken)

    def _woken(self, _: object) -> None:
        self._wake = None
        action = self.policy.next_action()
        assert action is not None
        self._begin(action, self.now_s)
