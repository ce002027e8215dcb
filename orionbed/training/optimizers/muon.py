"""Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/): momentum made orthogonal, matrix by matrix."""

from typing import TYPE_CHECKING, Final

from orionbed.training.optimizers.layout import Matrix

if TYPE_CHECKING:
    from torch import Tensor

COEFFICIENTS: Final = (3.4445, -4.7750, 2.0315)
"""Of a s + b s^3 + c s^5 (Jordan et al.), which five times over takes all s from 0.01 to 1 to between 0.68 and 1.14."""
STEPS: Final = 5
SMALLEST_NORM: Final = 1e-7
RMS_OF_ADAM: Final = 0.2
"""Root mean square of AdamW's updates over its learning rate: 0.2 to 0.4 (Liu et al., arXiv 2502.16982)."""


class Muon:
    """Nesterov momentum made orthogonal and as long as an update of AdamW, so that one learning rate suits both."""

    def __init__(self, velocity: "Tensor", matrix: Matrix, *, momentum: float, decay: float) -> None:
        self._velocity = velocity
        self._size = matrix.rows, matrix.columns
        self._momentum, self._decay = momentum, decay

    def step(self, weights: "Tensor", gradients: "Tensor", rate: float, number: int) -> None:  # noqa: ARG002
        self._velocity.lerp_(gradients, 1 - self._momentum)
        ahead = gradients.lerp(self._velocity, self._momentum).view(self._size)
        weights.mul_(1 - rate * self._decay)
        # An orthogonal matrix has a root mean square of 1 / sqrt(the longer side).
        weights.view(self._size).add_(orthogonalised(ahead), alpha=-rate * RMS_OF_ADAM * max(self._size) ** 0.5)


def orthogonalised(matrix: "Tensor") -> "Tensor":
    """Return a matrix with its singular values near 1, by Newton-Schulz iterations in its own number format."""
    import torch

    a, b, c = COEFFICIENTS
    tall = matrix.shape[0] > matrix.shape[1]
    result = matrix.T if tall else matrix
    result = result / result.norm().clamp(min=SMALLEST_NORM)
    for _ in range(STEPS):
        gram = result @ result.T
        result = torch.addmm(result, torch.addmm(gram, gram, gram, beta=b, alpha=c), result, beta=a)
    return result.T if tall else result
