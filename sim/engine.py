"""The training phase: peers act, messages travel, micro-batches complete. All of it plain callbacks.

This is the simulator's innermost loop. One operation costs one clock event, one message one more.
"""

from array import array
from math import ceil

from simpy.core import StopSimulation

from orionbed import tracing
from orionbed.account import CAUSE_OF_STATUS
from orionbed.ledger import Ledger, MicrobatchRecord
from orionbed.plan import Plan
from orionbed.results import Mark
from orionbed.schedule.actions import Action
from orionbed.schedule.policy import Waiting
from orionbed.schedule.queue_driven import QueueDrivenPolicy
from orionbed.streams import Block, Streams
from sim.clock import Clock
from sim.network import Network
from sim.peer import SimPeer
from sim.peers import make_peers
from sim.recording import Recording
from sim.status import StatusBoard
from sim.synchronous import Outboxes
from sim.syncing import Syncing
from sim.transfer import Transfer

# kind, micro-batch (the policy's number), chunk it is for, sender, receiver, sent at
Message = tuple[str, int, int, SimPeer, SimPeer, float]


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
        self.status = StatusBoard(plan, clock, streams)
        self.peers = make_peers(plan, streams, self.ledger.create)
        self._set_up_schedule()
        self._num_blocked_sources = 0
        self._jitter = Block(streams.get("jitter").standard_normal).take if plan.scenario.peers.jitter else None
        self._jitter_sd = plan.scenario.peers.jitter
        self._boundary_bytes = float(plan.boundary_bytes)
        self._last_stage = plan.num_stages - 1
        synchronous = plan.scenario.network.transport.synchronous and not self.is_queue_driven
        self._outboxes = Outboxes(network, self._boundary_bytes, self._arrive) if synchronous else None
        sync = plan.scenario.sync
        self.syncing = None if isinstance(sync, str) else Syncing(self, sync)

    def _set_up_schedule(self) -> None:
        schedule = self.plan.scenario.pipeline.schedule
        self.is_queue_driven = schedule.kind == "queue"
        if schedule.kind == "queue":
            self._poll_loop_s, self._poll_empty_s = schedule.poll_loop, schedule.poll_empty
            self._poll_full_s, self._cache_ttl_s = schedule.poll_full, schedule.cache_ttl
            self._connect_timeout_s, self._attempts = schedule.connect_timeout, schedule.attempts
            self._status_every_s = schedule.status_every
        else:
            self._poll_loop_s = self._poll_empty_s = self._poll_full_s = 0.0
            self._cache_ttl_s = self._connect_timeout_s = self._status_every_s = 0.0
            self._attempts = 1

    # ---------------------------------------------------------------- training phase

    def start_training(self, peer: SimPeer) -> None:
        """Let `peer` join the training phase that is under way."""
        peer.charge(CAUSE_OF_STATUS[peer.status], self.clock.now)
        peer.status = "training"
        peer.waiting_for_first = True
        if self.is_queue_driven:
            self._look(peer, self.clock.now, 0.0)
            self.status.announce(peer)
        else:
            self._hold(peer)
            self._release_if_complete(peer.replica)

    def _hold(self, peer: SimPeer) -> None:
        """Let a peer of a static schedule wait until its replica is complete."""
        peer.idle = True
        peer.ready_s = -1.0
        peer.idle_by_window = peer.idle_by_sync = False
        peer.blocked_share = 0.0

    def _release_if_complete(self, replica: int) -> None:
        members = [p for p in self.peers if p.replica == replica]
        if all(p.status == "training" for p in members):
            if self.syncing is not None:
                self.syncing.joined(replica)
            for peer in members:
                self._charge_idle(peer, self.clock.now)
                self._look(peer, self.clock.now, 0.0)

    def start_broadcasts(self) -> None:
        """Start the peers' periodic status broadcasts."""
        if self.is_queue_driven:
            peers = self.plan.scenario.peers
            may_move = peers.rebalance_every is not None or peers.rejoin != "own"
            self.status.start(self.peers, self._status_every_s, may_move=may_move)

    def _look(self, peer: SimPeer, now: float, gap_s: float) -> None:
        """Start the peer's next operation `gap_s` from now, or let it idle."""
        engaged = self._outboxes is not None and self._outboxes.engages(peer)
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
            self._charge_idle(peer, start_s)
        kind = action.kind
        if peer.numbering is not None and kind == "F" and action.chunk == 0:
            peer.numbering[action.microbatch] = self.ledger.create()
        duration = peer.durations[action.chunk][kind]
        if self._jitter is not None:
            duration *= max(0.05, 1.0 + self._jitter_sd * self._jitter())
        peer.waiting_for_first = False
        peer.action = action
        peer.action_s = start_s
        peer.running = self.clock.call_at(start_s + duration, self._finish, peer)
        if self.syncing is not None:
            self.syncing.begun(peer, action, start_s, duration)

    def _charge_idle(self, peer: SimPeer, until_s: float) -> None:
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
        kind = action.kind
        duration = now - peer.action_s
        if peer.action_s > peer.accounted_s:
            peer.cause_s[tracing.CAUSE_POLLING] += peer.action_s - peer.accounted_s
        peer.accounted_s = now
        peer.work_s[kind] += duration
        peer.num_done[kind] += 1
        peer.running = None
        if self.recording.active:
            self.recording.operation(peer, kind, action.microbatch, now)
        peer.policy.on_finished(action)
        if kind != "STEP":
            number = action.microbatch
            record = self.ledger.open[number if peer.numbering is None else peer.numbering[number]]
            record.spent.append((peer.index, kind, duration))
            if peer.numbering is not None:
                self._finish_fixed(peer, action, record)
            elif kind == "F":
                if peer.stage < self._last_stage:
                    record.slots.append((peer.index, now))
                    self._send_forward(peer, number, record)
            else:
                self._send_backward(peer, action, record)
        self._look(peer, now, self._poll_loop_s)

    def _finish_fixed(self, peer: SimPeer, action: Action, record: MicrobatchRecord) -> None:
        """Hand on the result of an operation of a schedule with a fixed batch; that of a pair when both are through."""
        if peer.policy.opens_pair(action):
            peer.held_back = action
            return
        held, peer.held_back = peer.held_back, None
        if held is not None:
            self._hand_on(peer, held)
        self._hand_on(peer, action)
        if action.kind in {"B", "W"}:
            record.num_applied += 1
            if record.num_applied == self.plan.num_chunks:
                self._apply(peer, action.microbatch)
        if self.syncing is not None:
            self.syncing.finished(peer)

    def _hand_on(self, peer: SimPeer, action: Action) -> None:
        target = peer.policy.route(action, None)
        if target is not None:
            forward = action.kind == "F"
            chunk = action.chunk + 1 if forward else action.chunk - 1
            self._send("F" if forward else "B", action.microbatch, chunk, peer, self.peers[target])

    def _send_forward(self, peer: SimPeer, number: int, record: MicrobatchRecord) -> None:
        target = peer.policy.route(Action("F", peer.stage, number), self.status.views[peer.stage + 1])
        if target is None or self.peers[target].status != "training":
            # Nobody answers: the attempt costs a connection timeout.
            record.attempts += 1
            self.clock.call_in(self._connect_timeout_s, self._resend, (peer, number))
            return
        self._send("F", number, 0, peer, self.peers[target])

    def _resend(self, what: tuple[SimPeer, int]) -> None:
        peer, number = what
        record = self.ledger.open.get(self._ledger_number(peer, number))
        if record is None:
            return
        if peer.status != "training" or not peer.policy.holds(number):
            self.drop(peer, number, "sender lost")
        elif record.attempts >= self._attempts:
            self.drop(peer, number, "no peer to send to")
        else:
            self._send_forward(peer, number, record)

    def _send_backward(self, peer: SimPeer, action: Action, record: MicrobatchRecord) -> None:
        number = action.microbatch
        record.staleness += peer.policy.staleness(number)
        target = peer.policy.route(action, None)
        record.num_applied += 1
        if target is None:
            self._apply(peer, number)
        elif self.peers[target].status != "training" or not self.peers[target].policy.holds(number):
            self.drop(peer, number, "way back lost")
        else:
            self._send("B", number, 0, peer, self.peers[target])

    def _apply(self, peer: SimPeer, number: int) -> None:
        self.ledger.apply(self._ledger_number(peer, number))
        if peer.numbering is not None:
            del peer.numbering[number]
        self.applied_s.append(self.clock.now)
        if self.ledger.applied == self.target_applied:
            raise StopSimulation(None)

    def _ledger_number(self, peer: SimPeer, number: int) -> int:
        return number if peer.numbering is None else peer.numbering.get(number, -1)

    # ---------------------------------------------------------------- messages

    def _send(self, kind: str, number: int, chunk: int, peer: SimPeer, target: SimPeer) -> None:
        if peer is not target:
            self.bytes_boundary += self._boundary_bytes
        message = (kind, number, chunk, peer, target, self.clock.now)
        if self._outboxes is not None and peer is not target:
            self._outboxes.send(message)
            return
        self.network.send(peer.index, target.index, self._boundary_bytes, self._arrive, message)

    def _can_start(self, peer: SimPeer) -> bool:
        return peer.policy.ready() and not (self._outboxes is not None and self._outboxes.engages(peer))

    def _arrive(self, message: Message) -> None:
        kind, number, chunk, source, peer, sent_s = message
        now = self.clock.now
        if self.recording.active and peer is not source:
            self.recording.message(source, peer, number, self._boundary_bytes, (sent_s, now))
        if kind == "B" and not peer.policy.holds(number):
            self.drop(peer, number, "way back lost")
            return
        policy = peer.policy
        policy.on_message(kind, number, source.index, chunk)
        if peer.idle and peer.wake is None and self._can_start(peer):
            self._wake_soon(peer, now, sent_s)
        if self._outboxes is not None and source is not peer:
            self._outboxes.arrived(source)
            if source.idle and source.wake is None and self._can_start(source):
                self._wake_soon(source, now, source.accounted_s)

    def synced(self, peer: SimPeer, step: int, began_s: float) -> None:
        """The replicas of `peer`'s stage have agreed on the gradients of `step`; the exchange began at `began_s`."""
        peer.policy.on_message("SYNC", step, -1)
        if peer.idle and peer.wake is None and peer.policy.ready():
            self._wake_soon(peer, self.clock.now, began_s)

    def _wake_soon(self, peer: SimPeer, now: float, sent_s: float) -> None:
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
        record = self.ledger.drop(self._ledger_number(peer, number), reason)
        if record is None:
            return
        if peer.numbering is not None:
            peer.numbering.pop(number, None)
        self._throw_away(record)
        if not self.is_queue_driven:
            return
        now = self.clock.now
        for index, forwarded_s in record.slots:
            expires_s = forwarded_s + self._cache_ttl_s * (self.plan.num_stages - self.peers[index].stage)
            self.clock.call_at(max(now, expires_s), self._expire, (self.peers[index], number))

    def _throw_away(self, record: MicrobatchRecord) -> None:
        for index, kind, seconds in record.spent:
            self.peers[index].thrown_s[kind] += seconds

    def _expire(self, what: tuple[SimPeer, int]) -> None:
        peer, number = what
        peer.policy.on_lost(number)
        if peer.status == "training" and peer.idle and peer.wake is None and peer.policy.ready():
            self._wake_soon(peer, self.clock.now, self.clock.now)

    def stop_peer(self, peer: SimPeer, reason: str) -> list[Transfer]:
        """End what `peer` does now: account for it, drop what only it holds; return the transfers cut off."""
        now = self.clock.now
        if peer.running is not None:
            peer.running.cancel()
            peer.running = None
            peer.charge(tracing.CAUSE_POLLING, min(now, peer.action_s))
            peer.charge(tracing.CAUSE_THROWN_AWAY, now)
            if peer.action is not None and peer.action.kind != "STEP":
                self.drop(peer, peer.action.microbatch, reason)
        elif peer.idle:
            if peer.wake is not None:
                peer.wake.cancel()
                peer.wake = None
            self._charge_idle(peer, now)
        return self.network.cancel_peer(peer.index)

    def crash(self, peer: SimPeer) -> None:
        """Take `peer` out of training at once: what it holds is lost, what was on its way to it is sent again."""
        cut_off = self.stop_peer(peer, "peer lost")
        peer.status = "down"
        if not self.is_queue_driven:
            self._halt_replica(peer)
            return
        for number in self._queued(peer):
            self.drop(peer, number, "peer lost")
        peer.policy.restart()
        for transfer in cut_off:
            kind, number, _, source, _, _ = transfer.arg
            if kind == "F" and source is not peer:
                self.ledger.open[number].attempts += 1
                self.clock.call_in(self._connect_timeout_s, self._resend, (source, number))
            else:
                self.drop(source, number, "peer lost")

    def _queued(self, peer: SimPeer) -> list[int]:
        """Micro-batches that are nowhere but in this peer's queues."""
        policy = peer.policy
        return policy.queued() if isinstance(policy, QueueDrivenPolicy) else []

    def _halt_replica(self, lost: SimPeer) -> None:
        """A static schedule loses the whole step of a replica with one of its peers; the others wait for it."""
        members = [p for p in self.peers if p.replica == lost.replica]
        for peer in members:
            if peer.status == "training":
                self.stop_peer(peer, "peer lost")
        numbering = lost.numbering
        assert numbering is not None
        for number in list(numbering):
            self.drop(lost, number, "peer lost")
        self._next_static_step(members)
        for peer in members:
            if peer.status == "training":
                self._hold(peer)
        if self.syncing is not None:
            self.syncing.lost(lost.replica)

    def _next_static_step(self, peers: list[SimPeer]) -> None:
        """Reset the peers of fixed schedules to the start of one and the same new step."""
        next_step = 1 + max(peer.policy.num_steps for peer in peers)
        for peer in peers:
            peer.held_back = None
            if self._outboxes is not None:
                self._outboxes.clear(peer)
            peer.policy.reset()
            peer.policy.num_steps = next_step

    def end_training(self) -> None:
        """End the training phase for everybody: queues, caches and messages in flight are flushed."""
        training = [peer for peer in self.peers if peer.status == "training"]
        for peer in training:
            self.stop_peer(peer, "flushed at merge")
        for number in list(self.ledger.open):
            record = self.ledger.drop(number, "flushed at merge")
            if record is not None:
                self._throw_away(record)
        for peer in training:
            peer.policy.reset()
            if peer.numbering is not None:
                peer.numbering.clear()
        if not self.is_queue_driven:
            self._next_static_step(self.peers)
        if self.syncing is not None:
            self.syncing.reset()

    def close(self) -> None:
        """Account for every peer's time up to now. What still runs is unfinished: the pipeline ends filled."""
        now = self.clock.now
        for peer in self.peers:
            if peer.status == "training" and peer.running is not None:
                peer.charge(tracing.CAUSE_POLLING, min(now, peer.action_s))
                peer.charge(tracing.CAUSE_FILL, now)
            elif peer.status == "training" and peer.idle:
                self._charge_idle(peer, now)
            else:
                peer.charge(CAUSE_OF_STATUS[peer.status], now)
