"""Makes the optimizer of a scenario for a flat tensor: which rule where, with which momentum, clipped at what norm."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from orionbed.scenario.training import InnerOptimizer
from orionbed.training.optimizers.layout import Layout, Matrix
from orionbed.training.optimizers.muon import Muon
from orionbed.training.optimizers.rules import AdamW, FusedAdamW, NAdam, Rule, Sgd

if TYPE_CHECKING:
    from torch import Tensor

NAMES: Final = ("sgd", "adamw", "nadam", "muon")
"""A saved state has the place in this list; so it only ever grows at the end."""
ADAM_MOMENTUM: Final = 0.9
MUON_MOMENTUM: Final = 0.95
CLIP_EPSILON: Final = 1e-6
"""What torch.nn.utils.clip_grad_norm_ adds to a norm before it divides by it."""


class Optimizer:
    """How the weights of a layout follow from their gradients.

    `moments` is what is remembered from step to step beside their number: flat tensors of the weights' format, which
    may be shorter than the weights.
    """

    def __init__(self, settings: InnerOptimizer, weights: "Tensor", layout: Layout) -> None:
        self.moments: list[Tensor] = []
        self._settings = settings
        self._clips: list[tuple[slice, float]] = []
        if settings.clip is not None:
            for piece in layout.pieces:
                self._clips.append((slice(piece.start, piece.end), settings.clip * layout.share(piece)))
        self._rules: list[tuple[slice, Rule]] = list(self._make_rules(weights, layout))

    def step(self, weights: "Tensor", gradients: "Tensor", number: int) -> None:
        """Change the weights in place, and clip the gradients; `number` counts the steps from 1."""
        for part, largest in self._clips:
            clip(gradients[part], largest)
        rate = rate_at(self._settings, number)
        for part, rule in self._rules:
            rule.step(weights[part], gradients[part], rate, number)

    def _make_rules(self, weights: "Tensor", layout: Layout) -> Iterator[tuple[slice, Rule]]:
        import torch

        settings = self._settings
        everything = slice(0, len(weights))
        momenta = [momentum_of(settings, piece.chunk, layout.num_chunks) for piece in layout.pieces]
        if settings.kind == "sgd":
            self.moments = [torch.zeros_like(weights)] if momenta[0] else []
            yield everything, Sgd(self.moments[0] if momenta[0] else None, momenta[0])
            return
        decay = settings.weight_decay
        if settings.kind == "muon":
            yield from self._make_muon(weights, layout, momenta[0])
            return
        first, second = self.moments = [torch.zeros_like(weights), torch.zeros_like(weights)]
        if settings.kind == "nadam":
            for piece, beta in zip(layout.pieces, momenta, strict=True):
                part = slice(piece.start, piece.end)
                yield part, NAdam(first[part], second[part], beta=beta, decay=decay)
        elif weights.device.type == "cpu":
            yield everything, AdamW(first, second, beta=momenta[0], decay=decay)
        else:
            yield everything, FusedAdamW(weights, first, second, beta=momenta[0], decay=decay)

    def _make_muon(self, weights: "Tensor", layout: Layout, momentum: float) -> Iterator[tuple[slice, Rule]]:
        """Matrices of blocks have one moment, everything else two; the second ones lie close together."""
        import torch

        decay = self._settings.weight_decay
        matrices = [matrix for piece in layout.pieces for matrix in piece.matrices]
        others = list(_between(matrices, len(weights)))
        num_second = sum(part.stop - part.start for part in others)
        first, second = self.moments = [torch.zeros_like(weights), weights.new_zeros(num_second)]
        for matrix in matrices:
            part = slice(matrix.start, matrix.end)
            yield part, Muon(first[part], matrix, momentum=momentum, decay=decay)
        at = 0
        for part in others:
            end = at + part.stop - part.start
            yield part, AdamW(first[part], second[at:end], beta=ADAM_MOMENTUM, decay=decay)
            at = end


def make_optimizer(settings: InnerOptimizer, weights: "Tensor", layout: Layout) -> Optimizer:
    """Return the optimizer of some settings for these weights, which must stay where they are."""
    return Optimizer(settings, weights, layout)


def momentum_of(settings: InnerOptimizer, chunk: int, num_chunks: int) -> float:
    """Return the first momentum of a chunk; with nadam the earlier a stage, the staler its gradients, the more.

    The formula for nadam is that of IOTA's public code (code, model_mixin.py).
    """
    if settings.momentum != "auto":
        return float(settings.momentum)
    if settings.kind == "nadam":
        return 0.9 + 0.09 * (num_chunks - 1 - chunk) / num_chunks
    return {"sgd": 0.0, "adamw": ADAM_MOMENTUM, "muon": MUON_MOMENTUM}[settings.kind]


def rate_at(settings: InnerOptimizer, number: int) -> float:
    """Return the learning rate of a step; they are counted from 1."""
    if number >= settings.warm_up:
        return settings.learning_rate
    return settings.learning_rate * number / settings.warm_up


def clip(gradients: "Tensor", largest: float) -> None:
    """Shorten gradients whose norm is larger to that norm, in place, as torch.nn.utils.clip_grad_norm_ does."""
    import torch

    # A norm of billions of bfloat16 values must not itself be one. Nothing waits for a GPU here.
    wide = torch.float32 if gradients.dtype is torch.bfloat16 else gradients.dtype
    norm = torch.linalg.vector_norm(gradients, dtype=wide)
    gradients.mul_((largest / (norm + CLIP_EPSILON)).clamp(max=1.0))


def _between(matrices: list[Matrix], end: int) -> Iterator[slice]:
    """Return the gaps between matrices, in order."""
    at = 0
    for matrix in matrices:
        if matrix.start > at:
            yield slice(at, matrix.start)
        at = matrix.end
    if end > at:
        yield slice(at, end)
