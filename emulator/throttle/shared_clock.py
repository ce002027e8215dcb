"""A link that several processes share: when it is free, in shared memory."""

import fcntl
import mmap
import os
import struct
import threading
from typing import Any, Final

from emulator.throttle.rates import Rate

_MAX_GAPS: Final = 16
_TURN: Final = struct.Struct("<q")
_SLOT: Final = struct.Struct(f"<qd{2 * _MAX_GAPS}d")
_SIZE: Final = _TURN.size + 2 * _SLOT.size


class SharedClock:
    """The time from which on a shared link is free, for the processes of one site. ValueError: it ends at rate 0.

    Make it before the processes are forked, or pass it to a child that `multiprocessing` spawns. The lock is one of the
    kernel's record locks, which a process that dies, however it dies, gives back; what a reservation changes becomes
    valid with the last store of eight bytes, so one that was cut off has never happened.

    Reservations may come out of order by a little (each process looks ahead by its own lead): the latest idle times are
    remembered and filled first. `rate` must be the same in all processes.
    """

    def __init__(self, rate: Rate, fd: int | None = None) -> None:
        if not rate.at(float("inf")) > 0.0:
            raise ValueError("a shared link must not end at rate 0")
        self.rate = rate
        self._fd = os.memfd_create("orionbed-site") if fd is None else fd
        if fd is None:
            os.ftruncate(self._fd, _SIZE)
        self._memory = mmap.mmap(self._fd, _SIZE)
        self._threads = threading.Lock()  # record locks do not tell the threads of one process apart
        if fd is None:
            _SLOT.pack_into(self._memory, _TURN.size, 0, float("-inf"), *([0.0] * 2 * _MAX_GAPS))

    def reserve(self, start_s: float, num_bytes: float) -> float:
        """Take the link for some bytes, not before `start_s`; return the run second at which they have passed."""
        with self._threads:
            fcntl.lockf(self._fd, fcntl.LOCK_EX)
            try:
                free_s, gaps = self._load()
                finish_s, free_s, gaps = _fill(self.rate, free_s, gaps, start_s, num_bytes)
                self._store(free_s, gaps)
            finally:
                fcntl.lockf(self._fd, fcntl.LOCK_UN)
        return finish_s

    def passed(self, begin_s: float, arrival_s: float, num_bytes: float) -> float:
        """Take the link for bytes that reach it from `begin_s` to `arrival_s`; return when the last has passed."""
        return max(self.reserve(self.rate.entry(begin_s, arrival_s, num_bytes), num_bytes), arrival_s)

    def close(self) -> None:
        """Let go of the shared memory in this process; the others keep it."""
        if not self._memory.closed:
            self._memory.close()
            os.close(self._fd)

    def __reduce__(self) -> tuple[Any, ...]:
        from multiprocessing.reduction import DupFd

        return _adopt, (self.rate, DupFd(self._fd))

    def _load(self) -> tuple[float, list[tuple[float, float]]]:
        (turn,) = _TURN.unpack_from(self._memory, 0)
        count, free_s, *edges = _SLOT.unpack_from(self._memory, _TURN.size + (turn & 1) * _SLOT.size)
        return free_s, [(edges[2 * i], edges[2 * i + 1]) for i in range(count)]

    def _store(self, free_s: float, gaps: list[tuple[float, float]]) -> None:
        (turn,) = _TURN.unpack_from(self._memory, 0)
        gaps = gaps[-_MAX_GAPS:]
        edges = [edge for gap in gaps for edge in gap] + [0.0] * (2 * (_MAX_GAPS - len(gaps)))
        _SLOT.pack_into(self._memory, _TURN.size + (1 - (turn & 1)) * _SLOT.size, len(gaps), free_s, *edges)
        _TURN.pack_into(self._memory, 0, turn + 1)


def _adopt(rate: Rate, passed_fd: Any) -> SharedClock:
    """Make a shared clock again in a spawned process."""
    return SharedClock(rate, passed_fd.detach())


def _fill(
    rate: Rate, free_s: float, gaps: list[tuple[float, float]], start_s: float, num_bytes: float
) -> tuple[float, float, list[tuple[float, float]]]:
    """Serve bytes in the first idle times from `start_s` on; return when, and the new free time and gaps."""
    left = num_bytes
    kept: list[tuple[float, float]] = []
    finish_s = start_s
    for begin_s, end_s in gaps:
        from_s = max(begin_s, start_s)
        if left <= 0.0 or from_s >= end_s:
            kept.append((begin_s, end_s))
            continue
        if begin_s < from_s:
            kept.append((begin_s, from_s))
        done_s = rate.finish(from_s, left)
        if done_s <= end_s:
            left, finish_s = 0.0, done_s
            if done_s < end_s:
                kept.append((done_s, end_s))
        else:
            left -= rate.amount(from_s, end_s)
    if left > 0.0:
        from_s = max(free_s, start_s)
        if free_s < from_s:
            kept.append((free_s, from_s))
        finish_s = free_s = rate.finish(from_s, left)
    return finish_s, free_s, kept
