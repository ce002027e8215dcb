"""The training phase: peers act, messages travel, micro-batches complete. All of it plain callbacks.

This is the simulator's innermost loop. One operation costs one clock event, one message one more.
"""

from array import array
from collections.abc import Callable
from math import ceil, inf
from typing import Protocol

from simpy.core import StopSimulation

from orionbed import tracing
from orionbed.ledger import Ledger
from orionbed.plan import Plan
from orionbed.results import Mark
from orionbed.schedule.actions import Action
from orionbed.schedule.policy import Waiting
from orionbed.streams import Block, Streams
from sim.clock import Clock
from sim.ending import Ending
from sim.fixed_batch import FixedBatch
from sim.handing_on import HandingOn
from sim.network import Network
from sim.peer import SimPeer
from sim.peers import make_peers
from sim.recording import Recording
from sim.recovery.choice import make_recovery
from sim.registry import make_board
from sim.scribe import Scribe
from sim.status import Board
from sim.synchronous import Outboxes
from sim.syncing import Syncing

# kind, micro-batch (the policy's number), chunk it is for, sender, receiver, sent at
Message = tuple[str, int, int, SimPeer, SimPeer, float]


class Holding(Protocol):
    """What holds peers back; it is told who has ended what it did."""

    def ended(self, peer: SimPeer) -> None:
        """`peer` has ended what it did."""


class Engine:
    """Peers, network and ledger of one run, and what happens between them while training."""

    def __init__(self, plan: Plan, clock: Clock, network: Network, streams: Streams) -> None:
        self.plan = plan
        self.clock = clock
        self.network = network
        self.streams = streams
        self.ledger = Ledger(plan.num_chunks)
        self.applied_s = array("d")
        self.target_applied: int | None = None
        self.in_training = False
        self.marks: list[Mark] = []
        self.bytes_boundary = 0.0
        self.recording = Recording(plan, clock)
        self.status: Board = make_board(plan, clock, streams)
        self.peers = make_peers(plan, streams, self.ledger.create)
        self._set_up_schedule()
        self._num_blocked_sources = 0
        self._jitter = Block(streams.get("jitter").standard_normal).take if plan.scenario.peers.jitter else None
        self._jitter_sd = plan.scenario.peers.jitter
        self._boundary_bytes = float(plan.boundary_bytes)
        self._counts_encryption = network.transport.cipher_rate < inf
        self._last_stage = plan.num_stages - 1
        synchronous = plan.scenario.network.transport.synchronous and not self.is_queue_driven
        self.outboxes = Outboxes(network, self._boundary_bytes, self.arrive) if synchronous else None
        sync = plan.scenario.sync
        self.syncing = None if isinstance(sync, str) else Syncing(self, sync)
        # While it is set, peers begin nothing new: a merge that throws nothing away is about to begin.
        self.hold: Holding | None = None
        self.keeps_work = False
        self.recovery = make_recovery(self)
        self._is_kept = self.recovery.keeps_gradients
        self._may_be_void = self.recovery.may_be_void and self.is_queue_driven
        # Seconds of the lost stage's backward by (micro-batch, peer that does it besides its own); mostly empty.
        self._taken_over = self.recovery.taken_over
        self.handing_on = HandingOn(self)
        self.sending = self.handing_on.sending
        self._sends_plainly = self.outboxes is None and self.sending is None
        self._hand_on_forward = self.recovery.after_forward(self.handing_on.forward)
        self._hand_on_backward = self.handing_on.backward
        self.fixed_batch = FixedBatch(self)
        self.ending = Ending(self)
        # Whether a peer that is about to join the training has to wait a little longer.
        self.holds_back: Callable[[SimPeer], bool] | None = None
        # What faults make of an operation: (peer, its start, seconds on a healthy peer) -> seconds.
        self.stretched_s: Callable[[SimPeer, float, float], float] | None = None
        # Hears of every micro-batch that was applied, by its number in the run.
        self.on_applied: Callable[[int], None] | None = None
        # Writes down what happens to weights, if somebody asked for it.
        self.scribe: Scribe | None = None

    def _set_up_schedule(self) -> None:
        schedule = self.plan.scenario.pipeline.schedule
        self.is_queue_driven = schedule.kind == "queue"
        if schedule.kind == "queue":
            self._poll_loop_s, self._poll_empty_s = schedule.poll_loop, schedule.poll_empty
            self._poll_full_s, self._status_every_s = schedule.poll_full, schedule.status_every
        else:
            self._poll_loop_s = self._poll_empty_s = self._poll_full_s = 0.0
            self._status_every_s = 0.0

    # ---------------------------------------------------------------- training phase

    def start_training(self, peer: SimPeer) -> None:
        """Let `peer` join the training phase that is under way."""
        if self.holds_back is not None and self.holds_back(peer):
            return
        if peer.status == "training":
            return
        if self.scribe is not None:
            self.scribe.begins(peer)
        if self.recovery.holds_back(peer):
            return
        peer.charge_status(self.clock.now)
        peer.status = "training"
        peer.waiting_for_first = True
        if self.is_queue_driven:
            self.look(peer, self.clock.now, 0.0)
            self.status.announce(peer)
        else:
            self.fixed_batch.hold(peer)
            self.fixed_batch.release_if_complete(peer.replica)

    def stand_by(self, peer: SimPeer) -> None:
        """Let `peer`, if it is idle, begin nothing until `start_training`; what is on its way still queues up."""
        if peer.idle:
            if peer.wake is not None:
                peer.wake.cancel()
                peer.wake = None
            self.charge_idle(peer, self.clock.now)

    def holds_work(self, peer: SimPeer) -> bool:
        """Whether `peer` has micro-batches to lose: it trains, or merges without having thrown them away."""
        return peer.status == "training" or (peer.status == "merging" and self.keeps_work)

    def start_broadcasts(self) -> None:
        """Start the peers' periodic status broadcasts."""
        if self.is_queue_driven:
            peers = self.plan.scenario.peers
            orchestrator = self.plan.scenario.orchestrator
            assigns = not isinstance(orchestrator, str) and orchestrator.assign != "own"
            may_move = peers.rebalance_every is not None or peers.rejoin != "own" or assigns
            self.status.start(self.peers, self._status_every_s, may_move=may_move)

    def look(self, peer: SimPeer, now: float, gap_s: float) -> None:
        """Start the peer's next operation `gap_s` from now, or let it idle."""
        if self.hold is not None:
            self.hold.ended(peer)
            return
        engaged = self.outboxes is not None and self.outboxes.engages(peer)
        action = None if engaged else peer.policy.next_action()
        if action is not None:
            self._begin(peer, action, now + gap_s)
            return
        peer.idle = True
        peer.ready_s = -1.0
        waiting = peer.policy.waiting
        by_window = waiting is Waiting.WINDOW
        peer.idle_by_sync = waiting is Waiting.SYNC
        peer.idle_by_window = by_window
        peer.poll_s = self._poll_full_s if by_window else self._poll_empty_s
        if peer.stage == 0:
            if by_window:
                peer.is_blocked_source = True
                self._num_blocked_sources += 1
        else:
            # How much of the pipeline's entrance is shut by the window when this peer runs dry.
            # Peers may have moved to the first stage, so that there are more sources than replicas.
            peer.blocked_share = min(1.0, self._num_blocked_sources / self.plan.num_replicas)

    def _begin(self, peer: SimPeer, action: Action, start_s: float) -> None:
        if peer.idle:
            self.charge_idle(peer, start_s)
        kind, chunk, number = action
        if peer.numbering is not None and kind == "F" and chunk == 0:
            peer.numbering[number] = self.ledger.create()
        duration = peer.durations[chunk][kind]
        if self._jitter is not None:
            duration *= max(0.05, 1.0 + self._jitter_sd * self._jitter())
        if self._taken_over and kind == "B":
            duration += self._taken_over.get((number, peer.index), 0.0)
        if self.stretched_s is not None:
            duration = self.stretched_s(peer, start_s, duration)
        peer.waiting_for_first = False
        peer.action = action
        peer.action_s = start_s
        peer.running = self.clock.call_at(start_s + duration, self._finish, peer)
        if self.syncing is not None:
            self.syncing.begun(peer, action, start_s, duration)

    def charge_idle(self, peer: SimPeer, until_s: float) -> None:
        """End the peer's idle time and account for it."""
        if peer.is_blocked_source:
            peer.is_blocked_source = False
            self._num_blocked_sources -= 1
        started_s = peer.accounted_s
        cause = peer.end_idle(until_s)
        if self.recording.active and until_s > started_s:
            self.recording.idle(peer, started_s, until_s, cause)

    # ---------------------------------------------------------------- operations end

    def _finish(self, peer: SimPeer) -> None:
        now = self.clock.now
        action = peer.action
        assert action is not None
        kind, chunk, number = action
        duration = now - peer.action_s
        if peer.action_s > peer.accounted_s:
            peer.cause_s[tracing.CAUSE_POLLING] += peer.action_s - peer.accounted_s
        peer.accounted_s = now
        peer.work_s[kind] += duration
        peer.num_done[kind] += 1
        peer.running = None
        if self.recording.active:
            self.recording.operation(peer, kind, number, now)
        if kind == "STEP":
            peer.policy.on_finished(action)
            if self.scribe is not None:
                self.scribe.stepped(peer)
            self.look(peer, now, self._poll_loop_s)
            return
        try:
            record = self.ledger.open[number if peer.numbering is None else peer.numbering[number]]
        except KeyError:
            self.recovery.in_vain(peer, action, duration)
            self.look(peer, now, self._poll_loop_s)
            return
        peer.policy.on_finished(action)
        record.spent.append((peer.index, kind, chunk, number, duration))
        if self.scribe is not None:
            self.scribe.finished(peer, action, record)
        if peer.numbering is not None:
            self.fixed_batch.finish(peer, action, record)
        elif kind == "F":
            if peer.stage < self._last_stage:
                record.slots.append((peer.index, now))
                self._hand_on_forward(peer, number, record)
        else:
            self._hand_on_backward(peer, action, record)
        self.look(peer, now, self._poll_loop_s)

    def apply(self, peer: SimPeer, number: int) -> None:
        """All stages have used a micro-batch."""
        record = self.ledger.apply(self.ledger_number(peer, number))
        if self.on_applied is not None:
            self.on_applied(self.ledger_number(peer, number))
        if self.scribe is not None:
            self.scribe.over(number)
        if self._is_kept:
            self.recovery.applied(number, record)
        if peer.numbering is not None:
            del peer.numbering[number]
        self.applied_s.append(self.clock.now)
        if self.ledger.applied == self.target_applied:
            raise StopSimulation(None)

    def ledger_number(self, peer: SimPeer, number: int) -> int:
        """Return the run's number of a micro-batch; peers of static schedules count within their replica."""
        return number if peer.numbering is None else peer.numbering.get(number, -1)

    # ---------------------------------------------------------------- messages

    def send(self, kind: str, number: int, chunk: int, peer: SimPeer, target: SimPeer) -> None:
        """Send a boundary tensor: an activation (`F`) or a gradient (`B`) of micro-batch `number`."""
        if peer is not target:
            self.bytes_boundary += self._boundary_bytes
        message = (kind, number, chunk, peer, target, self.clock.now)
        if self._sends_plainly or peer is target:
            self.network.send(peer.index, target.index, self._boundary_bytes, self.arrive, message)
        elif self.outboxes is not None:
            self.outboxes.send(message)
        elif self.sending is not None:
            self.sending.send(message)

    def _can_start(self, peer: SimPeer) -> bool:
        return peer.policy.ready() and not (self.outboxes is not None and self.outboxes.engages(peer))

    def arrive(self, message: Message) -> None:
        """Take in a boundary tensor at its receiver."""
        kind, number, chunk, source, peer, sent_s = message
        now = self.clock.now
        if self.recording.active and peer is not source:
            self.recording.message(source, peer, number, self._boundary_bytes, (sent_s, now))
        if kind == "B" and not peer.policy.holds(number):
            self.recovery.no_way_back(source, number, peer)
            return
        if self._may_be_void and number not in self.ledger.open:
            self.recovery.refuse(number)
            return
        policy = peer.policy
        policy.on_message(kind, number, source.index, chunk)
        if self.scribe is not None and kind == "B":
            self.scribe.got_gradient(peer, number, source.index)
        if peer.idle and peer.wake is None and self._can_start(peer):
            if self._counts_encryption:
                num_bytes = self._boundary_bytes
                peer.ready_encrypted_s = self.network.encryption_s(source.index, peer.index, num_bytes, sent_s)
            self.wake_soon(peer, now, sent_s)
        if self.outboxes is not None and source is not peer:
            self.outboxes.arrived(source)
            if source.idle and source.wake is None and self._can_start(source):
                self.wake_soon(source, now, source.accounted_s)

    def wake_soon(self, peer: SimPeer, now: float, sent_s: float) -> None:
        """Start the idle peer at the next tick of its polling."""
        peer.ready_s = now
        peer.ready_sent_s = sent_s
        if peer.poll_s <= 0.0 or peer.waiting_for_first:
            self._wake(peer)
            return
        since = peer.accounted_s
        at = max(now, since + ceil((now - since) / peer.poll_s) * peer.poll_s)
        peer.wake = self.clock.call_at(at, self._wake, peer)

    def _wake(self, peer: SimPeer) -> None:
        peer.wake = None
        action = peer.policy.next_action()
        assert action is not None
        self._begin(peer, action, self.clock.now)

    # ---------------------------------------------------------------- things that go wrong

    def drop(self, peer: SimPeer, number: int, reason: str) -> None:
        """Give a micro-batch up. The peers that wait for its gradient learn it only when their slot expires."""
        self.recovery.drop(peer, number, reason)

    def wake_if_ready(self, peer: SimPeer) -> None:
        """Let an idle peer notice that there is something to do, or that what there was is gone."""
        if peer.status != "training" or not peer.idle:
            return
        ready = peer.policy.ready()
        if peer.wake is None and ready:
            self.wake_soon(peer, self.clock.now, self.clock.now)
        elif peer.wake is not None and not ready:
            peer.wake.cancel()
            peer.wake = None
            peer.ready_s = -1.0

    def doze(self, peer: SimPeer) -> bool:
        """Let a peer that idles in the training no longer notice what comes, until `look_again`; else return false."""
        at_work = self.is_queue_driven or all(p.status == "training" for p in self.peers if p.replica == peer.replica)
        if peer.status != "training" or not peer.idle or not at_work:
            return False
        self.stand_by(peer)
        return True

    def look_again(self, peer: SimPeer) -> None:
        """Let a peer that dozed look for something to do."""
        self.look(peer, self.clock.now, 0.0)
