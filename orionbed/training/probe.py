"""The reconstruction attack: which token stood at a position, guessed from what crosses a boundary there.

Whoever holds a later stage sees these tensors all the time. With text of his own he can learn what they mean: here a
softmax regression (a linear probe), or one with a hidden layer, fitted on some text and tried on other text. What it
finds is a lower bound of what is there: a better attack finds more.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import cos, pi
from typing import TYPE_CHECKING, Final

from orionbed.streams import Streams
from orionbed.training.boundaries.packing import packing_of
from orionbed.training.data import Batches
from orionbed.training.optimizers.rules import AdamW
from orionbed.training.worker import StageWorker

if TYPE_CHECKING:
    from torch import Tensor, nn

STEPS: Final = 300
BATCH: Final = 1024
LEARNING_RATE: Final = 0.05
HIDDEN_LEARNING_RATE: Final = 0.005


@dataclass(frozen=True, slots=True)
class Seen:
    """What an attacker sees and wants: `values` (tokens, width) at positions where `tokens` (tokens,) stood."""

    values: "Tensor"
    tokens: "Tensor"


@dataclass(frozen=True, slots=True)
class Guessed:
    """Share of tokens that the probe names, beside that of naming the most frequent token always."""

    accuracy: float
    majority: float


def captured(
    workers: Sequence[StageWorker], batches: Batches, numbers: Iterable[int], offset: int = 0
) -> dict[int, Seen]:
    """Return by chunk what it hands on of some micro-batches, unpacked, with the tokens `offset` positions further on.

    `workers` hold all chunks of the model between them, none twice, and forget what they have done here. Positions
    without such a token are left out.
    """
    import torch

    holder = by_chunk(workers)
    shape = workers[0].shape
    packing = packing_of(shape)
    values: dict[int, list[Tensor]] = {chunk: [] for chunk in range(shape.num_chunks - 1)}
    wanted: list[Tensor] = []
    for number in numbers:
        crossing: Tensor | None = None
        wanted.append(_moved(batches(number)[0], offset, of_tokens=True))
        for chunk, parts in values.items():
            crossing = holder[chunk].forward(chunk, number, crossing)
            assert crossing is not None, "all chunks but the last hand something on"
            holder[chunk].forget(number)
            plain = crossing if packing is None else packing.unpack(crossing)
            parts.append(_moved(plain, offset, of_tokens=False).float().cpu())
    tokens = torch.cat(wanted)
    return {chunk: Seen(torch.cat(parts), tokens) for chunk, parts in values.items()}


def by_chunk(workers: Iterable[StageWorker]) -> dict[int, StageWorker]:
    """Return who holds each chunk."""
    return {chunk: worker for worker in workers for chunk in worker.chunks}


def _moved(tensor: "Tensor", offset: int, *, of_tokens: bool) -> "Tensor":
    """Return the positions that have a partner `offset` further on, or those partners, of all sequences in a row."""
    length = tensor.shape[1]
    start, end = max(0, -offset), min(length, length - offset)
    shift = offset if of_tokens else 0
    return tensor[:, start + shift : end + shift].flatten(0, 1)


def probe(known: Seen, secret: Seen, vocab: int, seed: int, *, hidden: int | None = None) -> Guessed:
    """Return how well a probe that was fitted to `known` names the tokens of `secret`. The same seed, the same result.

    With `hidden` it has one hidden layer of that width; the default is linear.
    """
    import torch

    mean, deviation = known.values.mean(dim=0), known.values.std(dim=0).clamp_min(1e-6)
    guess = _fitted((known.values - mean) / deviation, known.tokens, vocab, seed, hidden)
    guesses = guess((secret.values - mean) / deviation).argmax(dim=-1)
    most = torch.bincount(known.tokens, minlength=vocab).argmax()
    accuracy, majority = (found.float().mean().item() for found in (guesses == secret.tokens, secret.tokens == most))
    return Guessed(accuracy, majority)


def _fitted(values: "Tensor", tokens: "Tensor", vocab: int, seed: int, hidden: int | None) -> "nn.Module":
    """Return a probe that was fitted by AdamW without decay, whose rate falls to nothing like a cosine."""
    import torch
    from torch import nn

    random = Streams(seed).get("training/probe")
    width = values.shape[-1]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(random.integers(1 << 31)))
        inner: list[nn.Module] = [] if hidden is None else [nn.Linear(width, hidden), nn.GELU()]
        model = nn.Sequential(*inner, nn.Linear(hidden or width, vocab))
    highest = LEARNING_RATE if hidden is None else HIDDEN_LEARNING_RATE
    weights = list(model.parameters())
    rules = [AdamW(torch.zeros_like(w), torch.zeros_like(w), beta=0.9, decay=0.0) for w in weights]
    for number in range(1, STEPS + 1):
        rows = torch.from_numpy(random.integers(len(tokens), size=min(BATCH, len(tokens))))
        loss = nn.functional.cross_entropy(model(values[rows]), tokens[rows])
        rate = highest * (1.0 + cos(pi * (number - 1) / STEPS)) / 2.0
        for rule, weight, gradient in zip(rules, weights, torch.autograd.grad(loss, weights), strict=True):
            rule.step(weight.data, gradient, rate, number)
    return model.requires_grad_(requires_grad=False)
