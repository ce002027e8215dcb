"""When each process was last heard of, and what it was at."""

import time

from orionbed import tracing
from orionbed.account import KIND_CODES
from orionbed.fleet.control import Message

_NAMES = {code: kind for kind, code in KIND_CODES.items()}


class LastActions:
    """By rank. A process tells what it is at with every word but a report; of a report its last operation counts."""

    def __init__(self) -> None:
        self._heard_s: dict[int, float] = {}
        self._doing: dict[int, str] = {}

    def heard(self, rank: int) -> None:
        """Note that a process has been heard of, or cannot be expected to be before now."""
        self._heard_s[rank] = time.monotonic()

    def hear(self, rank: int, message: Message) -> None:
        """Take in anything that a process says."""
        self.heard(rank)
        if message["t"] != "report":
            self._doing[rank] = message["doing"]
            return
        for _, lane, kind, microbatch, *_ in reversed(message["spans"]):
            if lane == tracing.LANE_COMPUTE and kind in _NAMES:
                what = _NAMES[kind] if microbatch < 0 else f"{_NAMES[kind]} of micro-batch {microbatch}"
                self._doing[rank] = f"{what} (done)"
                return

    def silent_s(self, rank: int) -> float:
        """Return for how long a process has not been heard of."""
        return time.monotonic() - self._heard_s.get(rank, time.monotonic())

    def __getitem__(self, rank: int) -> str:
        return self._doing.get(rank, "none yet")
