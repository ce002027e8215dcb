"""What a router has been told so far, in the process that runs it; and its answers as plain values."""

import operator
from typing import Any

from orionbed.contest.interface import INTERFACE_VERSION, Layer, Miner, Request, State


class Told:
    """The last state of every layer, from which requests are made.

    `cache`, `activation_bytes` and `message_s` are those of every `Request`.
    """

    def __init__(self, num_layers: int, cache: int, activation_bytes: float, message_s: float) -> None:
        self._constant = (cache, activation_bytes, message_s)
        self._miners: list[tuple[Miner, ...]] = [()] * num_layers
        self._at_s = [0.0] * num_layers

    def tell(self, layer: int, at_s: float, told: list[list[Any]]) -> None:
        """Take in the state of a layer at `at_s`; each entry of `told` has the values of a `Miner` in their order."""
        self._miners[layer] = tuple(Miner(miner, tuple(layers), *rest) for miner, layers, *rest in told)
        self._at_s[layer] = at_s

    def request(self, now_s: float, epoch: int, activation: int, completed: list[int], lost: list[int]) -> Request:
        """Return what `route` gets."""
        cache, activation_bytes, message_s = self._constant
        return Request(
            version=INTERFACE_VERSION,
            now_s=now_s,
            epoch=epoch,
            activation=activation,
            layers=self._layers(now_s),
            cache=cache,
            activation_bytes=activation_bytes,
            message_s=message_s,
            completed=tuple(completed),
            lost=tuple(lost),
        )

    def state(self, now_s: float, epoch: int) -> State:
        """Return what `rebalance` gets."""
        return State(INTERFACE_VERSION, now_s, epoch, self._layers(now_s))

    def _layers(self, now_s: float) -> tuple[Layer, ...]:
        return tuple(Layer(miners, now_s - at_s) for miners, at_s in zip(self._miners, self._at_s, strict=True))


def plain_route(answer: Any) -> list[int]:
    """Return an answer of `route` as a list of ints; TypeError says what it is instead. numpy's integers will do."""
    if isinstance(answer, str | bytes | dict) or not hasattr(answer, "__iter__"):
        raise TypeError(f"must return a list of one miner per layer, not {_shown(answer)}")
    return [_whole(value, "the numbers of miners") for value in answer]


def plain_moves(answer: Any) -> dict[int, int]:
    """Return an answer of `rebalance` as a dict of ints; None moves nobody. TypeError as above."""
    if answer is None:
        return {}
    if not hasattr(answer, "items"):
        raise TypeError(f"must return a dict of miner: layer, not {_shown(answer)}")
    text = "the numbers of miners and layers"
    return {_whole(miner, text): _whole(layer, text) for miner, layer in answer.items()}


def _whole(value: Any, what: str) -> int:
    if hasattr(value, "__index__") and not isinstance(value, bool):
        return operator.index(value)
    raise TypeError(f"must return {what}, not {_shown(value)}")


def _shown(value: Any) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"{text[:57]}..."
