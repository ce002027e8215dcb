"""The pieces that stages are put together from, each alone with its passes as a peer does them."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from orionbed.scenario.measurements import NARROWING, PassTimes, Piece
from orionbed.scenario.training import InnerOptimizer
from orionbed.training.shape import ModelShape
from real.calibration.measure import Mark, Timed, Times, spread_of

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module, Parameter

    from orionbed.training.layers import Deferral

LAYERS_IN_A_GRAPH: Final = 2
"""A layer is timed as half of two in one graph: alone it keeps its weights in a processor's cache and costs 1 to 5 %
more per graph than it does inside a stage (measured on a CPU with layers of width 512)."""

STEP_SIZES: Final = {"cpu": (10**6, 4 * 10**6, 16 * 10**6), "cuda": (10**7, 10**8, 10**9)}
"""Parameters of the optimizer steps that are timed beside those of whole stages."""
OPTIMIZER: Final = InnerOptimizer(learning_rate=1e-6)
"""So slow that hundreds of steps on noise leave the weights what they are."""

SECTIONS: Final = ("forward", "backward", "forward_again", "input_gradient", "weight_gradient")


@dataclass(slots=True)
class Bench:
    """One piece with its input: forward and backward, then forward and the backward in its two halves."""

    call: "Callable[[Tensor], Tensor]"
    inputs: "Tensor"
    gradient: "Tensor | None"
    deferral: "Deferral"
    immediate: "list[Parameter]"

    def run(self, mark: Mark) -> None:
        """Do all passes, marking their ends."""
        import torch

        mark()
        output = self._forward()[1]
        mark()
        torch.autograd.backward(output, self.gradient)
        mark()
        entered, output = self._forward()
        mark()
        wanted = ([entered] if entered.requires_grad else []) + self.immediate
        with self.deferral.collecting() as pending:
            found = list(torch.autograd.grad(output, wanted, self.gradient))
        mark()
        self._finish(found[len(found) - len(self.immediate) :], pending)
        mark()

    def _forward(self) -> "tuple[Tensor, Tensor]":
        entered = self.inputs.detach()
        if entered.is_floating_point():
            entered.requires_grad_()
        return entered, self.call(entered)

    def _finish(self, found: "list[Tensor]", pending: "list[tuple[Parameter, Tensor, Tensor]]") -> None:
        from orionbed.training.layers import weight_gradient

        for parameter, gradient in zip(self.immediate, found, strict=True):
            _accumulate(parameter, gradient)
        for parameter, inputs, gradient in pending:
            _accumulate(parameter, weight_gradient(inputs, gradient))


def _accumulate(parameter: "Parameter", gradient: "Tensor") -> None:
    assert parameter.grad is not None
    parameter.grad.add_(gradient)


def pieces_of(shape: ModelShape, device: str) -> list[Timed]:
    """Return the pieces of stages of `shape`, ready to be timed."""
    found = [
        Timed("layer", SECTIONS, _layers(shape, device).run),
        Timed("embedding", SECTIONS, _end(shape, 0, device).run),
        Timed("head", SECTIONS, _end(shape, 1, device).run),
    ]
    if shape.matrix_width is not None:
        found += [Timed(name, SECTIONS, _narrowing(shape, name, device).run) for name in NARROWING]
    return found


def _layers(shape: ModelShape, device: str) -> Bench:
    import torch

    from orionbed.training.modules import make_chunk

    alone = replace(shape, layers_per_chunk=(0, LAYERS_IN_A_GRAPH, 0), boundary=None, recompute=False)
    chunk = make_chunk(alone, 1, 0, device)
    stream = _stream(shape, shape.hidden, device)
    return _ready(chunk, Bench(chunk.without_loss, stream, torch.randn_like(stream), chunk.deferral, chunk.immediate()))


def _end(shape: ModelShape, which: int, device: str) -> Bench:
    """Return the embedding (0), or final norm, head and loss (1)."""
    from orionbed.training import data
    from orionbed.training.modules import make_chunk

    alone = replace(shape, layers_per_chunk=(0, 0), boundary=None, recompute=False)
    chunk = make_chunk(alone, which, 0, device)
    tokens, targets = (each.to(device) for each in data.batch(alone, 0, 0))
    stream = _stream(shape, shape.hidden, device)
    if which == 0:
        return _ready(chunk, Bench(chunk.without_loss, tokens, stream, chunk.deferral, chunk.immediate()))
    return _ready(
        chunk, Bench(lambda entered: chunk(entered, targets), stream, None, chunk.deferral, chunk.immediate())
    )


def _narrowing(shape: ModelShape, name: Piece, device: str) -> Bench:
    import torch

    from orionbed.training.boundaries.ends import NEAR_ZERO, Decoder, Encoder
    from orionbed.training.layers import Deferral

    assert shape.matrix_width is not None
    deferral = Deferral()
    with torch.device(device):
        module = (Encoder if name == "encoder" else Decoder)(shape, shape.matrix_width, deferral)
    with torch.no_grad():
        module.projection.last.normal_(0.0, NEAR_ZERO)
    wide, narrow = (_stream(shape, width, device) for width in (shape.hidden, shape.matrix_width))
    entering, leaving = (wide, narrow) if name == "encoder" else (narrow, wide)
    return _ready(module, Bench(module, entering, leaving, deferral, []))


def _ready(module: "Module", bench: Bench) -> Bench:
    """Give the parameters a place for their gradients, as they have in a stage."""
    import torch

    for parameter in module.parameters():
        parameter.grad = torch.zeros_like(parameter)
    return bench


def optimizer_steps(shape: ModelShape, device: str, sizes: Iterable[int]) -> list[Timed]:
    """Return optimizer steps over so many parameters, as a stage takes them, ready to be timed."""
    return [_step(shape, device, size) for size in sizes]


def _step(shape: ModelShape, device: str, size: int) -> Timed:
    import torch

    from orionbed.training.optimizers.build import make_optimizer
    from orionbed.training.optimizers.layout import one_piece

    weights = torch.randn(size, device=device).to(shape.torch_dtype)
    gradients = torch.zeros_like(weights)
    optimizer = make_optimizer(OPTIMIZER, weights, one_piece(size))

    def run(mark: Mark) -> None:
        mark()
        gradients.div_(1)
        optimizer.step(weights, gradients, 1)
        gradients.zero_()
        mark()

    return Timed(f"step {size}", ("step",), run)


def _stream(shape: ModelShape, width: int, device: str) -> "Tensor":
    import torch

    return torch.randn(shape.sequences, shape.sequence, width, device=device).to(shape.torch_dtype)


def pass_times(name: str, times: Times) -> PassTimes:
    """Return what a profile says of a piece, given its times."""
    per = LAYERS_IN_A_GRAPH if name == "layer" else 1
    return PassTimes(
        forward=spread_of(times["forward"] + times["forward_again"], per=per),
        input_gradient=spread_of(times["input_gradient"], per=per),
        weight_gradient=spread_of(times["weight_gradient"], per=per),
    )
