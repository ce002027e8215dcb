"""The text that a model is trained on: from the scenario's `training.data` and a micro-batch's number to its tokens.

Nothing is opened before the first micro-batch is asked for: peers in the middle of a pipeline read no text.
"""

import os
from functools import lru_cache, partial
from typing import TYPE_CHECKING

from orionbed.scenario.training import Data, HubData, ParquetData, SyntheticData
from orionbed.training.data import Batches, synthetic
from orionbed.training.data import held_out as synthetic_held_out
from orionbed.training.shape import ModelShape
from orionbed.training.text.problems import TextError
from orionbed.training.text.samples import Cut, Samples, TextData
from orionbed.training.text.tokenizer import Tokenizer, make_tokenizer

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "Samples",
    "TextError",
    "Tokenizer",
    "held_out_batches",
    "make_batches",
    "make_tokenizer",
    "require_text",
    "sample_of",
    "samples_of",
    "vocab_of",
]


def make_batches(data: Data, shape: ModelShape, seed: int) -> Batches:
    """Return what makes the micro-batches to train on: from a number to tokens and targets, (sequences, sequence).

    Numbers that begin with 0 and leave none out use all of the text, epoch after epoch; see `text.samples`. Asking for
    a micro-batch raises TextError when the text is at fault.
    """
    if isinstance(data, SyntheticData):
        return synthetic(shape, seed)
    return partial(_train, data, shape, seed)


def held_out_batches(data: Data, shape: ModelShape, seed: int) -> Batches:
    """Return what makes the micro-batches for evaluation, which are never trained on; numbers begin with 0."""
    if isinstance(data, SyntheticData):
        return partial(synthetic_held_out, shape, seed)
    return partial(_evaluate, data, shape, seed)


def sample_of(data: Data, shape: ModelShape, seed: int, number: int) -> str:
    """Return what a journal calls the sample of a micro-batch; synthetic ones are all different."""
    return str(number) if isinstance(data, SyntheticData) else samples_of(data, shape, seed).sample(number)


def require_text(data: Data, shape: ModelShape, seed: int) -> None:
    """Raise a TextError for a text that cannot be trained on, before anything is started."""
    if not isinstance(data, SyntheticData):
        samples_of(data, shape, seed)


def vocab_of(data: Data, synthetic_vocab: int) -> int:
    """Return the number of tokens there are: the tokenizer's, or with synthetic data what the caller says."""
    return synthetic_vocab if isinstance(data, SyntheticData) else make_tokenizer(data.tokenizer).size


def samples_of(data: TextData, shape: ModelShape, seed: int) -> Samples:
    """Return the micro-batches of a text, opened once per process. A TextError says why it cannot be."""
    # A child that is forked off would write where its parent does, if both went on with one stream.
    is_stream = isinstance(data, ParquetData | HubData)
    cut = Cut(shape.sequences, shape.sequence, shape.vocab)
    return _opened(data, cut, seed, os.getpid() if is_stream else None)


@lru_cache(maxsize=4)
def _opened(data: TextData, cut: Cut, seed: int, _process: int | None) -> Samples:
    return Samples(data, cut, seed)


def _train(data: TextData, shape: ModelShape, seed: int, number: int) -> "tuple[Tensor, Tensor]":
    return samples_of(data, shape, seed)(number)


def _evaluate(data: TextData, shape: ModelShape, seed: int, number: int) -> "tuple[Tensor, Tensor]":
    return samples_of(data, shape, seed).held_out(number)
