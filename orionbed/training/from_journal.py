"""The journal of a queue-driven run as a script: what its peers did, in an order in which one process can do it again.

A journal is in order of time, and clocks of several machines agree to some milliseconds only. Here each peer's entries
keep their order, and an entry waits for what it needs: the tensor that `source` made, the state that another one
committed, the weights of all who took part in a merge.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from orionbed.journal import Entry, in_order
from orionbed.plan import Plan
from orionbed.script import Line

Tensor = tuple[str, int, int, int]
"""What goes on or back: the pass that made it, peer, chunk and micro-batch."""
Merge = tuple[int, int]
"""A merge at one stage: the version that it makes, and the stage."""


class JournalError(ValueError):
    """A journal that does not tell what a replay has to know, with what is missing."""


class UndecidedError(JournalError):
    """Nothing need be wrong: a peer made a tensor in two of its lives, and others may have used either."""


@dataclass(slots=True)
class _Act:
    """One line of a peer, or a moment that another one's line refers to.

    `needs` and `makes` are tensors. `adopts` is the act at which the state was committed that this one takes over, and
    `adopters` are those who take over what is committed here. A `merge` is done when all takers have come to it.
    """

    line: Line
    needs: Tensor | None = None
    makes: Tensor | None = None
    adopts: "_Act | None" = None
    adopters: "list[_Act]" = field(default_factory=list)
    merge: Merge | None = None
    done: bool = False


@dataclass(slots=True)
class _Merging:
    """Slices that a merge made: their members and these members' works; and who took the whole over, of which stage.

    Newcomers take it as the first thing in a new life, and have no optimizer's memory.
    """

    number: int
    parts: int
    chunk: int
    members: dict[int, tuple[tuple[int, ...], tuple[int, ...]]] = field(default_factory=dict)
    made: set[int] = field(default_factory=set)
    takers: set[int] = field(default_factory=set)
    newcomers: set[int] = field(default_factory=set)
    merged_s: float = 0.0
    before: list[_Act] = field(default_factory=list)


def script_of(plan: Plan, entries: Iterable[Entry]) -> list[Line]:
    """Return the script of a queue-driven run that these entries are the journal of.

    Raises:
        JournalError: an entry needs what no other one has made.
        UndecidedError: see there.

    """
    return _Reading(plan, in_order(entries)).lines()


class _Reading:
    def __init__(self, plan: Plan, entries: list[Entry]) -> None:
        self._plan = plan
        self._outer = not isinstance(plan.scenario.merge, str) and plan.scenario.merge.outer == "nesterov"
        self._acts: dict[int, list[_Act]] = {}
        self._commits: dict[tuple[int, int, str], _Act] = {}
        self._merges: dict[Merge, _Merging] = {}
        by_peer: dict[int, list[Entry]] = defaultdict(list)
        for entry in entries:
            if entry.event in {"merged", "taken"}:
                self._note_merge(entry)
            if entry.peer >= 0:
                by_peer[entry.peer].append(entry)
        for peer, own in sorted(by_peer.items()):
            own.sort(key=lambda entry: entry.life)  # what was told late of a life that is over comes before the next
            self._acts[peer] = list(self._read(own))
        self._link_adopted(by_peer)
        self._link_members()

    # ---------------------------------------------------------------- one peer's entries

    def _read(self, entries: list[Entry]) -> Iterator[_Act]:
        has_weights = 0
        numbers: set[int] = set()
        for entry, following in zip(entries, [*entries[1:], None], strict=True):
            if entry.event == "applied":
                numbers.add(entry.microbatch)
                step = "applied", entry.life, entry.step
                if following is None or (following.event, following.life, following.step) != step:
                    yield _Act(Line(entry.at_s, "STEP", entry.peer, number=len(numbers)))
                    numbers = set()
                continue
            if entry.event == "taken" and entry.life > has_weights:
                self._merges[entry.step, entry.stage].newcomers.add(entry.peer)
            if entry.event in {"taken", "adopted"}:
                has_weights = entry.life
            act = self._act(entry)
            if act is not None:
                yield act

    def _act(self, entry: Entry) -> _Act | None:
        at_s, event, peer = entry.at_s, entry.event, entry.peer
        if event in {"forward", "backward"}:
            return self._pass(entry)
        if event == "dropped":
            return _Act(Line(at_s, "FORGET", peer, microbatch=entry.microbatch))
        if event in {"reset", "crashed"}:
            return _Act(Line(at_s, "RESET", peer))
        if event == "committed":
            act = _Act(Line(at_s, "", peer))
            self._commits.setdefault((peer, entry.step, entry.detail), act)
            return act
        if event == "adopted" and entry.source >= 0:
            return _Act(Line(at_s, "ADOPT", peer, entry.chunk, source=entry.source, with_state=True))
        if event == "taken":
            return _Act(Line(at_s, "MERGE", peer), merge=(entry.step, entry.stage))
        return None

    def _pass(self, entry: Entry) -> _Act:
        kind = entry.detail
        line = Line(entry.at_s, kind, entry.peer, entry.chunk, entry.microbatch, entry.source)
        last = self._plan.num_chunks - 1
        needs: Tensor | None = None
        if kind == "F" or entry.chunk == last:  # the last stage does forward, loss and backward in one go
            needs = ("F", entry.source, entry.chunk - 1, entry.microbatch) if entry.chunk else None
        else:
            needs = ("B", entry.source, entry.chunk + 1, entry.microbatch)
        return _Act(line, needs, (kind, entry.peer, entry.chunk, entry.microbatch))

    # ---------------------------------------------------------------- states and merges

    def _note_merge(self, entry: Entry) -> None:
        what = json.loads(entry.detail)
        key = entry.step, entry.stage
        one = self._merges.setdefault(key, _Merging(what["merge"], what["slices"], entry.chunk))
        if entry.event == "merged":
            one.members[what["slice"]] = tuple(what["members"]), tuple(what["works"])
            one.merged_s = max(one.merged_s, entry.at_s)
        else:
            one.takers.add(entry.peer)
            one.made |= set(what["made"])

    def _link_adopted(self, by_peer: dict[int, list[Entry]]) -> None:
        """Find where each adopted state was committed: by another one, or by this peer in an earlier life."""
        for peer, acts in self._acts.items():
            adopted = [entry for entry in by_peer[peer] if entry.event == "adopted" and entry.source >= 0]
            for act, entry in zip((act for act in acts if act.line.does == "ADOPT"), adopted, strict=True):
                commit = self._commits.get((entry.source, entry.step, entry.detail))
                if commit is None:
                    raise JournalError(f"peer {peer} adopted version {entry.step}, which {entry.source} never had")
                if entry.source == peer:
                    begun, ended = acts.index(commit), acts.index(act)
                    lost = sum(other.line.does == "STEP" for other in acts[begun:ended])
                    act.line = Line(entry.at_s, "UNDO", peer, number=lost)
                else:
                    act.adopts = commit
                    commit.adopters.append(act)

    def _link_members(self) -> None:
        """Find what has to come before each merge at those who gave their weights and did not take the result."""
        for one in self._merges.values():
            givers = {member for part in one.made for member in one.members.get(part, ((), ()))[0]}
            for peer in givers - one.takers:
                ends = [act for act in self._acts[peer] if act.line.does == "RESET" and act.line.at_s <= one.merged_s]
                one.before += ends[-1:]

    # ---------------------------------------------------------------- all peers' lines

    def lines(self) -> list[Line]:
        """Return the lines in an order that respects causes, and that of time where causes do not tell."""
        self._at = dict.fromkeys(self._acts, 0)
        self._made: dict[Tensor, int] = defaultdict(int)
        self._remade_s: dict[Tensor, float] = {}
        self._found: list[Line] = []
        while waiting := [(self._head(peer), peer) for peer in self._acts if self._at[peer] < len(self._acts[peer])]:
            ready = [(act.line.at_s, peer) for act, peer in waiting if self._is_ready(act)]
            if not ready:
                act, peer = min(waiting, key=lambda each: each[0].line.at_s)
                raise JournalError(f"at {act.line.at_s:.6g} s peer {peer} needs what nobody made: {act.line}")
            self._do(self._head(min(ready)[1]))
        return self._found

    def _head(self, peer: int) -> _Act:
        return self._acts[peer][self._at[peer]]

    def _is_head(self, act: _Act) -> bool:
        peer = act.line.peer
        return self._at[peer] < len(self._acts[peer]) and self._head(peer) is act

    def _is_ready(self, act: _Act) -> bool:
        if act.merge is not None:
            one = self._merges[act.merge]
            heads = [self._at[peer] < len(self._acts[peer]) and self._head(peer).merge for peer in one.takers]
            return all(head == act.merge for head in heads) and all(before.done for before in one.before)
        if act.adopts is not None:
            return False  # it comes with the act that it refers to
        if act.adopters:
            return all(self._is_head(adopter) for adopter in act.adopters)
        return act.needs is None or bool(self._made[act.needs])

    def _do(self, act: _Act) -> None:
        line = act.line
        if act.merge is not None:
            self._merge(self._merges[act.merge], line.at_s)
            return
        if act.needs is not None and line.at_s > self._remade_s.get(act.needs, line.at_s):
            raise UndecidedError(f"peer {line.source} made twice what peer {line.peer} used: {line}")
        if act.makes is not None:
            self._made[act.makes] += 1
            if self._made[act.makes] > 1:
                self._remade_s.setdefault(act.makes, line.at_s)
        self._pass_by(act)
        if line.does:
            self._found.append(line)
        for adopter in act.adopters:
            self._found.append(adopter.line._replace(at_s=line.at_s))
            self._pass_by(adopter)

    def _merge(self, one: _Merging, at_s: float) -> None:
        takers = tuple(sorted(one.takers))
        number = one.number if self._outer else -1
        for part in range(one.parts):
            others, works = one.members.get(part, ((), ())) if part in one.made else ((), ())
            if part in one.made and not others:
                raise JournalError(f"at {at_s:.6g} s slice {part} was taken over, and nobody says how it was merged")
            self._found.append(
                Line(
                    at_s, "MERGE", -1, one.chunk, number=number, others=others, works=works, takers=takers, part=part,
                    parts=one.parts,
                )
            )  # fmt: skip
        for peer in takers:
            self._pass_by(self._head(peer))
            if peer in one.newcomers:
                self._found.append(Line(at_s, "ADOPT", peer, one.chunk))

    def _pass_by(self, act: _Act) -> None:
        act.done = True
        self._at[act.line.peer] += 1
