"""What is learned from: micro-batches to train on, others that are held out, and what their tokens mean."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import log

from orionbed.scenario.training import Data, SyntheticData
from orionbed.training.data import Batches
from orionbed.training.shape import ModelShape
from orionbed.training.text import held_out_batches, make_batches, make_tokenizer, require_text


@dataclass(frozen=True, slots=True)
class Material:
    """Batches to train on and held-out ones, by number; `decode` makes text of tokens; `is_bytes`: each is a byte."""

    batches: Batches
    held_out: Batches
    decode: Callable[[Iterable[int]], str]
    is_bytes: bool

    def bits_per_byte(self, loss: float) -> float | None:
        """Return a mean loss per token in bits per byte, None where tokens are no bytes."""
        return loss / log(2.0) if self.is_bytes else None


def material_of(data: Data, shape: ModelShape, seed: int) -> Material:
    """Return what `training.data` names.

    Raises:
        TextError: it cannot be read, or has nothing to evaluate on.

    """
    require_text(data, shape, seed)
    batches, held_out = make_batches(data, shape, seed), held_out_batches(data, shape, seed)
    held_out(0)  # else it would complain when all is learned
    if isinstance(data, SyntheticData):
        return Material(batches, held_out, _as_numbers, is_bytes=False)
    return Material(batches, held_out, make_tokenizer(data.tokenizer).decode, is_bytes=data.tokenizer == "bytes")


def _as_numbers(tokens: Iterable[int]) -> str:
    return " ".join(map(str, tokens))
