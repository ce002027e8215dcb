"""The object store that merges go through: keeps what is put, gives parts of it back."""

import hashlib
from typing import Any

from orionbed.training.loop import Header, Transport
from orionbed.training.timeline import Timeline


class StoreLoop:
    """Keys are lists of a name, a merge, a stage and a number. What the two peers of a pair put must agree.

    What is put too late, when others have been told that it is not there, is not used: all must see the same.
    """

    def __init__(self, transport: Transport) -> None:
        self.timeline = Timeline()
        self._transport = transport
        self._kept: dict[tuple[Any, ...], bytes] = {}
        self._merge = -1
        self._too_late: set[tuple[Any, ...]] = set()
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
        for key, length in zip(header["keys"], header.get("lengths", [header["length"]]), strict=True):
            self._keep(tuple(key), body[at : at + length])
            at += length
        self.bytes_stored += header["plan_bytes"]
        self._answer(header, {"k": "A", "bytes": header["plan_bytes"]}, b"", 0.0)

    def _keep(self, key: tuple[Any, ...], body: bytes) -> None:
        if key in self._too_late or key[:3] in self._too_late:
            return
        before = self._kept.get(key)
        if before is None:
            self._kept[key] = body
        elif hashlib.sha256(before).digest() == hashlib.sha256(body).digest():
            self.num_agreeing += 1
        else:
            self.num_disagreeing += 1

    def _get(self, header: Header) -> None:
        found = {n: self._part(tuple(key), low, high) for n, (key, low, high) in enumerate(header["want"])}
        there = {number: part for number, part in found.items() if part is not None}
        self.bytes_read += header["bytes"]
        answer = {"k": "D", "bytes": header["bytes"], "there": list(there)}
        self._answer(header, answer, b"".join(there.values()), header["bytes"])

    def _part(self, key: tuple[Any, ...], low: int, high: int) -> bytes | None:
        """Return part of what is kept, None where there is nothing; from then on uploads of weights are too late."""
        name, merge, stage, _ = key
        self._too_late.add(("weights", merge, stage))
        if name == "weights":
            return self._kept[key][low:high] if key in self._kept else None
        if key not in self._kept:
            # A pair that was lost leaves its slice unmerged: everybody takes it from the first peer that uploaded.
            uploaded = [number for *of, number in self._kept if of == ["weights", merge, stage]]
            if not uploaded:
                return None
            self._kept[key] = self._kept["weights", merge, stage, min(uploaded)][low:high]
            self._too_late.add(key)
        return self._kept[key]

    def _answer(self, header: Header, answer: Header, body: bytes, plan_bytes: float) -> None:
        answer |= {"merge": header["merge"], "phase": header["phase"]}
        self._transport.send(header["from"], answer, body, plan_bytes, self.timeline.now_s, control=plan_bytes == 0.0)
