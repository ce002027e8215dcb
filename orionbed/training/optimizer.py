"""Optimizer steps on flat tensors.

torch.optim would do, were it not that making its first optimizer imports torch's compiler: 3.7 s and 86 MB, which every
process of an emulation would pay. What is here agrees with it to rounding; a test compares the two. On a GPU AdamW is
torch's fused one all the same: step by step it would need room for two more tensors as long as the weights.
"""

from typing import TYPE_CHECKING, ClassVar, Final, Protocol

from orionbed.scenario.training import InnerOptimizer

if TYPE_CHECKING:
    from torch import Tensor


class Optimizer(Protocol):
    """How weights follow from gradients."""

    @property
    def moments(self) -> "list[Tensor]":
        """What is remembered from step to step beside their number; each is as long as the weights."""
        ...

    def step(self, weights: "Tensor", gradients: "Tensor", number: int) -> None:
        """Change the weights in place; `number` counts the steps from 1."""
        ...


class Sgd:
    """Plain stochastic gradient descent."""

    def __init__(self, learning_rate: float) -> None:
        self.learning_rate = learning_rate
        self.moments: list[Tensor] = []

    def step(self, weights: "Tensor", gradients: "Tensor", number: int) -> None:  # noqa: ARG002
        weights.sub_(gradients, alpha=self.learning_rate)


class AdamW:
    """Adam with decoupled weight decay (Loshchilov and Hutter, arXiv 1711.05101), the decay on every weight."""

    BETAS: ClassVar = (0.9, 0.95)
    EPSILON: Final = 1e-8
    DECAY: Final = 0.01

    def __init__(self, learning_rate: float, weights: "Tensor") -> None:
        import torch

        self.learning_rate = learning_rate
        self.moments = [torch.zeros_like(weights), torch.zeros_like(weights)]

    def step(self, weights: "Tensor", gradients: "Tensor", number: int) -> None:
        first, second = self.moments
        beta_first, beta_second = self.BETAS
        first.lerp_(gradients, 1 - beta_first)
        second.mul_(beta_second).addcmul_(gradients, gradients, value=1 - beta_second)
        weights.mul_(1 - self.learning_rate * self.DECAY)
        scale = (second / (1 - beta_second**number)).sqrt_().add_(self.EPSILON)
        weights.addcdiv_(first, scale, value=-self.learning_rate / (1 - beta_first**number))


class FusedAdamW:
    """The same in one kernel of torch's."""

    def __init__(self, learning_rate: float, weights: "Tensor") -> None:
        import torch

        self._parameter = torch.nn.Parameter(weights)
        self._number = torch.zeros((), dtype=torch.float32, device=weights.device)
        self.moments = [torch.zeros_like(weights), torch.zeros_like(weights)]
        self._optimizer = torch.optim.AdamW(
            [self._parameter], learning_rate, AdamW.BETAS, AdamW.EPSILON, AdamW.DECAY, fused=True
        )
        first, second = self.moments
        self._optimizer.state[self._parameter] = {"step": self._number, "exp_avg": first, "exp_avg_sq": second}

    def step(self, weights: "Tensor", gradients: "Tensor", number: int) -> None:
        assert weights.data_ptr() == self._parameter.data_ptr(), "it was made for these weights"
        self._number.fill_(number - 1)
        self._parameter.grad = gradients
        self._optimizer.step()


NAMES: Final = ("sgd", "adamw")


def make_optimizer(settings: InnerOptimizer, weights: "Tensor") -> Optimizer:
    """Return the optimizer of some settings for these weights, which must stay where they are.

    Raises:
        ValueError: there is none of this name.

    """
    if settings.kind == "sgd":
        return Sgd(settings.learning_rate)
    if settings.kind == "adamw":
        return (AdamW if weights.device.type == "cpu" else FusedAdamW)(settings.learning_rate, weights)
    raise ValueError(f"there is no optimizer '{settings.kind}'; choose one of {', '.join(NAMES)}")
