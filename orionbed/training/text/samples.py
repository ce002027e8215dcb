"""From the number of a micro-batch to its tokens: which sequences of a text it has, in every epoch others.

The tokens of all documents stand in one row, documents in the order of their source with a separator behind each, cut
into sequences that share one token, the last target of one being the first token of the next. Sequences of an epoch are
shuffled and dealt to micro-batches: number n is micro-batch n mod P of epoch n div P, if an epoch has P. First-stage
peers number what they create by their replica, `ordinal * num_replicas + replica`: so replica r of R trains on the
micro-batches n with n mod R = r, and no two on the same.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from orionbed.scenario.training import FileData, HubData, ParquetData
from orionbed.streams import Streams
from orionbed.training.text.documents import documents
from orionbed.training.text.held_out import HeldOut
from orionbed.training.text.problems import TextError
from orionbed.training.text.tokenizer import Tokens, make_tokenizer
from orionbed.training.text.tokens import TokenRow

if TYPE_CHECKING:
    from torch import Tensor

TextData = FileData | ParquetData | HubData
BLOCK: Final = 1024
"""Sequences of a stream that are shuffled among themselves: its end is not known, and reading ahead costs time."""


@dataclass(frozen=True, slots=True)
class Cut:
    """What of a model's shape a text must fit: sequences of a micro-batch, tokens of a sequence, the vocabulary."""

    sequences: int
    sequence: int
    vocab: int


class Samples:
    """The micro-batches of a text. Each depends on text, cut, seed and number alone, not on what was asked for before.

    Raises TextError: the text cannot be read, or is shorter than one micro-batch.
    """

    def __init__(self, data: TextData, cut: Cut, seed: int) -> None:
        self._data, self._cut, self._seed = data, cut, seed
        self._tokenizer = make_tokenizer(data.tokenizer)
        if cut.vocab < self._tokenizer.size:
            text = f"has {self._tokenizer.size} tokens, more than the model's vocab of {cut.vocab}; raise model.vocab"
            raise TextError("tokenizer", text)
        self._row = TokenRow(documents(data), self._tokenizer)
        self._is_stream = not isinstance(data, FileData)
        if not self._is_stream:
            self._row.read_all()
        self._held_out = HeldOut.of(data.held_out, None if self._is_stream else self._num_sequences())
        self._permuted = lru_cache(maxsize=8)(self._permutation)
        self._need_one()

    def __call__(self, number: int) -> "tuple[Tensor, Tensor]":
        """Return tokens and targets of a micro-batch, each int64 of shape (sequences, sequence)."""
        epoch, index = self.place(number)
        first = index * self._cut.sequences
        ranks = [self._shuffled(epoch, position) for position in range(first, first + self._cut.sequences)]
        return self._tensors([self._held_out.training(rank) for rank in ranks])

    def held_out(self, number: int) -> "tuple[Tensor, Tensor]":
        """Return tokens and targets of a micro-batch for evaluation; they begin anew when all have been."""
        size = self._cut.sequences
        positions = range(number * size, (number + 1) * size)
        if not self._data.held_out:
            raise TextError("held_out", "is 0, so that there is nothing to evaluate on; write a share, like 0.05")
        if self._is_stream and self._row.reach(self._tokens_for(self._held_out.held_out(positions[-1]))):
            return self._tensors([self._held_out.held_out(position) for position in positions])
        count = self._held_out.num_held_out(self._num_sequences())
        if not count:
            text = f"{self._num_sequences()} sequences of {self._cut.sequence} tokens are too few to hold out any"
            raise TextError("held_out", f"{text} of them; give more text, or a larger share")
        order = range(count) if self._is_stream else self._permuted("held-out", 0, count)
        return self._tensors([self._held_out.held_out(int(order[position % count])) for position in positions])

    def sample(self, number: int) -> str:
        """Return what a journal calls the sample of a micro-batch: epoch and number in it, each used once."""
        epoch, index = self.place(number)
        return f"{epoch}/{index}"

    @property
    def per_epoch(self) -> int | None:
        """Micro-batches of an epoch; None for a stream that has not been read to its end."""
        return self._num_training() // self._cut.sequences if self._row.ended else None

    def place(self, number: int) -> tuple[int, int]:
        """Return the epoch of a micro-batch and its number in it. A stream is read as far as that, at most to its end.

        A negative number, of a warm-up, gets some micro-batch of the first epoch.
        """
        if number < 0:
            number = -1 - number
        if not self._row.ended:
            last = (number + 1) * self._cut.sequences - 1
            self._row.reach(self._tokens_for(self._held_out.training(last)))
        per_epoch = self.per_epoch
        if per_epoch is None or number < per_epoch:
            return 0, number
        return divmod(number, per_epoch)

    # ---------------------------------------------------------------- sequences

    def _shuffled(self, epoch: int, position: int) -> int:
        """Return the rank among all sequences to train on of the one at a position of an epoch."""
        if not self._is_stream:
            return int(self._permuted(f"epoch/{epoch}", 0, self._num_training())[position])
        block = position // BLOCK
        first = block * BLOCK
        count = BLOCK
        if not self._row.reach(self._tokens_for(self._held_out.training(first + BLOCK - 1))):
            count = min(BLOCK, self._num_training() - first)
        return first + int(self._permuted(f"epoch/{epoch}", block, count)[position - first])

    def _permutation(self, what: str, block: int, count: int) -> NDArray[np.int64]:
        return Streams(self._seed).get(f"training/text/{what}/{block}").permutation(count)

    def _num_sequences(self) -> int:
        return max(0, self._row.num_tokens - 1) // self._cut.sequence

    def _num_training(self) -> int:
        return self._num_sequences() - self._held_out.num_held_out(self._num_sequences())

    def _tokens_for(self, sequence: int) -> int:
        """Return how many tokens there must be for a sequence and the target behind it."""
        return (sequence + 1) * self._cut.sequence + 1

    def _tensors(self, sequences: Sequence[int]) -> "tuple[Tensor, Tensor]":
        import torch

        size = self._cut.sequence
        rows: list[Tokens] = [self._row.get(sequence * size, size + 1) for sequence in sequences]
        text = np.stack(rows)
        return torch.from_numpy(text[:, :-1].copy()), torch.from_numpy(text[:, 1:].copy())

    def _need_one(self) -> None:
        """Complain about a text with less than a micro-batch to train on."""
        sequences = self._cut.sequences
        if self._row.reach(self._tokens_for(self._held_out.training(sequences - 1))):
            return
        key = "name" if isinstance(self._data, HubData) else "path"
        name = getattr(self._data, key)
        if not self._row.num_tokens:
            raise TextError(key, f"{name} has no text in it; give another")
        need = f"one micro-batch of {sequences} x {self._cut.sequence} tokens to train on"
        raise TextError(key, f"{name} has {self._row.num_tokens} tokens, which are less than {need}; give more text")
