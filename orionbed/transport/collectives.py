"""All-reduce, broadcast, all-gather and barrier from messages between ranks, on tensors in the host's memory."""

from collections.abc import Callable
from typing import Final, Protocol

import torch
from torch import Tensor

Reduce = Callable[[Tensor, Tensor], object]

REDUCTIONS: Final[dict[str, Reduce]] = {
    "SUM": lambda into, other: into.add_(other),
    "AVG": lambda into, other: into.add_(other),
    "PRODUCT": lambda into, other: into.mul_(other),
    "MIN": lambda into, other: torch.minimum(into, other, out=into),
    "MAX": lambda into, other: torch.maximum(into, other, out=into),
}


class Ranks(Protocol):
    """How a rank speaks with the others. What is given is copied; messages between two ranks keep their order."""

    rank: int
    size: int

    def give(self, target: int, tensor: Tensor) -> None: ...
    def get(self, source: int, tensor: Tensor) -> None: ...


def all_reduce(ranks: Ranks, tensor: Tensor, operation: str) -> None:
    """Reduce a contiguous tensor over all ranks, in place: around a ring, 2 (n - 1) / n of its bytes in and out.

    Every element is reduced in one order, so that all ranks hold the same bits. ValueError: an unknown operation.
    """
    if operation not in REDUCTIONS:
        raise ValueError(f"cannot reduce by {operation}: choose from {', '.join(REDUCTIONS)}")
    rank, size = ranks.rank, ranks.size
    parts = tensor.view(-1).tensor_split(size)
    right, left = (rank + 1) % size, (rank - 1) % size
    for step in range(size - 1):
        ranks.give(right, parts[(rank - step) % size])
        mine = parts[(rank - step - 1) % size]
        theirs = torch.empty_like(mine)
        ranks.get(left, theirs)
        REDUCTIONS[operation](mine, theirs)
    if operation == "AVG":
        parts[right].div_(size)
    for step in range(size - 1):
        ranks.give(right, parts[(right - step) % size])
        ranks.get(left, parts[(rank - step) % size])


def broadcast(ranks: Ranks, tensor: Tensor, root: int) -> None:
    """Give the root's tensor to all ranks, along a binomial tree."""
    size = ranks.size
    place = (ranks.rank - root) % size  # counted from the root
    reach = 1
    while reach < size:
        if place < reach and place + reach < size:
            ranks.give((place + reach + root) % size, tensor)
        elif reach <= place < 2 * reach:
            ranks.get((place - reach + root) % size, tensor)
        reach *= 2


def all_gather(ranks: Ranks, tensors: list[Tensor], own: Tensor) -> None:
    """Fill `tensors` (one per rank) with the ranks' own, around a ring."""
    rank, size = ranks.rank, ranks.size
    tensors[rank].copy_(own)
    for step in range(size - 1):
        ranks.give((rank + 1) % size, tensors[(rank - step) % size])
        ranks.get((rank - 1) % size, tensors[(rank - step - 1) % size])


def barrier(ranks: Ranks) -> None:
    """Wait until all ranks are here: in round k each tells the one 2**k further on."""
    nothing = torch.empty(0, dtype=torch.uint8)
    reach = 1
    while reach < ranks.size:
        ranks.give((ranks.rank + reach) % ranks.size, nothing)
        ranks.get((ranks.rank - reach) % ranks.size, nothing)
        reach *= 2
