"""A peer's part in a merge: upload, merge its slices, download, each on the word of whoever runs the merge."""

import json
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from orionbed import tracing
from orionbed.merging.butterfly import MergeBytes, butterfly_bytes, pairs_of, slice_bounds
from orionbed.training.outer import mean_slice, merged_slice
from orionbed.training.shape import BYTES_PER_VALUE
from orionbed.training.surroundings import Header

if TYPE_CHECKING:
    from orionbed.scenario.merging import Merge
    from orionbed.training.loop import PeerLoop

PHASES = ("upload", "partitions", "download")


@dataclass(slots=True)
class _Slice:
    """What a slice is merged from: the members' weights, what they have done for them, and what was before."""

    old: bytearray
    momentum: bytearray
    members: list[int] = field(default_factory=list)
    rows: list[bytes] = field(default_factory=list)
    works: list[int] = field(default_factory=list)


class PeerMerge:
    """Moves real weights through the object store; every pair merges a slice, as `orionbed.merging.butterfly` says.

    Phases are told by commands that carry the merge's number, its members at this stage, the versions of the weights
    before and after it, and the second at which the phase begins. A peer that is too late for a phase finds itself in
    the next.

    With the outer optimizer a slice is merged from the members' weights, those before and the momentum. A peer has the
    old weights, because it began with them; if it was started again since, the store has. Before the first merge they
    are those that the peer was made with, the same at all replicas.
    """

    def __init__(self, loop: "PeerLoop", store: int) -> None:
        self._loop = loop
        self._store = store
        self._format = loop.compute.shape.dtype
        self._width = BYTES_PER_VALUE[self._format]
        self._phase = ""
        self._began_s = 0.0
        self._merge = -1
        self._base = self._version = -1
        self._members: list[int] = []
        self._wanted: list[tuple[str, int, int]] = []
        self._old = b"" if isinstance(loop.plan.scenario.merge, str) else loop.compute.weights()
        self._old_version = 0

    @property
    def _block(self) -> "Merge":
        block = self._loop.plan.scenario.merge
        assert not isinstance(block, str)
        return block

    @property
    def _with_momentum(self) -> bool:
        return self._block.outer == "nesterov"

    def _plan_bytes(self) -> MergeBytes:
        weight_bytes = float(self._loop.plan.stages[self._loop.stage].weight_bytes)
        return butterfly_bytes(weight_bytes, max(1, len(self._members)), momentum=self._with_momentum)

    def begin(self, command: dict[str, Any]) -> None:
        """Begin a phase."""
        loop = self._loop
        if loop.status == "merging":
            in_time = self._phase == ""
            loop.account.charge(tracing.CAUSE_MERGE_WAIT if in_time else tracing.CAUSE_MERGE_TRANSFER, loop.now_s)
        self._phase = command["phase"]
        self._began_s = loop.now_s
        self._merge, self._members = command["merge"], command["members"]
        self._base, self._version = command["base"], command["version"]
        amounts = self._plan_bytes()
        if self._phase == "upload":
            body = loop.compute.weights()
            part = [self._key("weights", loop.me.index), len(body), 0, len(body)]
            header = {"k": "P", "parts": [part], "work": loop.work_since(self._base)}
            self._send(header, body, amounts.gradients_up)
        elif self._phase == "partitions":
            self._send({"k": "G", "want": self._want(), "bytes": amounts.partitions_down}, b"", 0.0)
        else:
            want = [[self._key("merged", 0), 0, len(self._old)]]
            self._send({"k": "G", "want": want, "bytes": amounts.weights_down}, b"", 0.0)

    def _want(self) -> list[Any]:
        """Return what this peer's slices are merged from."""
        self._wanted, want = [], []
        for part in self._mine():
            names = [("weights", member) for member in self._members]
            if self._with_momentum:
                names.append(("momentum", part))
                if self._old_version != self._base:
                    names.append(("old", part))
            for name, number in names:
                self._wanted.append((name, number, part))
                want.append([self._key(name, number), *self._range(part)])
        return want

    def _send(self, header: Header, body: bytes, plan_bytes: float) -> None:
        loop = self._loop
        header |= {"merge": self._merge, "phase": self._phase}
        loop.transport.send(self._store, header, body, plan_bytes, loop.now_s, control=not body)

    def _pairs(self) -> list[tuple[int, ...]]:
        return pairs_of(self._members)

    def _mine(self) -> list[int]:
        return [number for number, pair in enumerate(self._pairs()) if self._loop.me.index in pair]

    def _key(self, what: str, number: int) -> list[Any]:
        return [what, self._merge, self._loop.stage, number]

    @cached_property
    def _num_weights(self) -> int:
        return len(self._old) // self._width

    def _range(self, part: int) -> tuple[int, int]:
        low, high = slice_bounds(self._num_weights, len(self._pairs()), part)
        return low * self._width, high * self._width

    def arrived(self, header: Header, body: bytes) -> None:
        """Take in what the store sends: an acknowledgement, or bytes that were asked for."""
        if header.get("merge") != self._merge or header.get("phase") != self._phase:
            return
        loop = self._loop
        uploading = header["k"] == "A"
        if loop.status == "merging":
            loop.account.charge(tracing.CAUSE_MERGE_TRANSFER, loop.now_s)
        loop.reporter.span(
            tracing.LANE_MERGE,
            tracing.KIND_UPLOAD if uploading else tracing.KIND_DOWNLOAD,
            tracing.CAUSE_MERGE_TRANSFER,
            -1,
            (self._began_s, loop.now_s),
            header["bytes"],
        )
        if uploading:
            self._done()
        elif self._phase == "partitions":
            merged = self._merged(body, header["pieces"])
            pretended_s = self._block.compute if loop.hands is None else 0.0  # in real time it has taken what it takes
            loop.timeline.at(loop.now_s + pretended_s, self._compute_done, (self._merge, merged))
        else:
            self._old, self._old_version = self._completed(body, header["pieces"]), self._version
            self._write("taken", {"made": header["made"]})
            loop.take_merged(self._version, self._old)
            self._done()

    def _merged(self, body: bytes, pieces: list[Any]) -> dict[int, bytes]:
        """Return each of this peer's slices after the merge, if any upload was there: weights, then momentum."""
        slices, at = dict[int, _Slice](), 0
        for part in self._mine():
            low, high = self._range(part)
            slices[part] = _Slice(bytearray(self._old[low:high]), bytearray(high - low))
        for number, low, high, work in pieces:
            name, member, part = self._wanted[number]
            values, at = body[at : at + high - low], at + high - low
            one, begin = slices[part], self._range(part)[0]
            if name == "weights":
                one.members.append(member)
                one.rows.append(values)
                one.works.append(work)
            else:
                known = one.old if name == "old" else one.momentum
                known[low - begin : high - begin] = values
        found = {part: one for part, one in slices.items() if one.rows}
        for part, one in found.items():
            self._write("merged", {"slice": part, "members": one.members, "works": one.works})
        return {part: self._step(one) for part, one in found.items()}

    def _write(self, event: str, what: dict[str, Any]) -> None:
        """Write down what a merge that is done again needs to know."""
        what = {"merge": self._merge, "slices": len(self._pairs()), **what}
        loop = self._loop
        loop.reporter.journal(
            loop.now_s, event, chunk=loop.compute.chunks[0], step=self._version, detail=json.dumps(what)
        )

    def _step(self, one: _Slice) -> bytes:
        if not self._with_momentum:
            return mean_slice(one.rows, one.works, self._format)
        return b"".join(
            merged_slice(one.rows, one.works, one.old, one.momentum, merge=self._merge, number_format=self._format)
        )

    def _completed(self, body: bytes, pieces: list[Any]) -> bytes:
        """Return the stage's weights; what no merge has ever made is as it was at first."""
        weights, at = bytearray(self._old), 0
        for _, low, high, _ in pieces:
            weights[low:high] = body[at : at + high - low]
            at += high - low
        return bytes(weights)

    def _compute_done(self, what: tuple[int, dict[int, bytes]]) -> None:
        loop = self._loop
        merge, merged = what
        if merge != self._merge or self._phase != "partitions":
            return
        began_s = loop.account.accounted_s
        if loop.status == "merging":
            loop.account.charge(tracing.CAUSE_MERGE_COMPUTE, loop.now_s)
            loop.reporter.span(
                tracing.LANE_MERGE, tracing.KIND_AVERAGE, tracing.CAUSE_MERGE_COMPUTE, -1, (began_s, loop.now_s)
            )
        self._began_s = loop.now_s
        loop.reporter.flush(loop.account, loop.status)
        parts = [[self._key("merged", part), len(body), *self._range(part)] for part, body in merged.items()]
        plan_bytes = self._plan_bytes().partitions_up if merged else 0.0
        self._send({"k": "P", "parts": parts, "work": 0}, b"".join(merged.values()), plan_bytes)

    def _done(self) -> None:
        phase, self._phase = self._phase, ""
        self._loop.tell({"t": "phase_done", "merge": self._merge, "phase": phase})
