"""Matrix multiplies by shape, and the other kernels that a profile's efficiencies stand for."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from orionbed.training.shape import ModelShape
from real.calibration.measure import Clock, Effort, Mark, Timed, Times, measure, median_of

if TYPE_CHECKING:
    from torch import Tensor

DIRECTIONS: Final = ("forward", "input_gradient", "weight_gradient")
SQUARES: Final = {"cpu": (1024, 2048), "cuda": (8192, 16384)}
"""Sizes of the square multiplies whose best rate is the measured peak."""
SIZES: Final = {"cpu": (64, 128, 256, 512, 1024), "cuda": (256, 512, 1024, 2048, 4096)}
"""Smallest dimensions at which multiplies are timed, beside those of the model itself; the others are twice as large."""
STREAMED_BYTES: Final = {"cpu": 128 * 2**20, "cuda": 2**30}
NUM_LAUNCHES: Final = 200

Multiply = tuple[int, int, int]
"""Rows, inner dimension, columns."""


@dataclass(frozen=True, slots=True)
class Rates:
    """What kernels of a device reach: FLOP/s of multiplies by shape and of attention, bytes/s, seconds of a launch."""

    square_flops: dict[int, float]
    matmul_flops: dict[Multiply, dict[str, float]]
    attention_flops: dict[str, float]
    streamed_bytes_per_s: float
    launch_s: float

    @property
    def best_flops(self) -> float:
        """The best rate of any multiply that was timed: the measured peak."""
        others = (rate for rates in self.matmul_flops.values() for rate in rates.values())
        return max((*self.square_flops.values(), *others))

    def by_smallest_dimension(self) -> dict[int, dict[str, float]]:
        """Return median rates by smallest dimension and direction, rising."""
        sizes = sorted({min(shape) for shape in self.matmul_flops})
        return {
            size: {
                direction: median_of(
                    [rates[direction] for shape, rates in self.matmul_flops.items() if min(shape) == size]
                )
                for direction in DIRECTIONS
            }
            for size in sizes
        }


def multiplies_of(shape: ModelShape, *, head: bool = True) -> set[Multiply]:
    """Return the multiplies of a model's forward."""
    tokens, hidden = shape.tokens, shape.hidden
    found = {
        (tokens, hidden, hidden),
        (tokens, hidden, shape.kv_heads * shape.head_width),
        (tokens, hidden, shape.ffn),
        (tokens, shape.ffn, hidden),
    }
    if head:
        found.add((tokens, hidden, shape.vocab))
    if shape.boundary is not None:
        found |= {(tokens, hidden, shape.boundary), (tokens, shape.boundary, hidden)}
    return found


def measure_rates(shape: ModelShape, device: str, clock: Clock, effort: Effort, *, head: bool = True) -> Rates:
    """Time kernels in the number format of `shape` on a device, none of them held in memory longer than it takes."""
    squares = {
        size: 2.0 * size**3 / median_of(_times(clock, effort, _square(shape, size, device))["forward"])
        for size in SQUARES[device]
    }
    wanted = {(size, 2 * size, 2 * size) for size in SIZES[device]} | multiplies_of(shape, head=head)
    matmuls = {}
    for multiply in sorted(wanted):
        times = _times(clock, effort, _multiply(shape, multiply, device))
        flops = 2.0 * multiply[0] * multiply[1] * multiply[2]
        matmuls[multiply] = {direction: flops / median_of(times[direction]) for direction in DIRECTIONS}
    times = _times(clock, effort, _attention(shape, device))
    counted = 2.0 * shape.hidden * shape.sequence * shape.tokens
    attention = {
        "forward": counted / median_of(times["forward"]),
        "backward": 2.0 * counted / median_of(times["backward"]),
    }
    streamed = _times(clock, effort, _stream(device))["copy"]
    launches = _times(clock, effort, _launches(device))["launches"]
    return Rates(
        squares,
        matmuls,
        attention,
        2.0 * STREAMED_BYTES[device] / median_of(streamed),
        median_of(launches) / NUM_LAUNCHES,
    )


def _times(clock: Clock, effort: Effort, timed: Timed) -> Times:
    return measure([timed], clock, effort)[timed.name]


def _square(shape: ModelShape, size: int, device: str) -> Timed:
    one, other = (_random(shape, (size, size), device) for _ in range(2))

    def run(mark: Mark) -> None:
        mark()
        one @ other
        mark()

    return Timed("square", ("forward",), run)


def _multiply(shape: ModelShape, multiply: Multiply, device: str) -> Timed:
    """Return a multiply and its two gradients, laid out in memory as linear layers have them."""
    rows, inner, columns = multiply
    inputs, weight, gradient = (
        _random(shape, size, device) for size in ((rows, inner), (columns, inner), (rows, columns))
    )

    def run(mark: Mark) -> None:
        mark()
        inputs @ weight.t()
        mark()
        gradient @ weight
        mark()
        gradient.t() @ inputs
        mark()

    return Timed("multiply", DIRECTIONS, run)


def _attention(shape: ModelShape, device: str) -> Timed:
    import torch
    from torch.nn import functional

    query, key, value = attention_inputs(shape, device)
    gradient = torch.randn_like(query)

    def run(mark: Mark) -> None:
        mark()
        result = functional.scaled_dot_product_attention(
            query, key, value, is_causal=True, enable_gqa=shape.kv_heads != shape.heads
        )
        mark()
        torch.autograd.grad(result, (query, key, value), gradient)
        mark()

    return Timed("attention", ("forward", "backward"), run)


def attention_inputs(shape: ModelShape, device: str) -> "tuple[Tensor, Tensor, Tensor]":
    """Return queries, keys and values of one micro-batch, (sequences, heads, sequence, head width)."""
    sizes = [(shape.sequences, heads, shape.sequence, shape.head_width) for heads in (shape.heads, shape.kv_heads)]
    query, key, value = (_random(shape, size, device).requires_grad_() for size in (sizes[0], sizes[1], sizes[1]))
    return query, key, value


def _stream(device: str) -> Timed:
    import torch

    source, target = (torch.zeros(STREAMED_BYTES[device], dtype=torch.uint8, device=device) for _ in range(2))

    def run(mark: Mark) -> None:
        mark()
        target.copy_(source)
        mark()

    return Timed("stream", ("copy",), run)


def _launches(device: str) -> Timed:
    import torch

    small = torch.zeros(8, device=device)

    def run(mark: Mark) -> None:
        mark()
        for _ in range(NUM_LAUNCHES):
            small.add_(1.0)
        mark()

    return Timed("launches", ("launches",), run)


def _random(shape: ModelShape, size: Sequence[int], device: str) -> "Tensor":
    import torch

    return torch.randn(*size, device=device, dtype=torch.float32).to(shape.torch_dtype)
