"""The object store that merges go through: keeps what is put, gives parts of it back."""

import hashlib
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from orionbed.training.composed import Composed
from orionbed.training.surroundings import Header, Transport
from orionbed.training.timeline import Timeline

Key = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class _Kept:
    """What was put: a member's weights and its work, or bytes `low` to `high` of the merged ones, momentum behind."""

    body: bytes
    work: int
    low: int
    high: int


class StoreLoop:
    """Keys are lists of a name, a merge, a stage and a number. What the two peers of a pair put must agree.

    Names are `weights`, of a member; `merged`, a slice that was put, and when it is asked for the stage as it is after
    the merge; `old` and `momentum`, the stage as the merges before have left it. A slice that nobody has merged stays
    as it was. What no merge has made is not there: peers know the first weights, and that the momentum begins with 0.

    What is put too late, when others have been told that it is not there, is not used: all must see the same.
    """

    def __init__(self, transport: Transport) -> None:
        self.timeline = Timeline()
        self._transport = transport
        self._kept: dict[Key, _Kept] = {}
        self._stages: dict[tuple[str, int], Composed] = defaultdict(Composed)
        self._merge = -1
        self._closed: set[Key] = set()
        self.num_agreeing = 0
        self.num_disagreeing = 0
        self.bytes_read = 0.0
        self.bytes_stored = 0.0

    def arrive(self, what: tuple[Header, bytes]) -> None:
        """Take in a request."""
        header, body = what
        if header["k"] == "P":
            self._put(header, body)
        elif header["k"] == "G":
            self._get(header)

    def failed(self, what: tuple[int, Header, str]) -> None:
        """A peer that is gone wants nothing more."""

    def _put(self, header: Header, body: bytes) -> None:
        if header["merge"] > self._merge:
            self._merge = header["merge"]
            self._kept = {key: value for key, value in self._kept.items() if key[1] >= self._merge}
        at = 0
        for key, length, low, high in header["parts"]:
            self._keep(tuple(key), _Kept(body[at : at + length], header["work"], low, high))
            at += length
        self.bytes_stored += header["plan_bytes"]
        self._answer(header, {"k": "A", "bytes": header["plan_bytes"]}, b"", 0.0)

    def _keep(self, key: Key, new: _Kept) -> None:
        before = self._kept.get(key)
        if before is None:
            if key[:3] not in self._closed:
                self._kept[key] = new
        elif hashlib.sha256(before.body).digest() == hashlib.sha256(new.body).digest():
            self.num_agreeing += 1
        else:
            self.num_disagreeing += 1

    def _get(self, header: Header) -> None:
        if header["merge"] < self._merge:
            return  # that merge is over, and the peer takes part in the present one
        pieces, bodies = [], []
        made: list[int] = []
        for number, (key, low, high) in enumerate(header["want"]):
            for begin, end, body, work in self._found(tuple(key), low, high):
                pieces.append([number, begin, end, work])
                bodies.append(body)
            if key[0] == "merged":
                made = sorted(kept[3] for kept in self._kept if kept[:3] == tuple(key[:3]))
        self.bytes_read += header["bytes"]
        answer = {"k": "D", "bytes": header["bytes"], "pieces": pieces, "made": made}
        self._answer(header, answer, b"".join(bodies), header["bytes"])

    def _found(self, key: Key, low: int, high: int) -> list[tuple[int, int, bytes, int]]:
        """Return what there is of bytes `low` to `high`, with the work in it; other uploads are too late now."""
        name, merge, stage, _ = key
        self._closed.add(("weights", merge, stage))
        if name == "weights":
            kept = self._kept.get(key)
            # Who begins to average when others have gone without its slices finds nothing to average.
            if kept is None or ("merged", merge, stage) in self._closed:
                return []
            return [(low, high, kept.body[low:high], kept.work)]
        if name == "merged":
            self._compose(merge, stage)
        known = self._stages["momentum" if name == "momentum" else "weights", stage]
        return [(begin, end, body, 0) for begin, end, body in known.pieces(low, high)]

    def _compose(self, merge: int, stage: int) -> None:
        """Take over the slices that have been merged, once for all."""
        which = ("merged", merge, stage)
        if which in self._closed:
            return
        self._closed.add(which)
        for key, kept in self._kept.items():
            if key[:3] == which:
                width = kept.high - kept.low
                self._stages["weights", stage].put(kept.low, kept.body[:width])
                self._stages["momentum", stage].put(kept.low, kept.body[width:])

    def _answer(self, header: Header, answer: Header, body: bytes, plan_bytes: float) -> None:
        answer |= {"merge": header["merge"], "phase": header["phase"]}
        self._transport.send(header["from"], answer, body, plan_bytes, self.timeline.now_s, control=plan_bytes == 0.0)
