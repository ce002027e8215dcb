"""What holds for every script, checked by replaying it without tensors."""

from collections import Counter
from collections.abc import Iterable

from orionbed.plan import Plan
from orionbed.results import RunResult
from orionbed.script import DOES, Line


class Replay:
    """Replays lines one after the other; an AssertionError names the first that breaks a rule.

    `used` has, by micro-batch, the chunks whose accumulated gradients it is in, counted as often as it is; what was
    accumulated stays counted when it is dropped. `num_steps` counts the STEPs of each peer.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.last = plan.num_chunks - 1
        self.is_queue_driven = plan.order is None
        self.stages = [peer.stage for peer in plan.peers]
        self.used: dict[int, Counter[int]] = {}
        self.num_steps: Counter[int] = Counter()
        self.accumulated: list[list[int]] = [[] for _ in plan.peers]
        self._outputs: dict[tuple[int, int], set[int]] = {}
        self._gradients: dict[tuple[int, int], set[int]] = {}
        self._kept: list[set[tuple[int, int]]] = [set() for _ in plan.peers]
        self._halves: list[set[tuple[int, int]]] = [set() for _ in plan.peers]
        self._line_before: dict[int, Line] = {}
        self._now_s = 0.0
        self._steps_at_hand: Counter[int] = Counter()

    def play(self, lines: Iterable[Line]) -> "Replay":
        """Replay lines; return this."""
        for line in lines:
            self.take(line)
        return self

    def take(self, line: Line) -> None:
        """Replay one line."""
        assert line.does in DOES, line
        assert line.at_s >= self._now_s, line
        self._now_s = line.at_s
        getattr(self, f"_{line.does.lower()}")(line)
        self._line_before[line.peer] = line

    def _holds(self, line: Line) -> None:
        assert self.plan.stage_of[line.chunk] == self.stages[line.peer], line

    def _f(self, line: Line) -> None:
        self._holds(line)
        self._takes_activation(line)
        self._kept[line.peer].add((line.chunk, line.microbatch))
        self._outputs.setdefault((line.peer, line.microbatch), set()).add(line.chunk)

    def _takes_activation(self, line: Line) -> None:
        if line.chunk == 0:
            assert line.source == -1, line
        else:
            made = self._outputs.get((line.source, line.microbatch), set())
            assert any(chunk < line.chunk for chunk in made), line

    def _b(self, line: Line) -> None:
        key = (line.chunk, line.microbatch)
        if line.chunk == self.last and key not in self._kept[line.peer]:
            assert self.is_queue_driven, line
            self._holds(line)
            self._takes_activation(line)
        else:
            self._takes_gradient(line)
        self._gradients.setdefault((line.peer, line.microbatch), set()).add(line.chunk)
        self._accumulate(line)

    def _takes_gradient(self, line: Line) -> None:
        key = (line.chunk, line.microbatch)
        assert key in self._kept[line.peer], line
        self._kept[line.peer].discard(key)
        if line.chunk == self.last:
            assert line.source == -1, line
        else:
            made = self._gradients.get((line.source, line.microbatch), set())
            assert any(chunk > line.chunk for chunk in made), line

    def _i(self, line: Line) -> None:
        self._takes_gradient(line)
        self._gradients.setdefault((line.peer, line.microbatch), set()).add(line.chunk)
        self._halves[line.peer].add((line.chunk, line.microbatch))

    def _w(self, line: Line) -> None:
        self._halves[line.peer].remove((line.chunk, line.microbatch))
        self._accumulate(line)

    def _accumulate(self, line: Line) -> None:
        self.used.setdefault(line.microbatch, Counter())[line.chunk] += 1
        self.accumulated[line.peer].append(line.microbatch)

    def _unused(self, line: Line) -> None:
        before = self._line_before[line.peer]
        assert before.does in {"B", "W"}, line
        assert (before.chunk, before.microbatch) == (line.chunk, line.microbatch), line
        self.used[line.microbatch][line.chunk] -= 1
        assert self.accumulated[line.peer].pop() == line.microbatch, line

    def _step(self, line: Line) -> None:
        assert line.number == len(set(self.accumulated[line.peer])), line
        self.accumulated[line.peer].clear()
        self.num_steps[line.peer] += 1
        self._steps_at_hand[line.peer] += 1

    def _sum(self, line: Line) -> None:
        assert len({self.stages[peer] for peer in line.others}) == 1, line
        assert len(line.others) == len(set(line.others)) > 1, line
        assert all(self.accumulated[peer] for peer in line.others), line

    def _forget(self, line: Line) -> None:
        for kept in (self._kept, self._halves):
            kept[line.peer] = {key for key in kept[line.peer] if key[1] != line.microbatch}

    def _reset(self, line: Line) -> None:
        self._kept[line.peer].clear()
        self._halves[line.peer].clear()
        self.accumulated[line.peer].clear()

    def _undo(self, line: Line) -> None:
        self._reset(line)
        assert 0 <= line.number <= min(1, self._steps_at_hand[line.peer]), line
        self._steps_at_hand[line.peer] = 0

    def _merge(self, line: Line) -> None:
        stage = self.plan.stage_of[line.chunk]
        assert line.chunk == self.plan.chunks_of(stage)[0], line
        assert line.takers or line.others, line
        assert len(line.works) == len(line.others), line
        assert 0 <= line.part < line.parts, line
        assert {self.stages[peer] for peer in line.others + line.takers} == {stage}, line

    def _adopt(self, line: Line) -> None:
        self._reset(line)
        stage = self.plan.stage_of[line.chunk]
        assert line.source < 0 or self.stages[line.source] == stage, line
        assert all(abs(self.stages[peer] - stage) == 1 for peer in line.others), line
        self.stages[line.peer] = stage

    # ---------------------------------------------------------------- what it came to

    def num_used_by(self, num_chunks: int) -> int:
        """Return how many micro-batches so many chunks have used."""
        return sum(sum(count > 0 for count in used.values()) == num_chunks for used in self.used.values())

    def used_twice(self) -> list[int]:
        """Return micro-batches that a chunk has used more than once."""
        return [number for number, used in self.used.items() if max(used.values()) > 1]


def agrees(replay: Replay, result: RunResult, num_flush_steps: int, in_flight: str = "drop") -> None:
    """Check a replayed script against what the run counted: steps, and who used which micro-batches."""
    assert sum(replay.num_steps.values()) == result.num_done["STEP"].sum() + num_flush_steps
    if in_flight == "neighbour":  # what copies have done may count without being in anybody's weights
        return
    assert replay.used_twice() == []
    ledger, num_chunks = result.ledger, replay.plan.num_chunks
    assert replay.num_used_by(num_chunks) == ledger.applied + ledger.taken_back - ledger.with_skipped
    in_part = sum(replay.num_used_by(number) for number in range(1, num_chunks))
    open_in_part = sum(record.used > 0 for record in ledger.open.values())
    assert in_part == ledger.partially_applied - ledger.taken_back + ledger.with_skipped + open_in_part
