"""Plays the script of a run on real tensors: all peers in this process, one line after the other."""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from orionbed.plan import Plan
from orionbed.scenario.training import InnerOptimizer
from orionbed.script import Line
from orionbed.training.data import Batches
from orionbed.training.linking import NOTHING, Links, ScriptError, link
from orionbed.training.shape import ModelShape
from orionbed.training.stage_merges import StageMerges
from orionbed.training.worker import StageWorker

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(slots=True)
class Seat:
    """A peer: its pieces of the model, and what is to be known of it between two lines.

    `accumulated` are the micro-batches in its gradients, `divisor` those of all whose gradients were summed, 0 if none
    were. `begun_at` has the number of its optimizer steps when a forward was done; `states` those after its last steps.
    """

    stage: int
    worker: StageWorker
    num_steps: int = 0
    work: int = 0
    away: bool = False
    divisor: int = 0
    accumulated: set[int] = field(default_factory=set)
    begun_at: dict[tuple[int, int], int] = field(default_factory=dict)
    states: deque[bytes] = field(default_factory=deque)


@dataclass(slots=True)
class Staleness:
    """Optimizer steps of a peer between its forward of a micro-batch and its backward, over all of a stage."""

    count: int = 0
    total: int = 0
    largest: int = 0

    def add(self, steps: int) -> None:
        """Count one micro-batch."""
        self.count += 1
        self.total += steps
        self.largest = max(self.largest, steps)


class Player:
    """Plays lines in their order. The same script gives the same bits.

    Tensors that travel are kept from the line that makes them to the last line that needs them. `used` gets every
    micro-batch whose gradient the first chunk has accumulated for the first time, with second and loss: what has been
    learned from.

    Raises:
        ScriptError: at once, for lines that need what no line before them makes; from `play`, for an UNDO that goes
            behind the peer's first state.

    """

    def __init__(
        self,
        plan: Plan,
        shape: ModelShape,
        lines: Sequence[Line],
        *,
        seed: int,
        optimizer: InnerOptimizer,
        batches: Batches,
    ) -> None:
        self.plan, self.shape, self.lines = plan, shape, lines
        self.links: Links = link(lines, shape.num_chunks)
        self._make: Callable[[int], StageWorker] = lambda stage: StageWorker(
            shape,
            plan.chunks_of(stage),
            seed=seed,
            optimizer=optimizer,
            batches=batches,
        )
        self.seats = [Seat(peer.stage, self._make(peer.stage)) for peer in plan.peers]
        self.merges = StageMerges(shape)
        self._fresh: dict[int, bytes] = {}
        self.staleness: list[Staleness] = [Staleness() for _ in plan.stages]
        self.num_steps = [0] * plan.num_stages
        self.used: list[tuple[int, float, float]] = []
        self.tensors: dict[int, Tensor] = {}
        self.users: dict[int, int] = {}
        self.losses: dict[int, float] = {}
        self.known: set[int] = set()
        for seat in self.seats:
            if seat.stage not in self._fresh:
                self._fresh[seat.stage] = seat.worker.state()
                self.merges.begin(seat.stage, seat.worker.weights())
        for peer in self.links.undone:
            self._keep_state(peer)

    def seat_at(self, seat: Seat, stage: int) -> None:
        """Give a peer the pieces of a stage, with their first weights, if it has those of another."""
        if stage != seat.stage:
            seat.stage, seat.worker = stage, self._make(stage)

    def play(self, number: int) -> None:
        """Do what a line says; lines are to be played from the first on."""
        line = self.lines[number]
        does = line.does
        if does == "MERGE":
            self._merge(line)
            return
        if does == "SUM":
            self._sum(line)
            return
        seat = self.seats[line.peer]
        seat.away = does == "RESET"
        if does == "F":
            self._forward(number, line, seat)
        elif does in {"B", "I", "W"}:
            self._backward(number, line, seat)
        elif does == "STEP":
            self._step(line.peer, seat)
        elif does == "FORGET":
            self._forget(line, seat)
        elif does == "RESET":
            self._reset(seat)
        elif does == "UNDO":
            self._undo(line, seat)
        elif does == "ADOPT":
            self._adopt(line, seat)
        else:
            assert does == "UNUSED", f"no line does {does}"

    # ---------------------------------------------------------------- passes

    def _forward(self, number: int, line: Line, seat: Seat) -> None:
        if (line.chunk, line.microbatch) in seat.begun_at:
            self._forget(line, seat)  # done again, it takes the place of the first
        output = seat.worker.forward(line.chunk, line.microbatch, self._taken(number))
        seat.begun_at[line.chunk, line.microbatch] = seat.num_steps
        self._put(number, output)
        self._note_loss(line, seat)

    def _backward(self, number: int, line: Line, seat: Seat) -> None:
        worker, key = seat.worker, (line.chunk, line.microbatch)
        unused = number in self.links.taken_out
        before = worker.gradients() if unused else None
        if line.does == "W":
            worker.backward_weight(*key)
        else:
            tensor = self._taken(number)
            if number in self.links.fused:
                result = worker.forward_backward(*key, tensor)
                self._note_loss(line, seat)
                self.staleness[seat.stage].add(0)
            else:
                run = worker.backward if line.does == "B" else worker.backward_input
                result = run(*key, tensor)
                self.staleness[seat.stage].add(seat.num_steps - seat.begun_at.pop(key))
            self._put(number, result)
        if line.does == "I":
            return
        if before is not None:
            worker.set_gradients(before)
            return
        seat.accumulated.add(line.microbatch)
        if line.chunk == 0:
            self._use(line)

    def _note_loss(self, line: Line, seat: Seat) -> None:
        if self.shape.is_last(line.chunk):
            self.losses[line.microbatch] = seat.worker.take_loss(line.microbatch)

    def _use(self, line: Line) -> None:
        number = line.microbatch
        loss = self.losses.pop(number, None)
        if loss is not None and number not in self.known:
            self.known.add(number)
            self.used.append((number, line.at_s, loss))

    def _taken(self, number: int) -> "Tensor | None":
        """Return what a line needs, and let go of it after its last user."""
        maker = self.links.needs[number]
        if maker == NOTHING:
            return None
        self.users[maker] -= 1
        if self.users[maker]:
            return self.tensors[maker]
        del self.users[maker]
        return self.tensors.pop(maker)

    def _put(self, number: int, tensor: "Tensor | None") -> None:
        num_users = self.links.num_users[number]
        if num_users:
            assert tensor is not None, "the last chunk hands nothing on, and the first nothing back"
            self.tensors[number], self.users[number] = tensor, num_users

    def _forget(self, line: Line, seat: Seat) -> None:
        seat.worker.forget(line.microbatch)
        for key in [key for key in seat.begun_at if key[1] == line.microbatch]:
            del seat.begun_at[key]

    # ---------------------------------------------------------------- steps

    def _step(self, peer: int, seat: Seat) -> None:
        divisor = seat.divisor or len(seat.accumulated)
        seat.worker.step(divisor)
        if divisor:
            seat.num_steps += 1
            self.num_steps[seat.stage] += 1
            seat.work += len(seat.accumulated)
        seat.divisor = 0
        seat.accumulated.clear()
        if peer in self.links.undone:
            self._keep_state(peer)

    def _sum(self, line: Line) -> None:
        import torch

        seats = [self.seats[peer] for peer in line.others]
        total = torch.stack([seat.worker.gradients() for seat in seats]).sum(dim=0)
        divisor = sum(len(seat.accumulated) for seat in seats)
        for seat in seats:
            seat.worker.set_gradients(total)
            seat.divisor = divisor

    def _reset(self, seat: Seat) -> None:
        seat.worker.reset()
        seat.divisor = 0
        seat.accumulated.clear()
        seat.begun_at.clear()

    def _undo(self, line: Line, seat: Seat) -> None:
        self._reset(seat)
        if line.number >= len(seat.states):
            raise ScriptError(f"peer {line.peer} has no state of {line.number} steps ago: {line}")
        for _ in range(line.number):
            seat.states.pop()
        seat.num_steps -= line.number
        if line.number:
            seat.worker.load_state(seat.states[-1])

    def _keep_state(self, peer: int) -> None:
        seat = self.seats[peer]
        seat.states.append(seat.worker.state())
        while len(seat.states) > self.links.undone[peer] + 1:
            seat.states.popleft()

    # ---------------------------------------------------------------- weights of others

    def _merge(self, line: Line) -> None:
        stage = self.plan.stage_of[line.chunk]
        members = [self.seats[peer].worker.weights() for peer in line.others]
        taken = self.merges.merge(line, stage, members)
        for peer in line.takers:
            seat = self.seats[peer]
            seat.worker.load_weights(taken(seat.worker.weights()))
            seat.work = 0
            seat.away = False
            if peer in self.links.undone:
                seat.states[-1] = seat.worker.state()

    def _adopt(self, line: Line, seat: Seat) -> None:
        """Let a peer begin anew with the weights of another, or those that it left with."""
        stage = self.plan.stage_of[line.chunk]
        source = None if line.source == NOTHING else self.seats[line.source]
        weights = self.merges.weights[stage] if source is None else source.worker.weights()
        state = source.worker.state() if source is not None and line.with_state else self._fresh[stage]
        self._reset(seat)
        self.seat_at(seat, stage)
        seat.worker.load_state(state)
        if line.others:
            weights = rebuilt(seat.worker, weights, [self.seats[peer].worker for peer in line.others])
        seat.worker.load_weights(weights)
        seat.work = 0
        if line.peer in self.links.undone:
            seat.states.clear()
            self._keep_state(line.peer)


def rebuilt(worker: StageWorker, weights: "Tensor", others: Sequence[StageWorker]) -> "Tensor":
    """Return weights in which each parameter is the mean of what others have of its name and size, if all have it."""
    import torch

    theirs = [dict(zip(other.names, other.weights().split_with_sizes(other.sizes), strict=True)) for other in others]
    found = []
    for name, mine in zip(worker.names, weights.split_with_sizes(worker.sizes), strict=True):
        alike = [each[name] for each in theirs if name in each and each[name].shape == mine.shape]
        found.append(torch.stack(alike).mean(dim=0) if len(alike) == len(theirs) else mine)
    return torch.cat(found)
