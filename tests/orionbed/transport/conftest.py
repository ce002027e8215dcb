"""Endpoints that find one another, what they deliver, and a look that they leave nothing behind."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from orionbed.transport.endpoint import Delivery, Endpoint

TOKEN = b"the run's secret"


class Peer:
    """An endpoint that notes down what comes, and what fails."""

    def __init__(self, index: int, **settings: Any) -> None:
        self.delivered: list[Delivery] = []
        self.lost: list[tuple[int, bytes, int, str]] = []
        self._condition = threading.Condition()
        settings = {"token": TOKEN, "patience_s": 5.0} | settings
        self.endpoint = Endpoint(index, deliver=self._deliver, failed=self._failed, **settings)

    def _deliver(self, delivery: Delivery) -> None:
        with self._condition:
            self.delivered.append(delivery)
            self._condition.notify_all()

    def _failed(self, *what: Any) -> None:
        with self._condition:
            self.lost.append(what)
            self._condition.notify_all()

    def wait_for(self, count: int, within_s: float = 30.0) -> list[Delivery]:
        """Return what was delivered as soon as there is so much of it."""
        with self._condition:
            assert self._condition.wait_for(lambda: len(self.delivered) >= count, within_s), len(self.delivered)
            return list(self.delivered)

    def wait_for_loss(self, count: int = 1, within_s: float = 30.0) -> list[tuple[int, bytes, int, str]]:
        """Return what has failed as soon as there is so much of it."""
        with self._condition:
            assert self._condition.wait_for(lambda: len(self.lost) >= count, within_s), len(self.lost)
            return list(self.lost)


Peers = Callable[..., list[Peer]]


def num_open() -> tuple[int, int]:
    """Return how many threads and how many descriptors this process has."""
    return threading.active_count(), len(list(Path(f"/proc/{os.getpid()}/fd").iterdir()))


def introduce(peers: list[Peer]) -> None:
    """Tell all peers where the others listen."""
    for one in peers:
        for other in peers:
            one.endpoint.set_address(other.endpoint.index, other.endpoint.address)


@pytest.fixture(name="peers")
def _peers() -> Iterator[Peers]:
    made: list[Peer] = []
    before = num_open()

    def make(count: int, **settings: Any) -> list[Peer]:
        found = [Peer(len(made) + i, **settings) for i in range(count)]
        made.extend(found)
        introduce(made)
        return found

    yield make
    for peer in made:
        peer.endpoint.close()
    deadline = time.monotonic() + 5.0
    while num_open() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert num_open() <= before, [thread.name for thread in threading.enumerate()]
