"""The loop of a peer whose schedule has a fixed batch per step: replicas that agree, steps that are given up whole."""

from collections.abc import Callable

from orionbed.policies import fixed_policy
from orionbed.schedule.actions import Action
from orionbed.schedule.policy import Waiting
from orionbed.training.compute import Compute
from orionbed.training.loop import PeerLoop
from orionbed.training.parameters import hash_of
from orionbed.training.reporting import Reporter
from orionbed.training.ring import Ring
from orionbed.training.surroundings import Header, Setup, Transport

KEPT_VERSIONS = 2
"""States of committed steps that a peer keeps: neighbours are never more than one step apart."""


class FixedLoop(PeerLoop):
    """Runs one stage's list, step after step. See `orionbed.schedule.static`.

    A pipeline that loses a peer gives up its step: all its peers go back to the last state that all of them committed.
    """

    def __init__(self, setup: Setup, transport: Transport, reporter: Reporter, compute: Compute) -> None:
        super().__init__(setup, transport, reporter, compute)
        self.policy = fixed_policy(self.plan, self.stage, self.replica)
        self._generation = 0
        self._held_back: tuple[Action, bytes | None] | None = None
        self.ring = None if isinstance(self.plan.scenario.sync, str) else Ring(self)
        self._summed = 0
        self.version = 0
        self.on_state: Callable[[int, bytes], None] = lambda _version, _state: None
        # version of the weights -> micro-batches made with it; those of the latest are under way
        self._made: dict[int, list[int]] = {}
        self._states: dict[int, bytes] = {0: compute.worker.state()}

    @property
    def generation(self) -> int:
        """The step that the pipeline began with, at first or after it gave one up."""
        return self._generation

    def number_of(self, microbatch: int) -> int:
        """Return a number that is unique among the replicas."""
        return microbatch * self.plan.num_replicas + self.replica

    def forget_all(self) -> None:
        self._held_back = None
        super().forget_all()
        self.policy.num_steps += 1

    def hand_on(self, action: Action, result: bytes | None) -> None:
        if self.policy.opens_pair(action):
            self._held_back = (action, result)
            return
        held, self._held_back = self._held_back, None
        for each, tensor in ([held] if held else []) + [(action, result)]:
            target = self.policy.route(each, None)
            if target is not None:
                assert tensor is not None
                forward = each.kind == "F"
                chunk = each.chunk + 1 if forward else each.chunk - 1
                self.send_boundary("F" if forward else "B", each.microbatch, chunk, target, tensor)

    def look(self, now_s: float, gap_s: float) -> None:
        super().look(now_s, gap_s)
        if self.ring is not None and self.account.idle and self.policy.waiting is Waiting.SYNC:
            self.ring.begin(self.policy.num_steps)

    # ---------------------------------------------------------------- steps

    def agreed(self, step: int, num_microbatches: int, began_s: float) -> None:
        """The replicas have one gradient, the sum over so many micro-batches of all of them."""
        self._summed = num_microbatches
        self.policy.on_message("SYNC", step, -1)
        self.wake_if_ready(began_s)

    def divisor(self) -> int:
        return self._summed or super().divisor()

    def step_number(self) -> int:
        return self.version + 1

    def stepped(self) -> None:
        self._summed = 0
        self.commit(self.version + 1)

    def begin_at(self, steps: int) -> None:
        """Take the number of steps that the whole pipeline is at."""
        self.policy.num_steps = self._generation = steps

    def arrive(self, what: tuple[Header, bytes]) -> None:
        # What comes before this peer has begun is for the step that it will begin with.
        header, body = what
        if header["k"] in {"F", "B"} and header["e"] != self._generation:
            return
        super().arrive((header, body))

    def end_training(self) -> None:
        # Stages may be a step apart: what of it counts is said when all of the pipeline have stopped.
        self.halt()
        self.status = "merging"
        self.tell({"t": "ended", "epoch": self.epoch, "steps": self.policy.num_steps})

    def take_merged(self, version: int, weights: bytes) -> None:
        super().take_merged(version, weights)
        self.version = version
        self._made.clear()
        self._states = {version: self.compute.worker.state()}
        self.on_state(version, self._states[version])

    def work_since(self, version: int) -> int:
        # By versions, because steps may have been given up, and a process may have begun at any of them.
        order = self.plan.order
        assert order is not None
        return (self.version - version) * order.num_microbatches

    def created(self, microbatch: int) -> None:
        super().created(microbatch)
        self._made.setdefault(self.version, []).append(self.number_of(microbatch))

    def commit(self, version: int) -> None:
        """Write down the state after a step, and keep it for the case that the others do not get as far."""
        self.version = version
        self._states[version] = self.compute.worker.state()
        for kept in (self._states, self._made):
            for old in [known for known in kept if known <= version - KEPT_VERSIONS]:
                del kept[old]
        self.journal_version("committed", version, hash_of(self._states[version]))
        self.on_state(version, self._states[version])
        self.tell({"t": "committed", "version": version, "steps": self.policy.num_steps})

    def give_up_step(self, version: int, next_step: int) -> None:
        """Go back to a committed state; the micro-batches of what is given up are dropped."""
        self.halt()
        for undone in [known for known in self._made if known >= version]:
            for number in self._made.pop(undone):
                self.reporter.journal(
                    self.now_s, "dropped", chunk=0, microbatch=number, step=undone + 1, detail="step given up"
                )
        self.reporter.journal(self.now_s, "aborted", step=version + 1, detail=f"back to version {version}")
        self.forget_all()
        if version != self.version:
            self.compute.worker.load_state(self._states[version])
            self.version = version
        self.policy.num_steps = self._generation = next_step
        if self.ring is not None:
            self.ring.clear()
        if self.status == "training":
            self.status = "benched"
        self.reporter.flush(self.account, self.status)

    def state_of(self, version: int) -> bytes:
        """Return a committed state; KeyError when it is no longer kept."""
        return self._states[version]

    def adopt(self, version: int, state: bytes, source: int = -1) -> None:
        """Take over a committed state of a peer of the stage."""
        self.compute.worker.load_state(state)
        self.version = version
        self._states = {version: state}
        self.journal_version("adopted", version, hash_of(state), source)

    def failed(self, what: tuple[int, Header, str]) -> None:
        target, header, _ = what
        self.reporter.failure(target, self.now_s, header["plan_bytes"])

    def on_other(self, header: Header, body: bytes) -> None:
        if header["k"] == "R" and self.ring is not None:
            self.ring.arrived(header, body)
