"""Which line of a script needs what which line made: a tensor is kept from its maker to its last user."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from orionbed.script import Line

NOTHING = -1


class ScriptError(ValueError):
    """A script that cannot be played: a line needs what no line before it has made."""


@dataclass(slots=True)
class Links:
    """By the number of a line: the line that makes what it needs, and how many lines need what it makes.

    `taken_out` are lines whose gradient the peer's next line takes out again, `fused` those that do forward, loss and
    backward in one go. `undone` says by peer how many of its last steps it may have to go back. `num_begun` is, after
    each line, how many forwards are kept for their backward, `num_halves` how many halves of backwards for the other.
    """

    needs: list[int]
    num_users: list[int]
    taken_out: set[int] = field(default_factory=set)
    fused: set[int] = field(default_factory=set)
    undone: dict[int, int] = field(default_factory=dict)
    num_begun: list[int] = field(default_factory=list)
    num_halves: list[int] = field(default_factory=list)


def link(lines: Sequence[Line], num_chunks: int) -> Links:
    """Return the links of a script for a model in so many chunks.

    Raises:
        ScriptError: a line needs what nobody has made before.

    """
    return _Linking(lines, num_chunks).links


class _Linking:
    def __init__(self, lines: Sequence[Line], num_chunks: int) -> None:
        self.links = Links([NOTHING] * len(lines), [0] * len(lines))
        self._last = num_chunks - 1
        # What goes forward or back: by peer and micro-batch, the latest line for each chunk.
        self._outputs: dict[tuple[int, int], dict[int, int]] = {}
        self._gradients: dict[tuple[int, int], dict[int, int]] = {}
        # peer -> chunks and micro-batches whose forward, or first half, waits for what follows
        self._begun, self._halves = _Kept(), _Kept()
        self._line_before: dict[int, tuple[int, Line]] = {}
        for number, line in enumerate(lines):
            self._take(number, line)
            self._line_before[line.peer] = number, line
            self.links.num_begun.append(self._begun.count)
            self.links.num_halves.append(self._halves.count)

    def _take(self, number: int, line: Line) -> None:
        does = line.does
        if does == "F":
            self._forward(number, line)
        elif does in {"B", "I"}:
            self._backward(number, line)
        elif does == "W":
            self._end(self._halves, number, line)
        elif does == "UNUSED":
            self._take_out(number, line)
        elif does == "FORGET":
            for kept in (self._begun, self._halves):
                kept.forget(line.peer, line.microbatch)
        elif does in {"RESET", "UNDO", "ADOPT"}:
            for kept in (self._begun, self._halves):
                kept.reset(line.peer)
            if does == "UNDO":
                self.links.undone[line.peer] = max(self.links.undone.get(line.peer, 0), line.number)

    def _forward(self, number: int, line: Line) -> None:
        if line.chunk:
            self._need(number, line, self._outputs, range(line.chunk - 1, -1, -1))
        if (line.chunk, line.microbatch) in self._begun.of(line.peer):  # done again, it takes the place of the first
            for kept in (self._begun, self._halves):
                kept.forget(line.peer, line.microbatch)
        self._begun.add(line.peer, (line.chunk, line.microbatch))
        self._outputs.setdefault((line.peer, line.microbatch), {})[line.chunk] = number

    def _backward(self, number: int, line: Line) -> None:
        key = (line.chunk, line.microbatch)
        if line.chunk < self._last:
            self._need(number, line, self._gradients, range(line.chunk + 1, self._last + 1))
        elif key not in self._begun.of(line.peer):
            self.links.fused.add(number)
            if line.chunk:
                self._need(number, line, self._outputs, range(line.chunk - 1, -1, -1))
        if number not in self.links.fused:
            self._end(self._begun, number, line)
        if line.does == "I":
            self._halves.add(line.peer, key)
        self._gradients.setdefault((line.peer, line.microbatch), {})[line.chunk] = number

    def _take_out(self, number: int, line: Line) -> None:
        before, what = self._line_before.get(line.peer, (NOTHING, line))
        if what.does not in {"B", "W"} or what.microbatch != line.microbatch:
            raise ScriptError(f"line {number} takes out what peer {line.peer} has not just accumulated: {line}")
        self.links.taken_out.add(before)

    def _need(
        self, number: int, line: Line, made: dict[tuple[int, int], dict[int, int]], chunks: Sequence[int]
    ) -> None:
        """Link to what `source` made for the nearest chunk; not the neighbour's where a stage was passed by."""
        found = made.get((line.source, line.microbatch), {})
        maker = next((found[chunk] for chunk in chunks if chunk in found), NOTHING)
        if maker == NOTHING:
            raise ScriptError(f"line {number} needs what peer {line.source} has not made: {line}")
        self.links.needs[number] = maker
        self.links.num_users[maker] += 1

    def _end(self, kept: "_Kept", number: int, line: Line) -> None:
        if not kept.end(line.peer, (line.chunk, line.microbatch)):
            raise ScriptError(f"line {number} ends what peer {line.peer} has not begun: {line}")


class _Kept:
    """Which chunks and micro-batches wait for something, by peer, and how many they are altogether."""

    def __init__(self) -> None:
        self._by_peer: dict[int, set[tuple[int, int]]] = {}
        self.count = 0

    def of(self, peer: int) -> set[tuple[int, int]]:
        return self._by_peer.setdefault(peer, set())

    def add(self, peer: int, key: tuple[int, int]) -> None:
        self.of(peer).add(key)
        self.count += 1

    def end(self, peer: int, key: tuple[int, int]) -> bool:
        if key not in self.of(peer):
            return False
        self.of(peer).discard(key)
        self.count -= 1
        return True

    def forget(self, peer: int, microbatch: int) -> None:
        for key in [key for key in self.of(peer) if key[1] == microbatch]:
            self.end(peer, key)

    def reset(self, peer: int) -> None:
        self.count -= len(self._by_peer.pop(peer, ()))
