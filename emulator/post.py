"""Messages between peers over the production transport, for runs in virtual time: whoever needs one waits for it."""

import threading
from typing import Final

from orionbed.transport.endpoint import Address, Delivery, Endpoint

WAIT_S: Final = 120.0


class PostError(ConnectionError):
    """A message did not come, or could not be delivered."""


class Post:
    """One peer's endpoint, and the messages that lie here until the peer takes them."""

    def __init__(self, index: int, token: bytes, host: str) -> None:
        self._arrived: dict[tuple[int, int], tuple[bytes, memoryview]] = {}
        self._lost = ""
        self._condition = threading.Condition()
        self.bytes_sent = 0
        self.bytes_received = 0
        self._endpoint = Endpoint(index, token=token, deliver=self._deliver, failed=self._failed, host=host)

    @property
    def address(self) -> Address:
        """Where this peer listens."""
        return self._endpoint.address

    def meet(self, addresses: dict[int, Address]) -> None:
        """Say where the other peers listen."""
        for peer, address in addresses.items():
            self._endpoint.set_address(peer, address)

    def send(self, target: int, header: bytes, body: bytes, *, control: bool = False) -> int:
        """Send a message and return its number; it lies with the other peer until that takes it."""
        self.bytes_sent += len(body)
        return self._endpoint.send(target, header, body, control=control)

    def take(self, source: int, number: int) -> tuple[bytes, memoryview]:
        """Wait for a message and return header and body. Raises PostError when it does not come."""
        with self._condition:
            if not self._condition.wait_for(lambda: self._lost or (source, number) in self._arrived, WAIT_S):
                raise PostError(f"message {number} of peer {source} did not come within {WAIT_S:g} s")
            if self._lost:
                raise PostError(self._lost)
            return self._arrived.pop((source, number))

    def close(self) -> None:
        """Close everything."""
        self._endpoint.close()

    def _deliver(self, delivery: Delivery) -> None:
        with self._condition:
            self._arrived[delivery.source, delivery.sequence] = (delivery.header, delivery.body)
            self.bytes_received += len(delivery.body)
            self._condition.notify_all()

    def _failed(self, target: int, _header: bytes, sequence: int, reason: str) -> None:
        with self._condition:
            self._lost = f"message {sequence} to peer {target} was not delivered: {reason}"
            self._condition.notify_all()
