"""Bytes that go to and from the object store for something else than first weights and merges."""

from collections.abc import Callable
from typing import Any

from sim.network import Network
from sim.transfer import Transfer

_MANY = 1024


class StoreTraffic:
    """Moves bytes to and from the store and keeps count of what really moved, cut-off transfers included."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._moved = {True: 0.0, False: 0.0}
        self._open: list[tuple[bool, Transfer]] = []

    def up(self, peer: int, size_bytes: float, done: Callable[[Any], object], arg: Any) -> Transfer:
        """Start to upload; `done(arg)` when the last byte has arrived."""
        return self._note(self._network.to_storage(peer, size_bytes, done, arg), is_up=True)

    def down(self, peer: int, size_bytes: float, done: Callable[[Any], object], arg: Any) -> Transfer:
        """Start to download; `done(arg)` when the last byte has arrived."""
        return self._note(self._network.from_storage(peer, size_bytes, done, arg), is_up=False)

    def _note(self, transfer: Transfer, *, is_up: bool) -> Transfer:
        self._open.append((is_up, transfer))
        if len(self._open) > _MANY:
            self._settle()
        return transfer

    def _settle(self) -> None:
        """Add up what has come to an end, and keep the rest."""
        still_open = []
        for is_up, transfer in self._open:
            if self._network.left(transfer) > 0.0:
                still_open.append((is_up, transfer))
            else:
                self._moved[is_up] += transfer.size_bytes - getattr(transfer, "destroyed_bytes", 0.0)
        self._open = still_open

    def moved(self) -> tuple[float, float]:
        """Return the bytes that the store has taken in, and that were read from it, so far."""
        self._settle()
        total = self._moved.copy()
        for is_up, transfer in self._open:
            total[is_up] += transfer.size_bytes - self._network.left(transfer)
        return total[True], total[False]
