"""What survives the death of a peer's process on its machine: the last states it committed, in memory without a name.

Made before peers are forked and held by the process that forks them, so it dies with the run and leaves no file.
"""

import os
import struct
from typing import Final

_HEAD: Final = struct.Struct("!QQ")
NUM_SLOTS: Final = 2


class Disk:
    """Two slots for states, written in turn: a death in the middle of a write costs one version, not both."""

    def __init__(self) -> None:
        self._slots = [os.memfd_create("orionbed-disk") for _ in range(NUM_SLOTS)]

    def write(self, version: int, state: bytes) -> None:
        """Keep the state of a version; that of the version before stays."""
        slot = self._slots[version % NUM_SLOTS]
        os.pwrite(slot, _HEAD.pack(0, 0), 0)
        os.ftruncate(slot, _HEAD.size + len(state))
        view, at = memoryview(state), _HEAD.size
        while view:
            written = os.pwrite(slot, view, at)
            view, at = view[written:], at + written
        os.pwrite(slot, _HEAD.pack(version, len(state)), 0)

    def read(self, version: int | None = None) -> tuple[int, bytes] | None:
        """Return a version and its state, the latest if none is asked for; None when it is not there."""
        found = None
        for slot in self._slots:
            head = os.pread(slot, _HEAD.size, 0)
            if len(head) < _HEAD.size:
                continue
            number, length = _HEAD.unpack(head)
            wanted = number == version if version is not None else found is None or number > found[0]
            if length and wanted:
                found = (number, os.pread(slot, length, _HEAD.size))
        return found
