"""Zero-bubble schedules made for given times and memory: ZB-1p and ZB-2p (Qi et al., arXiv 2401.10241, section 3.1).

The schedule grows round by round: in each, every stage does one more forward, then, from the last stage to the first,
one more input gradient. Weight gradients go into the gaps that this leaves, or where memory has to be freed. Three
decisions are not clear-cut; all combinations are tried and the shortest schedule is taken.
"""

from dataclasses import dataclass
from itertools import product
from math import inf

from orionbed.schedule.actions import Action, Kind
from orionbed.schedule.order import Order, ScheduleError, make_order, one_each
from orionbed.schedule.timing import Hops, Times, time_order


@dataclass(frozen=True, slots=True)
class _Choices:
    """What the search varies.

    `full_warm_up`: a warm-up forward may delay the stage's first gradient. `gradients_first`: a forward is held back
    when the next stage is well supplied and a gradient is due. `pad`: a weight gradient is put into a gap shorter than
    itself even where the stage has time to spare.
    """

    full_warm_up: bool
    gradients_first: bool
    pad: bool


class _Stage:
    """One stage of a schedule that is being built: what it has done, and until when it is busy."""

    def __init__(self, index: int, times: Times) -> None:
        self.index = index
        self.seconds: dict[Kind, float] = {
            "F": times.forward_s[index], "I": times.input_gradient_s[index], "W": times.weight_gradient_s[index],
        }  # fmt: skip
        self.ends: dict[Kind, list[float]] = {"F": [], "I": [], "W": []}
        self.actions: list[Action] = []
        self.busy_until_s = 0.0
        self.held = 0.0
        self.idle_s = 0.0

    def done(self, kind: Kind) -> int:
        """How many of that kind it has done."""
        return len(self.ends[kind])

    @property
    def has_weights(self) -> bool:
        """Whether a weight gradient can be done."""
        return self.done("W") < self.done("I")


class _Builder:
    def __init__(
        self, choices: _Choices, num_microbatches: int, times: Times, *, delay_s: float, limit: float, kept: float
    ) -> None:
        self.num_microbatches = num_microbatches
        self.delay_s = delay_s
        self.limit = limit + 1e-9
        self.change: dict[Kind, float] = {"F": 1.0, "I": kept - 1.0, "W": -kept}
        self.choices = choices
        self.stages = [_Stage(index, times) for index in range(len(times.forward_s))]

    def build(self) -> list[list[Action]]:
        self._warm_up()
        for _ in range(1, self.num_microbatches):
            wanted = self._wanted_forwards()
            for stage in self.stages:
                if wanted[stage.index]:
                    self._make_room(stage, "F")
                    self._fill_gap(stage, "F")
                    self._do(stage, "F")
            for stage in reversed(self.stages):
                self._make_room(stage, "I")
                self._fill_gap(stage, "I")
                if stage.index == 0 and stage.done("F") == self.num_microbatches:
                    self._do_all_weights(stage)
                self._do(stage, "I")
        for stage in self.stages:
            self._do_all_weights(stage)
        return [stage.actions for stage in self.stages]

    def _arrival_s(self, stage: _Stage, kind: Kind) -> float:
        """When the input of the stage's next forward or input gradient is there; the sender has done its part."""
        source = stage.index - 1 if kind == "F" else stage.index + 1
        if not 0 <= source < len(self.stages):
            return -inf
        return self.stages[source].ends[kind][stage.done(kind)] + self.delay_s

    def _do(self, stage: _Stage, kind: Kind) -> None:
        start_s = stage.busy_until_s
        if kind != "W":
            start_s = max(start_s, self._arrival_s(stage, kind))
        if stage.actions:
            stage.idle_s += start_s - stage.busy_until_s
        stage.busy_until_s = start_s + stage.seconds[kind]
        stage.actions.append(Action(kind, stage.index, stage.done(kind)))
        stage.ends[kind].append(stage.busy_until_s)
        stage.held += self.change[kind]

    def _do_all_weights(self, stage: _Stage) -> None:
        while stage.has_weights:
            self._do(stage, "W")

    def _make_room(self, stage: _Stage, kind: Kind) -> None:
        while stage.held + self.change[kind] > self.limit:
            if not stage.has_weights:
                raise ScheduleError(f"stage {stage.index} cannot hold its activations; allow more memory")
            self._do(stage, "W")

    def _fill_gap(self, stage: _Stage, kind: Kind) -> None:
        """Use the time until the next input: whole weight gradients first, then perhaps one that is too long."""
        arrival_s, weight_s = self._arrival_s(stage, kind), stage.seconds["W"]
        while stage.has_weights and stage.busy_until_s + weight_s <= arrival_s:
            self._do(stage, "W")
        gap_s = arrival_s - stage.busy_until_s
        if stage.has_weights and gap_s > 0.0 and (self.choices.pad or gap_s > self._to_spare_s(stage)):
            self._do(stage, "W")

    def _to_spare_s(self, stage: _Stage) -> float:
        """How much longer the stage may idle without idling more than the one that idles most."""
        return max(s.idle_s for s in self.stages) - stage.idle_s

    def _warm_up(self) -> None:
        for stage in self.stages:
            self._do(stage, "F")
        extra = self._extra_forwards()
        for stage in self.stages:
            for _ in range(extra[stage.index]):
                self._do(stage, "F")
        for stage in reversed(self.stages):
            self._do(stage, "I")

    def _extra_forwards(self) -> list[int]:
        """How many forwards beyond the first each stage does before its first gradient arrives, by the last stage's."""
        extra = [0] * len(self.stages)
        last = self.stages[-1]
        gradient_s = last.busy_until_s + last.seconds["I"]
        for stage in reversed(self.stages[:-1]):
            due_s = gradient_s + self.delay_s
            ready_s, held = stage.busy_until_s, stage.held
            forward_s = stage.seconds["F"]
            while stage.done("F") + extra[stage.index] < self.num_microbatches and held + 1.0 <= self.limit:
                if ready_s >= due_s if self.choices.full_warm_up else ready_s + forward_s > due_s:
                    break
                ready_s += forward_s
                held += 1.0
                extra[stage.index] += 1
            gradient_s = max(ready_s, due_s) + stage.seconds["I"]
        # A stage cannot be further ahead than the one that feeds it, and keeps one behind while there is more to come.
        for index in range(1, len(self.stages)):
            fed = extra[index - 1]
            extra[index] = min(extra[index], fed if fed + 1 == self.num_microbatches else max(0, fed - 1))
        return extra

    def _wanted_forwards(self) -> list[bool]:
        """Which stages do a forward in this round; none runs away from the next one."""
        wanted = [self._wants_forward(stage) for stage in self.stages]
        for index in reversed(range(len(wanted) - 1)):
            wanted[index] = wanted[index] and wanted[index + 1]
        return wanted

    def _wants_forward(self, stage: _Stage) -> bool:
        if stage.done("F") >= self.num_microbatches:
            return False
        following = self.stages[stage.index + 1] if stage.index + 1 < len(self.stages) else None
        if not self.choices.gradients_first or following is None or stage.done("F") < following.done("F") + 2:
            return True
        due_s = following.busy_until_s + following.seconds["F"] + following.seconds["I"] + self.delay_s
        if stage.busy_until_s >= due_s:
            return False
        held, to_free, free_s = stage.held + 1.0, stage.done("I") - stage.done("W"), 0.0
        while held > self.limit and to_free:
            held += self.change["W"]
            free_s += stage.seconds["W"]
            to_free -= 1
        if stage.busy_until_s + stage.seconds["F"] + free_s <= due_s:
            return True
        return due_s - stage.busy_until_s > self._to_spare_s(stage)


def zero_bubble(
    num_microbatches: int, times: Times, *, delay_s: float = 0.0, limit: float, kept_for_weights: float = 0.5
) -> Order:
    """Return the shortest schedule found for stages that hold at most `limit` micro-batches' activations.

    `times` has one chunk per stage, `delay_s` is what a message takes. `limit` equal to the number of stages is ZB-1p,
    twice as many ZB-2p. `kept_for_weights` is the share of activations that a weight gradient needs.

    Raises:
        ScheduleError: the limit is below one micro-batch per stage.

    """
    num_stages = len(times.forward_s)
    best: tuple[float, Order] | None = None
    for choices in (_Choices(*flags) for flags in product((False, True), repeat=3)):
        lists = _Builder(choices, num_microbatches, times, delay_s=delay_s, limit=limit, kept=kept_for_weights).build()
        order = make_order(lists, one_each(num_stages))
        span_s = _span_s(order, times, delay_s)
        if best is None or span_s < best[0]:
            best = span_s, order
    assert best is not None
    return best[1]


def _span_s(order: Order, times: Times, delay_s: float) -> float:
    return time_order(order, times, Hops(delay_s)).span_s
