"""The whole model in one piece, with the mean weights of each stage's replicas: to evaluate it, and to let it write."""

from collections.abc import Sequence
from statistics import fmean
from typing import TYPE_CHECKING

import numpy as np

from orionbed.streams import Streams
from orionbed.training.boundaries.sending import Boundaries
from orionbed.training.data import Batches
from orionbed.training.outer import Values, weighted_mean
from orionbed.training.player import Player

if TYPE_CHECKING:
    from torch import Tensor

TEMPERATURE = 0.8
"""Of written text: below 1 the likely is likelier still."""


class WholeModel:
    """All chunks, whose weights are taken from a player's peers. What is learned is not touched by it.

    The weights of a stage are the mean over its peers, each with the work done since its last merge as weight, as a
    merge would give them. A peer that has dropped everything and done nothing since counts as away.
    """

    def __init__(self, player: Player, seed: int) -> None:
        from orionbed.training.modules import make_chunk

        self._player = player
        self.shape = player.shape
        self._modules = [make_chunk(player.shape, chunk, seed) for chunk in range(player.shape.num_chunks)]

    def take_means(self) -> None:
        """Take the mean weights of every stage."""
        for stage in range(self._player.plan.num_stages):
            weights, works = zip(*self._present(stage), strict=True)
            self._load(stage, weighted_mean(np.stack([_values(each) for each in weights]), works))

    def take_first(self) -> None:
        """Take the weights of one peer of each stage, the first that is there."""
        for stage in range(self._player.plan.num_stages):
            self._load(stage, _values(self._present(stage)[0][0]))

    def _present(self, stage: int) -> "list[tuple[Tensor, int]]":
        """Return weights and work of those who are there; without anybody what the last merge has left."""
        seats = [seat for seat in self._player.seats if seat.stage == stage]
        there = [seat for seat in seats if not seat.away] or seats
        return [(seat.worker.weights(), seat.work) for seat in there] or [(self._player.merges.weights[stage], 0)]

    def _load(self, stage: int, values: Values) -> None:
        import torch

        flat, start = torch.from_numpy(values), 0
        with torch.no_grad():
            for chunk in self._player.plan.chunks_of(stage):
                for parameter in self._modules[chunk].parameters():
                    end = start + parameter.numel()
                    parameter.copy_(flat[start:end].view_as(parameter))
                    start = end

    def loss(self, batches: Batches, numbers: Sequence[int]) -> float:
        """Return the mean loss per token over some micro-batches, in nats."""
        import torch

        from orionbed.training.layers import mean_loss

        found = []
        with torch.no_grad():
            for number in numbers:
                tokens, targets = batches(number)
                found.append(mean_loss(self._logits(tokens), targets).item())
        return fmean(found)

    def write(self, prompts: "Tensor", num_tokens: int, seed: int) -> "Tensor":
        """Return prompts, int64 (texts, tokens), each with so many tokens more, drawn one by one."""
        import torch

        uniform = Streams(seed).get("training/samples").random((num_tokens, len(prompts)))
        text = prompts
        with torch.no_grad():
            for draws in uniform:
                recent = text[:, -self.shape.sequence :]
                logits = self._logits(self._filled(recent))[:, recent.shape[1] - 1]
                odds = torch.softmax(logits.double() / TEMPERATURE, dim=-1).cumsum(dim=-1)
                drawn = torch.searchsorted(odds, torch.from_numpy(draws)[:, None]).clamp(max=odds.shape[-1] - 1)
                text = torch.cat((text, drawn), dim=1)
        return text

    def _logits(self, tokens: "Tensor") -> "Tensor":
        """Return logits, (texts, tokens, vocab), by way of all boundaries; nothing is fed back from text to text."""
        from orionbed.training.boundaries.crossing import cross

        boundaries = Boundaries(self.shape)
        crossing = tokens
        for chunk, module in enumerate(self._modules):
            crossing = module.without_loss(crossing)
            if not self.shape.is_last(chunk):
                crossing = cross(crossing, boundaries, chunk)
        return crossing

    def _filled(self, tokens: "Tensor") -> "Tensor":
        """Fill up to the length that the model knows; what comes later is not looked at by what comes before."""
        from torch.nn import functional

        return functional.pad(tokens, (0, self.shape.sequence - tokens.shape[1]))


def _values(weights: "Tensor") -> Values:
    found: Values = weights.cpu().double().numpy()
    return found
