"""What survives the death of a peer's process on its machine: the last states it committed, in memory without a name.

Made before peers are forked and held by the process that forks them, so it dies with the run and leaves no file.
"""

import os
import struct
from typing import Final

_HEAD: Final = struct.Struct("!QQ")
NUM_SLOTS: Final = 2


class Disk:
    """Two slots for states, the older one written: a death in the middle of a write costs one version, not both."""

    def __init__(self) -> None:
        self._slots = [os.memfd_create("orionbed-disk") for _ in range(NUM_SLOTS)]

    def write(self, version: int, state: bytes) -> None:
        """Keep the state of a version; that of the version before stays."""
        # One that is made anew replaces the one that was given up.
        slot = min(self._slots, key=lambda slot: (self._version(slot) != version, self._version(slot)))
        os.pwrite(slot, _HEAD.pack(0, 0), 0)
        os.ftruncate(slot, _HEAD.size + len(state))
        view, at = memoryview(state), _HEAD.size
        while view:
            written = os.pwrite(slot, view, at)
            view, at = view[written:], at + written
        os.pwrite(slot, _HEAD.pack(version, len(state)), 0)

    @staticmethod
    def _version(slot: int) -> int:
        """Return the version in a slot, -1 where there is none that is whole."""
        head = os.pread(slot, _HEAD.size, 0)
        number, length = _HEAD.unpack(head) if len(head) == _HEAD.size else (-1, 0)
        return int(number) if length else -1

    def read(self, version: int | None = None) -> tuple[int, bytes] | None:
        """Return a version and its state, the latest if none is asked for; None when it is not there."""
        kept = {self._version(slot): slot for slot in self._slots}
        wanted = max(kept) if version is None else version
        if wanted < 0 or wanted not in kept:
            return None
        slot = kept[wanted]
        return wanted, os.pread(slot, os.fstat(slot).st_size - _HEAD.size, _HEAD.size)
