"""A training under way: lines are played one by one, losses noted, held-out text evaluated now and then."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from orionbed.learning.curve import Curve, HeldOut
from orionbed.learning.material import Material
from orionbed.learning.planning import Planned
from orionbed.learning.whole import WholeModel
from orionbed.script import Line
from orionbed.training.player import Player

if TYPE_CHECKING:
    from torch import Tensor

PROMPT_TOKENS = 16
"""Tokens of held-out text that a sample begins with."""


class Playing(NamedTuple):
    """How far a training has got: lines of the script, micro-batches learned from, their tokens, the rolling loss."""

    lines: int
    of_lines: int
    microbatches: int
    tokens: int
    loss: float


class Learning:
    """What a training is at: the peers with their weights, the curve so far, and the next line of the script."""

    def __init__(self, planned: Planned, lines: Sequence[Line], material: Material, seed: int) -> None:
        training = planned.plan.scenario.training
        self.planned, self.lines, self.material, self.seed = planned, lines, material, seed
        self.training = training
        self.player = Player(
            planned.plan, planned.shape, lines, seed=seed, optimizer=training.optimizer, batches=material.batches
        )
        self.whole = WholeModel(self.player, seed)
        self.curve = Curve(planned.shape.tokens, training.rolling)
        self.held_out: list[HeldOut] = []
        self.next_line = 0

    def go(
        self, progress: Callable[[Playing], None] | None = None, pause: "Callable[[Learning], None] | None" = None
    ) -> None:
        """Play to the end; `pause` is called after every line."""
        for number in range(self.next_line, len(self.lines)):
            self.player.play(number)
            self.next_line = number + 1
            if self.player.used:
                self._learned()
                if progress is not None:
                    progress(self.playing)
            if pause is not None:
                pause(self)
        if self.held_out and self.held_out[-1].microbatches == len(self.curve.points):
            self.held_out.pop()  # it came before the last step and the last merge
        self.evaluate()

    @property
    def playing(self) -> Playing:
        """How far it has got."""
        count = len(self.curve.points)
        return Playing(self.next_line, len(self.lines), count, count * self.planned.shape.tokens, self.curve.rolling)

    def _learned(self) -> None:
        self.curve.extend(self.player.used)
        self.player.used.clear()
        every = self.training.evaluate_every
        if every is not None and len(self.curve.points) % every == 0:
            self.evaluate()

    def evaluate(self) -> None:
        """Evaluate the mean of the replicas on held-out text."""
        self.whole.take_means()
        last = self.curve.points[-1] if self.curve.points else None
        count, at_s, tokens = (len(self.curve.points), last.at_s, last.tokens) if last is not None else (0, 0.0, 0)
        self.held_out.append(HeldOut(count, at_s, tokens, self._loss()))

    def loss_of_first(self) -> float:
        """Return the held-out loss of one peer of each stage."""
        self.whole.take_first()
        return self._loss()

    def _loss(self) -> float:
        return self.whole.loss(self.material.held_out, range(self.training.evaluation_microbatches))

    def samples(self) -> list[str]:
        """Return texts that the mean of the replicas writes, each behind some held-out text."""
        import torch

        if not self.training.samples:
            return []
        self.whole.take_means()
        prompts: list[Tensor] = []
        while len(prompts) < self.training.samples:
            tokens, _ = self.material.held_out(len(prompts))
            prompts.append(tokens[0, :PROMPT_TOKENS])
        written = self.whole.write(torch.stack(prompts), self.training.sample_tokens, self.seed)
        return [self.material.decode(text.tolist()) for text in written]
