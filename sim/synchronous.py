"""Peers that send one message at a time, each until it has arrived, and take none from a peer they are sending to."""

from collections import deque
from collections.abc import Callable
from typing import Any

from sim.network import Network
from sim.peer import SimPeer

Message = tuple[Any, ...]
"""What the engine sends; sender and receiver are its fourth and fifth entries."""


class Outboxes:
    """What synchronous peers have yet to get through: the first message of each is on its way."""

    def __init__(self, network: Network, num_bytes: float, arrive: Callable[[Any], object]) -> None:
        self._network = network
        self._num_bytes = num_bytes
        self._arrive = arrive
        self._waiting: dict[int, deque[Message]] = {}

    def send(self, message: Message) -> None:
        """Send when everything that its sender sent before has arrived."""
        waiting = self._waiting.setdefault(message[3].index, deque())
        waiting.append(message)
        if len(waiting) == 1:
            self._start(message)

    def arrived(self, sender: SimPeer) -> None:
        """The message that `sender` had on its way has arrived: its next one goes."""
        waiting = self._waiting[sender.index]
        waiting.popleft()
        if waiting:
            self._start(waiting[0])

    def engages(self, peer: SimPeer) -> bool:
        """Whether `peer` is sending to the one that its next action has its input from."""
        partner = peer.policy.partner()
        return partner is not None and any(m[4].index == partner for m in self._waiting.get(peer.index, ()))

    def clear(self, peer: SimPeer) -> None:
        """Forget what `peer` has not got through."""
        self._waiting.pop(peer.index, None)

    def _start(self, message: Message) -> None:
        self._network.send(message[3].index, message[4].index, self._num_bytes, self._arrive, message)
