"""Synthetic text: a Markov chain over the vocabulary, which a small model learns in a few dozen steps.

Every symbol is followed by one of four others, the same four for the whole run, with unequal odds; sequences start with
symbols whose frequency falls like that of words. The entropy is 1.14 nats per token, against ln(vocab) of a guess.
"""

from collections.abc import Callable
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from orionbed.streams import Streams
from orionbed.training.shape import ModelShape

if TYPE_CHECKING:
    from torch import Tensor

Batches = Callable[[int], "tuple[Tensor, Tensor]"]
"""From the number of a micro-batch to its tokens and targets, each int64 of shape (sequences, sequence)."""

ODDS: Final = (0.5, 0.3, 0.15, 0.05)  # of the four successors of a symbol


def batch(shape: ModelShape, seed: int, microbatch: int) -> "tuple[Tensor, Tensor]":
    """Return tokens and targets of one micro-batch, each int64 of shape (sequences, sequence).

    They depend on the shape, the seed and the number of the micro-batch alone, so the first and the last peer of a
    pipeline, and every replica, draw the same without a message. A target is the token that follows.
    """
    return _drawn(shape, seed, f"training/data/{microbatch}")


def held_out(shape: ModelShape, seed: int, microbatch: int) -> "tuple[Tensor, Tensor]":
    """Return a micro-batch for evaluation: of the same chain, and none that `batch` gives."""
    return _drawn(shape, seed, f"training/held-out/{microbatch}")


def synthetic(shape: ModelShape, seed: int) -> Batches:
    """Return the synthetic micro-batches of a run."""
    return partial(batch, shape, seed)


def _drawn(shape: ModelShape, seed: int, stream: str) -> "tuple[Tensor, Tensor]":
    import torch

    successors, starts = _chain(seed, shape.vocab)
    uniform = Streams(seed).get(stream).random((shape.sequences, shape.sequence + 1))
    text = np.empty((shape.sequences, shape.sequence + 1), dtype=np.int64)
    text[:, 0] = np.searchsorted(starts, uniform[:, 0], side="right")
    which = np.searchsorted(np.cumsum(ODDS[:-1]), uniform, side="right")
    for position in range(1, shape.sequence + 1):
        text[:, position] = successors[text[:, position - 1], which[:, position]]
    return torch.from_numpy(text[:, :-1].copy()), torch.from_numpy(text[:, 1:].copy())


@lru_cache(maxsize=8)
def _chain(seed: int, vocab: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Successors of each symbol, and the cumulative frequencies of first symbols without the last one."""
    successors = Streams(seed).get("training/chain").integers(vocab, size=(vocab, len(ODDS)))
    frequency = 1.0 / np.arange(1, vocab + 1)
    return successors, (np.cumsum(frequency) / frequency.sum())[:-1]
