"""The bridge service: keys that peers write and poll, with three rules for writing.

Last write wins, compare-and-swap with versions, and locks with a token that expire. It knows no clock: who calls says
what time it is. Rules after IOTA's `docs/sync_v2.md` (code).
"""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Entry:
    """What is stored under a key: the value, its version (1 for the first) and when it was written, in seconds."""

    value: Any
    version: int
    written_s: float


@dataclass(frozen=True, slots=True)
class _Lock:
    token: str
    until_s: float


class Bridge:
    """A store of keys. Every successful write raises the key's version by one; versions never go back."""

    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}
        # Also of keys that were deleted, so that a swap cannot mistake a new value for an old one.
        self._versions: dict[str, int] = {}
        self._locks: dict[str, _Lock] = {}

    def get(self, key: str) -> Entry | None:
        """Return what is stored under `key`, `None` where nothing is."""
        return self._entries.get(key)

    def put(self, key: str, value: Any, now_s: float) -> int:
        """Write whatever was there before (last write wins); return the new version."""
        version = self._versions.get(key, 0) + 1
        self._versions[key] = version
        self._entries[key] = Entry(value, version, now_s)
        return version

    def swap(self, key: str, value: Any, version: int, now_s: float) -> bool:
        """Write if the key still has `version` (0: if it was never written); return whether it had."""
        if self._versions.get(key, 0) != version:
            return False
        self.put(key, value, now_s)
        return True

    def delete(self, key: str) -> None:
        """Forget the value of `key`, if it has one. That counts as a write."""
        if self._entries.pop(key, None) is not None:
            self._versions[key] += 1

    def version(self, key: str) -> int:
        """Return the version of `key`, 0 if it was never written."""
        return self._versions.get(key, 0)

    def lock(self, key: str, token: str, now_s: float, for_s: float) -> bool:
        """Take or renew the lock of `key` for `for_s` seconds; return whether `token` now holds it.

        ValueError: `for_s` is not greater than 0.
        """
        if not for_s > 0.0:
            raise ValueError(f"a lock lasts longer than 0 s, not {for_s}")
        holder = self.holder(key, now_s)
        if holder is not None and holder != token:
            return False
        self._locks[key] = _Lock(token, now_s + for_s)
        return True

    def unlock(self, key: str, token: str, now_s: float) -> bool:
        """Give the lock of `key` back; return whether `token` held it."""
        if self.holder(key, now_s) != token:
            return False
        del self._locks[key]
        return True

    def holder(self, key: str, now_s: float) -> str | None:
        """Return the token that holds the lock of `key`, `None` where nobody does or it has expired."""
        lock = self._locks.get(key)
        return lock.token if lock is not None and now_s < lock.until_s else None

    def put_locked(self, key: str, value: Any, token: str, now_s: float) -> bool:
        """Write if `token` holds the lock of `key`; return whether it does."""
        if self.holder(key, now_s) != token:
            return False
        self.put(key, value, now_s)
        return True

    def is_fresh(self, key: str, now_s: float, within_s: float) -> bool:
        """Whether `key` was written within the last `within_s` seconds."""
        entry = self._entries.get(key)
        return entry is not None and now_s - entry.written_s <= within_s
