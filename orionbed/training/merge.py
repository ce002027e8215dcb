"""A peer's part in a merge: upload, merge its slices, download, each on the word of whoever runs the merge."""

from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from orionbed import tracing
from orionbed.merging.butterfly import butterfly_bytes, pairs_of, slice_bounds
from orionbed.training.loop import Header
from orionbed.training.shape import BYTES_PER_VALUE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from orionbed.training.loop import PeerLoop

PHASES = ("upload", "partitions", "download")


class PeerMerge:
    """Moves real weights through the object store; every pair averages a slice, as `orionbed.merging.butterfly` says.

    Phases are told by commands that carry the merge's number, its members at this stage and the second at which the
    phase begins. A peer that is too late for a phase finds itself in the next.
    """

    def __init__(self, loop: "PeerLoop", store: int) -> None:
        self._loop = loop
        self._store = store
        self._format = loop.compute.shape.dtype
        self._width = BYTES_PER_VALUE[self._format]
        self._phase = ""
        self._began_s = 0.0
        self._merge = -1
        self._version = -1
        self._members: list[int] = []

    def begin(self, command: dict[str, Any]) -> None:
        """Begin a phase."""
        loop = self._loop
        if loop.status == "merging":
            in_time = self._phase == ""
            loop.account.charge(tracing.CAUSE_MERGE_WAIT if in_time else tracing.CAUSE_MERGE_TRANSFER, loop.now_s)
        self._phase = command["phase"]
        self._began_s = loop.now_s
        self._merge, self._members, self._version = command["merge"], command["members"], command["version"]
        amounts = butterfly_bytes(float(loop.plan.stages[loop.stage].weight_bytes), max(1, len(self._members)))
        if self._phase == "upload":
            key = self._key("weights", loop.me.index)
            self._send({"k": "P", "keys": [key]}, loop.compute.weights(), amounts.gradients_up)
        elif self._phase == "partitions":
            wanted = [[self._key("weights", m), *self._range(part)] for part in self._mine() for m in self._members]
            self._send({"k": "G", "want": wanted, "bytes": amounts.partitions_down}, b"", 0.0)
        else:
            wanted = [[self._key("merged", part), *self._range(part)] for part in range(len(self._pairs()))]
            self._send({"k": "G", "want": wanted, "bytes": amounts.weights_down}, b"", 0.0)

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
        return len(self._loop.compute.weights()) // self._width

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
            block = loop.plan.scenario.merge
            assert not isinstance(block, str)
            merged = self._averaged(body, set(header["there"]))
            pretended_s = block.compute if loop.hands is None else 0.0  # in real time it has taken what it takes
            loop.timeline.at(loop.now_s + pretended_s, self._compute_done, (self._merge, merged))
        else:
            loop.take_merged(self._version, self._completed(body, header["there"]))
            self._done()

    def _averaged(self, body: bytes, there: set[int]) -> dict[int, bytes]:
        """Return each of this peer's slices, averaged over the members whose upload was there, if there was any."""
        count = len(self._members)
        merged, at = {}, 0
        for place, part in enumerate(self._mine()):
            low, high = self._range(part)
            num_rows = len(there.intersection(range(place * count, (place + 1) * count)))
            if num_rows:
                merged[part] = averaged(body[at : at + (high - low) * num_rows], num_rows, self._format)
            at += (high - low) * num_rows
        return merged

    def _completed(self, body: bytes, there: list[int]) -> bytes:
        """Return the merged weights; slices that nobody had are this peer's own."""
        weights, at = bytearray(self._loop.compute.weights()), 0
        for part in there:
            low, high = self._range(part)
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
        keys = [self._key("merged", part) for part in merged]
        lengths = [len(part) for part in merged.values()]
        amounts = butterfly_bytes(float(loop.plan.stages[loop.stage].weight_bytes), max(1, len(self._members)))
        plan_bytes = amounts.partitions_up if merged else 0.0
        self._send({"k": "P", "keys": keys, "lengths": lengths}, b"".join(merged.values()), plan_bytes)

    def _done(self) -> None:
        phase, self._phase = self._phase, ""
        self._loop.tell({"t": "phase_done", "merge": self._merge, "phase": phase})


def averaged(rows: bytes, num_rows: int, number_format: str) -> bytes:
    """Return the mean of rows of values that lie one behind the other, in their number format."""
    is_wide = number_format != "bfloat16"
    values = np.frombuffer(rows, dtype=number_format if is_wide else np.uint16)
    values = values.reshape(num_rows, len(values) // num_rows)
    if is_wide:
        return bytes(values.mean(axis=0).tobytes())
    # numpy has none, but its bits are the upper half of a float32's; to nearest, ties to even
    bits: NDArray[np.uint32] = (values.astype(np.uint32) << 16).view(np.float32).mean(axis=0).view(np.uint32)
    rounded = bits + 0x7FFF + ((bits >> 16) & 1)
    return bytes((rounded >> 16).astype(np.uint16).tobytes())
