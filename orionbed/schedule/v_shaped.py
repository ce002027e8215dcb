"""Schedules that fold the model: each stage holds an early and a late piece, the first stage the first and the last.

ZB-V (Qi et al., arXiv 2401.10241, section 6, and arXiv 2405.15362) and DualPipeV (DeepSeek's DualPipe README), which
has the memory of DualPipe and half its devices. Messages between the two pieces of the last stage cost nothing.
"""

from orionbed.schedule.actions import Action, Kind
from orionbed.schedule.order import Order, folded, make_order


class _List:
    """The list of one stage while it is written. `early` and `late` count what the two pieces have done of each kind.

    What is written about micro-batches that do not exist is left out: a short step is the beginning of a long one.
    """

    def __init__(self, stage: int, num_stages: int, num_microbatches: int) -> None:
        self.chunks = {"early": stage, "late": 2 * num_stages - 1 - stage}
        self.num_microbatches = num_microbatches
        self.actions: list[Action] = []
        self.pairs: list[Action] = []
        self._next: dict[tuple[Kind, str], int] = {}
        self._owed: list[Action] = []

    def add(self, kind: Kind, piece: str) -> None:
        """Do the next micro-batch's `kind` of a piece."""
        microbatch = self._next.get((kind, piece), 0)
        self._next[kind, piece] = microbatch + 1
        if microbatch < self.num_microbatches:
            self.actions.append(Action(kind, self.chunks[piece], microbatch))

    def done(self, kind: Kind, piece: str) -> int:
        """How many of that kind have been written."""
        return self._next.get((kind, piece), 0)

    def pair(self, forward: str, backward: str) -> None:
        """Do the next forward of one piece and the next whole backward of the other as one operation."""
        first = len(self.actions)
        self.add("F", forward)
        self.backward(backward, split=False)
        if len(self.actions) == first + 2:
            self.pairs.append(self.actions[first])

    def backward(self, piece: str, *, split: bool) -> None:
        """Do the next backward of a piece, whole, or its input gradient with the weight gradient owed."""
        microbatch = self._next.get(("B", piece), 0)
        self._next["B", piece] = microbatch + 1
        if microbatch < self.num_microbatches:
            chunk = self.chunks[piece]
            self.actions.append(Action("I" if split else "B", chunk, microbatch))
            if split:
                self._owed.append(Action("W", chunk, microbatch))

    def pay(self) -> None:
        """Do the weight gradient that has been owed longest."""
        if self._owed:
            self.actions.append(self._owed.pop(0))

    def pay_all(self) -> None:
        """Do all weight gradients that are owed."""
        while self._owed:
            self.pay()


def zb_v(num_stages: int, num_microbatches: int) -> Order:
    """ZB-V: no bubble when all three operations take as long, with 1F1B's peak memory on every stage."""
    lists = []
    # Shorter steps than this have no steady state; theirs is the beginning and the end of the same pattern.
    rounds = max(num_microbatches, 2 * num_stages - 1)
    for stage in range(num_stages):
        mine = _List(stage, num_stages, num_microbatches)
        for _ in range(2 * (num_stages - stage) - 1):
            mine.add("F", "early")
        for _ in range(stage):
            mine.add("F", "late")
            mine.add("F", "early")
        for _ in range(num_stages - stage):
            mine.add("F", "late")
            _halves(mine, "late")
        while mine.done("F", "late") < mine.done("F", "early") or mine.done("F", "early") < rounds:
            if mine.done("F", "early") < rounds:
                mine.add("F", "early")
            _halves(mine, "early")
            mine.add("F", "late")
            _halves(mine, "late")
        for _ in range(stage):
            mine.add("I", "early")
            mine.add("I", "late")
        for _ in range(num_stages - stage):
            mine.add("I", "early")
            mine.add("W", "early")
        while mine.done("W", "late") < rounds:
            mine.add("W", "late")
        while mine.done("W", "early") < rounds:
            mine.add("W", "early")
        lists.append(mine.actions)
    return make_order(lists, folded(num_stages))


def _halves(mine: _List, piece: str) -> None:
    mine.add("I", piece)
    mine.add("W", piece)


def dualpipe_v(num_stages: int, num_microbatches: int) -> Order:
    """DualPipeV: forwards and backwards of the two pieces in pairs, so that a pair's messages hide behind its work.

    Backwards are split only at the ends, where the weight gradients fill the drain. The pattern needs two micro-batches
    per stage; with fewer, what concerns missing ones is left out.
    """
    lists = []
    pairs: list[Action] = []
    rounds = max(num_microbatches, 2 * num_stages)
    for stage in range(num_stages):
        mine = _List(stage, num_stages, num_microbatches)
        below = num_stages - stage - 1
        for _ in range(2 * below):
            mine.add("F", "early")
        for _ in range(stage + 1):
            mine.add("F", "early")
            mine.add("F", "late")
        for _ in range(below):
            mine.backward("late", split=True)
            mine.pay()
            mine.add("F", "late")
        for number in range(rounds - 2 * num_stages + stage + 1):
            if number == 0 and below == 0:  # the last stage has its first gradient from itself, at once
                mine.add("F", "early")
                mine.backward("late", split=False)
            else:
                mine.pair("early", "late")
            mine.pair("late", "early")
        for _ in range(below):
            mine.backward("late", split=False)
            mine.pair("late", "early")
        # The first half of the drain is whole, the second split: its weight gradients fill the end.
        for number in range(stage + 1):
            mine.backward("late", split=2 * number >= stage + 1)
            mine.backward("early", split=2 * number + 1 >= stage + 1)
        for _ in range(below):
            mine.pay()
            mine.backward("early", split=True)
        mine.pay_all()
        lists.append(mine.actions)
        pairs += mine.pairs
    return make_order(lists, folded(num_stages), pairs)
