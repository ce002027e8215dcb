"""How long an order takes: exact evaluation of its dependencies, without a simulator.

An action starts when the one before it on its stage has ended and its input is there. A result that another stage needs
is sent at once, asynchronously: messages from one stage to another queue for the link (`transfer_s` each), then travel
for `delay_s`. This is what the simulator does with ample uplinks, to the last digit; it is here because planning, the
command line and the report must time many orders quickly.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from orionbed.schedule.actions import Action
from orionbed.schedule.order import Order, ScheduleError

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds of the operations of one micro-batch, one number per chunk.

    A whole backward takes `backward_s`, by default the sum of its halves.
    """

    forward_s: tuple[float, ...]
    input_gradient_s: tuple[float, ...]
    weight_gradient_s: tuple[float, ...]
    backward_s: tuple[float, ...] | None = None

    def of(self, action: Action) -> float:
        """Seconds that `action` takes."""
        chunk = action.chunk
        if action.kind == "F":
            return self.forward_s[chunk]
        if action.kind == "I":
            return self.input_gradient_s[chunk]
        if action.kind == "W":
            return self.weight_gradient_s[chunk]
        if self.backward_s is not None:
            return self.backward_s[chunk]
        return self.input_gradient_s[chunk] + self.weight_gradient_s[chunk]

    def per_stage(self, order: Order) -> list[float]:
        """Seconds that one micro-batch keeps each stage busy."""
        total = [0.0] * order.num_stages
        for chunk, stage in enumerate(order.stage_of):
            total[stage] += self.forward_s[chunk] + self.input_gradient_s[chunk] + self.weight_gradient_s[chunk]
        return total


def equal_times(num_chunks: int, forward_s: float, input_gradient_s: float, weight_gradient_s: float) -> Times:
    """Return the times of chunks that all take as long."""
    return Times((forward_s,) * num_chunks, (input_gradient_s,) * num_chunks, (weight_gradient_s,) * num_chunks)


@dataclass(frozen=True, slots=True)
class Hops:
    """What it takes to get a message from one stage to another; nothing between chunks of one stage.

    `between` overrides the common values for single pairs (sender, receiver) -> (transfer_s, delay_s). `synchronous`
    stages send one message at a time, each until it has arrived, and take nothing from a stage they are sending to.
    """

    delay_s: float = 0.0
    transfer_s: float = 0.0
    between: Mapping[tuple[int, int], tuple[float, float]] | None = None
    synchronous: bool = False

    def of(self, sender: int, receiver: int) -> tuple[float, float]:
        """Seconds on the link, and seconds of delay after it."""
        if sender == receiver:
            return 0.0, 0.0
        if self.between is not None and (sender, receiver) in self.between:
            return self.between[sender, receiver]
        return self.transfer_s, self.delay_s


@dataclass(frozen=True, slots=True)
class Timed:
    """An order with the start of each action in seconds, list by list, and what follows from it."""

    order: Order
    times: Times
    starts_s: tuple[tuple[float, ...], ...]

    @property
    def makespan_s(self) -> float:
        """Seconds from the start of the first action to the end of the last one."""
        return max(self._end_s(stage) for stage in range(self.order.num_stages))

    @property
    def span_s(self) -> float:
        """Seconds from the first to the last action of the stage for which that is longest.

        Zero Bubble's measure of a step (arXiv 2401.10241): steps that follow one another overlap at the ends.
        """
        return max(self._end_s(stage) - starts[0] for stage, starts in enumerate(self.starts_s) if starts)

    def _end_s(self, stage: int) -> float:
        return self.starts_s[stage][-1] + self.times.of(self.order.lists[stage][-1])

    def bubble(self, over_s: float | None = None) -> float:
        """Share of `over_s` (default: the makespan) in which the busiest stage idles."""
        over_s = self.makespan_s if over_s is None else over_s
        busiest = max(self.times.per_stage(self.order)) * self.order.num_microbatches
        return 1.0 - busiest / over_s


def time_order(
    order: Order, times: Times, hops: Hops | None = None, *, begin_s: Sequence[float] | None = None
) -> Timed:
    """Time an order; `begin_s` (default: 0) is when each stage is free to begin.

    Raises:
        ScheduleError: the lists wait for one another; the message says which actions.

    """
    return _Timing(order, times, hops or Hops(), begin_s or [0.0] * order.num_stages).run()


class _Timing:
    """Plays the lists of all stages against one another, each as far as its inputs reach."""

    def __init__(self, order: Order, times: Times, hops: Hops, begin_s: Sequence[float]) -> None:
        self.order = order
        self.times = times
        self.hops = hops
        self.ready_s: dict[tuple[str, int, int], float] = {}
        self.link_free_s: dict[tuple[int, int], float] = {}
        self.channel_free_s = [0.0] * order.num_stages
        self.busy_until_s = list(begin_s)
        self.starts_s: list[list[float]] = [[] for _ in order.lists]
        self.waiting: dict[tuple[str, int, int], int] = {}
        self.todo = list(range(order.num_stages))

    def run(self) -> Timed:
        while self.todo:
            self._advance(self.todo.pop())
        if self.waiting:
            stuck = ", ".join(
                f"stage {stage} at {self.order.lists[stage][len(self.starts_s[stage])]}"
                for stage in sorted(self.waiting.values())[:4]
            )
            raise ScheduleError(f"deadlock: {stuck} wait for one another")
        return Timed(self.order, self.times, tuple(tuple(starts) for starts in self.starts_s))

    def _advance(self, stage: int) -> None:
        actions, starts, pairs = self.order.lists[stage], self.starts_s[stage], self.order.pairs
        while len(starts) < len(actions):
            action = actions[len(starts)]
            both = actions[len(starts) : len(starts) + 2] if action in pairs else (action,)
            start_s = self.busy_until_s[stage]
            for one in both:
                needed = needed_input(one, self.order.num_chunks)
                if needed is not None:
                    if needed not in self.ready_s:
                        self.waiting[needed] = stage
                        return
                    start_s = max(start_s, self.ready_s[needed], self._engaged_s(stage, one))
            for one in both:
                starts.append(start_s)
                start_s += self.times.of(one)
            self.busy_until_s[stage] = start_s
            for one in both:
                self._send(stage, one, start_s)

    def _engaged_s(self, stage: int, action: Action) -> float:
        """Until when a synchronous stage is sending to the stage that `action` has its input from."""
        partner = self.order.stage_of[source_chunk(action)]
        if not self.hops.synchronous or partner == stage:
            return 0.0
        return self.link_free_s.get((stage, partner), 0.0)

    def _send(self, stage: int, action: Action, end_s: float) -> None:
        sent = provided_input(action, self.order.num_chunks)
        if sent is None:
            return
        receiver = self.order.stage_of[sent[1]]
        transfer_s, delay_s = self.hops.of(stage, receiver)
        if self.hops.synchronous and receiver != stage:
            self.channel_free_s[stage] = max(end_s, self.channel_free_s[stage]) + transfer_s + delay_s
            self.link_free_s[stage, receiver] = self.ready_s[sent] = self.channel_free_s[stage]
        else:
            leaves_s = max(end_s, self.link_free_s.get((stage, receiver), 0.0)) + transfer_s
            self.link_free_s[stage, receiver] = leaves_s
            self.ready_s[sent] = leaves_s + delay_s
        if sent in self.waiting:
            self.todo.append(self.waiting.pop(sent))


def needed_input(action: Action, num_chunks: int) -> tuple[str, int, int] | None:
    """Return the message an action needs, as (F or B, chunk, micro-batch): what that chunk is to work on."""
    kind, chunk, microbatch = action
    if kind == "F" and chunk > 0:
        return ("F", chunk, microbatch)
    if kind in {"B", "I"} and chunk < num_chunks - 1:
        return ("B", chunk, microbatch)
    return None


def source_chunk(action: Action) -> int:
    """Return the chunk that an action's input comes from, for an action that needs one."""
    return action.chunk - 1 if action.kind == "F" else action.chunk + 1


def provided_input(action: Action, num_chunks: int) -> tuple[str, int, int] | None:
    """Return the message that an action's result is."""
    kind, chunk, microbatch = action
    if kind == "F" and chunk < num_chunks - 1:
        return ("F", chunk + 1, microbatch)
    if kind in {"B", "I"} and chunk > 0:
        return ("B", chunk - 1, microbatch)
    return None


def peak_held(order: Order, after_forward: Sequence[float], after_input_gradient: Sequence[float]) -> list[float]:
    """Return the most each stage holds at any time, in the unit of what a chunk holds of one micro-batch.

    A chunk holds `after_forward[c]` from its forward to its backward, and `after_input_gradient[c]` between the two
    halves of a split one. No clock matters: within a stage the order alone decides.
    """
    peaks = []
    for actions in order.lists:
        held = peak = 0.0
        for kind, chunk, _ in actions:
            if kind == "F":
                held += after_forward[chunk]
            elif kind == "I":
                held += after_input_gradient[chunk] - after_forward[chunk]
            else:
                held -= after_input_gradient[chunk] if kind == "W" else after_forward[chunk]
            peak = max(peak, held)
        peaks.append(peak)
    return peaks


def peak_activations(order: Order, kept_for_weights: float = 0.5) -> list[float]:
    """Return the most activations each stage holds at any time, in those of one micro-batch on one stage.

    `kept_for_weights` is the share that a weight gradient needs.
    """
    share = 1.0 / order.chunks_per_stage
    return peak_held(order, [share] * order.num_chunks, [share * kept_for_weights] * order.num_chunks)
