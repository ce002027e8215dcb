"""The rules of the optimizers element by element: each knows its moments and changes weights in place.

Moments are handed in, zero at first, and may be views of longer tensors. Steps are counted from 1.
"""

from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from torch import Tensor

SECOND_BETA: Final = 0.95
EPSILON: Final = 1e-8


class Rule(Protocol):
    """How some weights follow from their gradients."""

    def step(self, weights: "Tensor", gradients: "Tensor", rate: float, number: int) -> None:
        """Change the weights in place, in the step of this number and at this learning rate."""
        ...


class Sgd:
    """Stochastic gradient descent, with momentum where there is a tensor for it; without weight decay."""

    def __init__(self, velocity: "Tensor | None", momentum: float) -> None:
        self._velocity, self._momentum = velocity, momentum

    def step(self, weights: "Tensor", gradients: "Tensor", rate: float, number: int) -> None:  # noqa: ARG002
        if self._velocity is not None:
            gradients = self._velocity.mul_(self._momentum).add_(gradients)
        weights.sub_(gradients, alpha=rate)


class AdamW:
    """Adam with decoupled weight decay (Loshchilov and Hutter, arXiv 1711.05101), the decay on every weight."""

    def __init__(self, first: "Tensor", second: "Tensor", *, beta: float, decay: float) -> None:
        self._first, self._second, self._beta, self._decay = first, second, beta, decay

    def step(self, weights: "Tensor", gradients: "Tensor", rate: float, number: int) -> None:
        self._first.lerp_(gradients, 1 - self._beta)
        scale = _scale(self._second, gradients, number)
        weights.mul_(1 - rate * self._decay)
        weights.addcdiv_(self._first, scale, value=-rate / (1 - self._beta**number))


class FusedAdamW:
    """The same in one kernel of torch's, for weights that stay where they are."""

    def __init__(self, weights: "Tensor", first: "Tensor", second: "Tensor", *, beta: float, decay: float) -> None:
        import torch

        self._parameter = torch.nn.Parameter(weights)
        self._number = torch.zeros((), dtype=torch.float32, device=weights.device)
        # It wants a rate, and is told each step's own.
        self._optimizer = torch.optim.AdamW(
            [self._parameter], 1.0, (beta, SECOND_BETA), EPSILON, weight_decay=decay, fused=True
        )
        self._optimizer.state[self._parameter] = {"step": self._number, "exp_avg": first, "exp_avg_sq": second}

    def step(self, weights: "Tensor", gradients: "Tensor", rate: float, number: int) -> None:
        assert weights.data_ptr() == self._parameter.data_ptr(), "it was made for these weights"
        self._number.fill_(number - 1)
        self._parameter.grad = gradients
        self._optimizer.param_groups[0]["lr"] = rate
        self._optimizer.step()


class NAdam:
    """Adam with Nesterov momentum (Dozat 2016) that is warmed up, and decoupled weight decay, as torch.optim.NAdam.

    The momentum of step t is beta (1 - 0.5 * 0.96^(t * WARMING)). With torch's default for the exponent, 0.004, it is
    within 1 % of beta from step 23,958 on; with IOTA's 1 (code, settings.py) from step 96 on.
    """

    WARMING: Final = 1.0

    def __init__(self, first: "Tensor", second: "Tensor", *, beta: float, decay: float) -> None:
        self._first, self._second, self._beta, self._decay = first, second, beta, decay
        self._product, self._product_of = 1.0, 0

    def step(self, weights: "Tensor", gradients: "Tensor", rate: float, number: int) -> None:
        now, following = self.momentum_at(number), self.momentum_at(number + 1)
        product = self._product_at(number)
        self._first.lerp_(gradients, 1 - self._beta)
        scale = _scale(self._second, gradients, number)
        weights.mul_(1 - rate * self._decay)
        weights.addcdiv_(gradients, scale, value=-rate * (1 - now) / (1 - product))
        weights.addcdiv_(self._first, scale, value=-rate * following / (1 - product * following))

    def momentum_at(self, number: int) -> float:
        """Return the momentum of a step."""
        return float(self._beta * (1 - 0.5 * 0.96 ** (number * self.WARMING)))

    def _product_at(self, number: int) -> float:
        """Return the product of all momenta up to a step, from the number alone, so that no state need have it."""
        if number < self._product_of:
            self._product, self._product_of = 1.0, 0
        for step in range(self._product_of + 1, number + 1):
            self._product *= self.momentum_at(step)
        self._product_of = number
        return self._product


def _scale(second: "Tensor", gradients: "Tensor", number: int) -> "Tensor":
    """Take the gradients into the second moment; return its root, without bias, by which Adam divides."""
    second.mul_(SECOND_BETA).addcmul_(gradients, gradients, value=1 - SECOND_BETA)
    return (second / (1 - SECOND_BETA**number)).sqrt_().add_(EPSILON)
