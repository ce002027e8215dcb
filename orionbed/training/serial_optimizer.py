"""The optimizers of the unpipelined reference: torch's own, one group of parameters per chunk."""

from collections.abc import Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

from orionbed.scenario.training import InnerOptimizer
from orionbed.training.optimizers.build import ADAM_MOMENTUM, momentum_of
from orionbed.training.optimizers.muon import COEFFICIENTS, RMS_OF_ADAM, STEPS
from orionbed.training.optimizers.rules import EPSILON, SECOND_BETA, NAdam

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from torch.nn import Parameter

    from orionbed.training.modules import Chunk


class SerialOptimizer:
    """Steps of a whole model: the gradient of each chunk clipped by itself, a rate that warms up, torch's rules."""

    def __init__(self, settings: InnerOptimizer, modules: "Sequence[Chunk]") -> None:
        import torch

        self._clips: list[tuple[list[Parameter], float]] = []
        if settings.clip is not None:
            counts = [sum(parameter.numel() for parameter in module.parameters()) for module in modules]
            self._clips = [
                (list(module.parameters()), settings.clip * (count / sum(counts)) ** 0.5)
                for module, count in zip(modules, counts, strict=True)
            ]
        self._optimizers = _optimizers_of(settings, modules)
        steps = max(1, settings.warm_up)
        self._rates = [
            torch.optim.lr_scheduler.LambdaLR(optimizer, lambda done: min(1.0, (done + 1) / steps))
            for optimizer in self._optimizers
        ]

    def step(self) -> None:
        """Apply the gradients, and forget them."""
        import torch

        for parameters, largest in self._clips:
            torch.nn.utils.clip_grad_norm_(parameters, largest)
        for optimizer, rate in zip(self._optimizers, self._rates, strict=True):
            optimizer.step()
            rate.step()
            optimizer.zero_grad()


def _optimizers_of(settings: InnerOptimizer, modules: "Sequence[Chunk]") -> "list[torch.optim.Optimizer]":
    import torch

    momenta = [momentum_of(settings, chunk, len(modules)) for chunk in range(len(modules))]
    everything = [parameter for module in modules for parameter in module.parameters()]
    rate, decay = settings.learning_rate, settings.weight_decay
    if settings.kind == "sgd":
        return [torch.optim.SGD(everything, rate, momentum=momenta[0])]
    if settings.kind == "adamw":
        return [_adamw(everything, settings, momenta[0])]
    if settings.kind == "nadam":
        groups: list[dict[str, Any]] = [
            {"params": list(module.parameters()), "betas": (beta, SECOND_BETA)}
            for module, beta in zip(modules, momenta, strict=True)
        ]
        optimizer = torch.optim.NAdam(
            groups, rate, eps=EPSILON, weight_decay=decay, momentum_decay=NAdam.WARMING, decoupled_weight_decay=True
        )
        for parameter in everything:
            # As torch begins, but for the number format of the product of momenta, which else is float32.
            optimizer.state[parameter] = {
                "step": torch.zeros(()),
                "mu_product": torch.ones((), dtype=torch.float64),
                "exp_avg": torch.zeros_like(parameter),
                "exp_avg_sq": torch.zeros_like(parameter),
            }
        return [optimizer]
    in_blocks = chain.from_iterable(module.blocks.parameters() for module in modules)
    matrices = [parameter for parameter in in_blocks if parameter.dim() == 2]
    taken = {id(parameter) for parameter in matrices}
    others = [parameter for parameter in everything if id(parameter) not in taken]
    return [_muon(matrices, settings, momenta[0]), _adamw(others, settings, ADAM_MOMENTUM)]


def _adamw(parameters: "list[Parameter]", settings: InnerOptimizer, beta: float) -> "torch.optim.Optimizer":
    import torch

    return torch.optim.AdamW(
        parameters,
        settings.learning_rate,
        betas=(beta, SECOND_BETA),
        eps=EPSILON,
        weight_decay=settings.weight_decay,
    )


def _muon(matrices: "list[Parameter]", settings: InnerOptimizer, momentum: float) -> "torch.optim.Optimizer":
    """Return SGD that is given Muon's updates as gradients; torch.optim.Muon would compute them in bfloat16."""
    import torch

    velocities = [torch.zeros_like(matrix) for matrix in matrices]

    def replace(*_: object) -> None:
        for matrix, velocity in zip(matrices, velocities, strict=True):
            assert matrix.grad is not None
            velocity.mul_(momentum).add_(matrix.grad)
            update = _orthogonal(matrix.grad + momentum * velocity)
            matrix.grad = RMS_OF_ADAM * max(matrix.shape) ** 0.5 * update

    optimizer = torch.optim.SGD(matrices, settings.learning_rate, weight_decay=settings.weight_decay)
    optimizer.register_step_pre_hook(replace)
    return optimizer


def _orthogonal(matrix: "Tensor") -> "Tensor":
    import torch

    a, b, c = COEFFICIENTS
    matrix = matrix / torch.linalg.matrix_norm(matrix)
    for _ in range(STEPS):
        # From whichever side the square is smaller.
        if matrix.shape[0] <= matrix.shape[1]:
            square = matrix @ matrix.T
            matrix = a * matrix + (b * square + c * square @ square) @ matrix
        else:
            square = matrix.T @ matrix
            matrix = a * matrix + matrix @ (b * square + c * square @ square)
    return matrix
