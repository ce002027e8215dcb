"""Matrix multiplies by shape, and the other kernels that a profile's efficiencies stand for."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from orionbed.training.shape import ModelShape
from real.calibration.measure import Clock, Effort, Mark, Timed, Times, clock_of, measure, median_of

if TYPE_CHECKING:
    import torch
    from torch import Tensor

DIRECTIONS: Final = ("forward", "input_gradient", "weight_gradient")
NUM_LAUNCHES: Final = 200

Multiply = tuple[int, int, int]
"""Rows, inner dimension, columns."""


@dataclass(frozen=True, slots=True)
class Grid:
    """What is timed beside the model's own multiplies.

    `squares` are the sizes of square multiplies, `sizes` the smallest dimensions of multiplies whose others are twice
    as large, `streamed_bytes` the size of the tensor that is copied.
    """

    squares: tuple[int, ...]
    sizes: tuple[int, ...]
    streamed_bytes: int


GRIDS: Final = {
    "cpu": Grid((1024, 2048), (64, 128, 256, 512, 1024), 128 * 2**20),
    "cuda": Grid((8192, 16384), (256, 512, 1024, 2048, 4096), 2**30),
}
SMALL_GRID: Final = Grid((128,), (16, 32), 2**20)
"""For trying things out: what it finds is no device's peak."""


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


def multiplies_of(shape: ModelShape) -> set[Multiply]:
    """Return the multiplies of a model's forward."""
    tokens, hidden = shape.tokens, shape.hidden
    found = {
        (tokens, hidden, hidden),
        (tokens, hidden, shape.kv_heads * shape.head_width),
        (tokens, hidden, shape.ffn),
        (tokens, shape.ffn, hidden),
        (tokens, hidden, shape.vocab),
    }
    if shape.matrix_width is not None:
        found |= {(tokens, hidden, shape.matrix_width), (tokens, shape.matrix_width, hidden)}
    return found


def measure_rates(shape: ModelShape, device: str, clock: Clock, effort: Effort, *, grid: Grid | None = None) -> Rates:
    """Time kernels in the number format of `shape` on a device, none of them held in memory longer than it takes."""
    grid = grid or GRIDS[device]
    squares = {
        size: 2.0 * size**3 / median_of(_times(clock, effort, _square(size, shape.torch_dtype, device))["forward"])
        for size in grid.squares
    }
    wanted = {(size, 2 * size, 2 * size) for size in grid.sizes} | multiplies_of(shape)
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
    streamed = _times(clock, effort, _stream(grid.streamed_bytes, device))["copy"]
    launches = _times(clock, effort, _launches(device))["launches"]
    return Rates(
        squares,
        matmuls,
        attention,
        2.0 * grid.streamed_bytes / median_of(streamed),
        median_of(launches) / NUM_LAUNCHES,
    )


def measured_peak(dtype: str, *, threads: int = 1, repetitions: int = 10) -> float:
    """Return the best FLOP/s of large square multiplies on this CPU, in a number format of torch's like float32."""
    import torch

    from orionbed.training.threads import with_threads

    best = 0.0
    with with_threads(threads):
        for size in GRIDS["cpu"].squares:
            timed = _square(size, getattr(torch, dtype), "cpu")
            seconds = _times(clock_of("cpu", threads), Effort(repetitions, warm_up=2), timed)["forward"]
            best = max(best, 2.0 * size**3 / median_of(seconds))
    return best


def _times(clock: Clock, effort: Effort, timed: Timed) -> Times:
    return measure([timed], clock, effort)[timed.name]


def _square(size: int, dtype: "torch.dtype", device: str) -> Timed:
    one, other = (_random(dtype, (size, size), device) for _ in range(2))

    def run(mark: Mark) -> None:
        mark()
        one @ other
        mark()

    return Timed("square", ("forward",), run)


def _multiply(shape: ModelShape, multiply: Multiply, device: str) -> Timed:
    """Return a multiply and its two gradients, laid out in memory as linear layers have them."""
    rows, inner, columns = multiply
    inputs, weight, gradient = (
        _random(shape.torch_dtype, size, device) for size in ((rows, inner), (columns, inner), (rows, columns))
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
    query, key, value = (
        _random(shape.torch_dtype, size, device).requires_grad_() for size in (sizes[0], sizes[1], sizes[1])
    )
    return query, key, value


def _stream(num_bytes: int, device: str) -> Timed:
    import torch

    source, target = (torch.zeros(num_bytes, dtype=torch.uint8, device=device) for _ in range(2))

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


def _random(dtype: "torch.dtype", size: Sequence[int], device: str) -> "Tensor":
    import torch

    return torch.randn(*size, device=device, dtype=torch.float32).to(dtype)
