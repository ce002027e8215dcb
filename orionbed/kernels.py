"""Single kernels of one GPU: matrix multiplies, memory-bound kernels and collectives, in seconds and FLOPs.

Matrix multiplies run at a measured share of peak that depends on their shape, and never faster than memory delivers
their operands (a roofline); everything else is bound by memory bandwidth; each kernel costs a launch. Collectives
between the GPUs of one peer are rings.
"""

from dataclasses import dataclass, replace
from itertools import pairwise
from math import log

from orionbed.model import BYTES_PER_VALUE
from orionbed.scenario import GpuProfile
from orionbed.traffic import BACKWARD_FACTOR


@dataclass(frozen=True, slots=True)
class Work:
    """Seconds and FLOPs of a piece of model: its forward and the two halves of its backward.

    The input gradient holds everything that the previous layer's backward waits for, attention and memory-bound kernels
    included; the weight gradient holds the multiplies that only the optimizer waits for.
    """

    forward_s: float = 0.0
    input_gradient_s: float = 0.0
    weight_gradient_s: float = 0.0
    forward_flops: float = 0.0
    input_gradient_flops: float = 0.0
    weight_gradient_flops: float = 0.0

    @property
    def backward_s(self) -> float:
        """Seconds of both halves of the backward."""
        return self.input_gradient_s + self.weight_gradient_s

    @property
    def backward_flops(self) -> float:
        """FLOPs of both halves of the backward."""
        return self.input_gradient_flops + self.weight_gradient_flops

    def __add__(self, other: "Work") -> "Work":
        return Work(
            self.forward_s + other.forward_s,
            self.input_gradient_s + other.input_gradient_s,
            self.weight_gradient_s + other.weight_gradient_s,
            self.forward_flops + other.forward_flops,
            self.input_gradient_flops + other.input_gradient_flops,
            self.weight_gradient_flops + other.weight_gradient_flops,
        )

    def times(self, count: int) -> "Work":
        """Return `count` such pieces one after the other."""
        return Work(
            count * self.forward_s,
            count * self.input_gradient_s,
            count * self.weight_gradient_s,
            count * self.forward_flops,
            count * self.input_gradient_flops,
            count * self.weight_gradient_flops,
        )

    def on(self, gpus: int) -> "Work":
        """Return the same seconds with the FLOPs of `gpus` GPUs that all do this at the same time."""
        return replace(
            self,
            forward_flops=gpus * self.forward_flops,
            input_gradient_flops=gpus * self.input_gradient_flops,
            weight_gradient_flops=gpus * self.weight_gradient_flops,
        )

    def taking(self, forward_s: float, input_gradient_s: float, weight_gradient_s: float) -> "Work":
        """Return the same FLOPs with other seconds, for pieces that were measured."""
        return replace(
            self, forward_s=forward_s, input_gradient_s=input_gradient_s, weight_gradient_s=weight_gradient_s
        )


def peak_of(gpu: GpuProfile, dtype: str) -> float:
    """FLOP/s that matrix multiplies of this number format could reach on one GPU."""
    return gpu.peak if dtype != "fp32" or gpu.peak_fp32 is None else gpu.peak_fp32


class Kernels:
    """Times single kernels on one GPU, and collectives between the `gpus` GPUs of one peer.

    `efficiency` is `by-shape` (measured, per kernel) or one share of peak for everything inside a stage: then memory
    traffic, launches and collectives take no time of their own. `kernel_scale` multiplies the measured shares.
    `link_bytes_per_s` is the rate between the GPUs in one direction; `None` takes the profile's.
    """

    def __init__(
        self,
        gpu: GpuProfile,
        efficiency: str | float = "by-shape",
        kernel_scale: float = 1.0,
        *,
        gpus: int = 1,
        link_bytes_per_s: float | None = None,
    ) -> None:
        self.gpu = gpu
        self.flat = None if isinstance(efficiency, str) else efficiency
        self.kernel_scale = kernel_scale
        self.gpus = gpus
        self.link_bytes_per_s = gpu.link if link_bytes_per_s is None else link_bytes_per_s
        assert gpus == 1 or self.link_bytes_per_s is not None, "several GPUs per peer need a link between them"

    def matmul_efficiency(self, smallest_dimension: int, direction: str) -> float:
        """Share of peak of a matrix multiply, interpolated over the logarithm of its smallest dimension.

        `direction` is `forward`, `input_gradient` or `weight_gradient`. Above the measured range the last value
        holds; below it the share falls in proportion to the dimension.
        """
        points = [(float(p.smallest_dimension), float(getattr(p, direction))) for p in self.gpu.matmul]
        size = float(smallest_dimension)
        if size <= points[0][0]:
            return points[0][1] * self.kernel_scale * min(1.0, size / points[0][0])
        for (low, at_low), (high, at_high) in pairwise(points):
            if size <= high:
                share = log(size / low) / log(high / low)
                return (at_low + share * (at_high - at_low)) * self.kernel_scale
        return points[-1][1] * self.kernel_scale

    def matmul(self, rows: int, inner: int, columns: int, dtype: str = "bf16") -> Work:
        """Return the work of a (rows x inner) @ (inner x columns) multiply and of its two gradients, on one GPU."""
        flops = 2.0 * rows * inner * columns
        if self.flat is not None:
            seconds = flops / (peak_of(self.gpu, dtype) * self.flat)
            return Work(seconds, seconds, seconds, flops, flops, flops)
        smallest = min(rows, inner, columns)
        # All three multiplies touch the same three matrices.
        memory_s = self.traffic_s(
            float(BYTES_PER_VALUE[dtype] * (rows * inner + inner * columns + rows * columns)), kernels=0
        )
        forward_s, input_gradient_s, weight_gradient_s = (
            max(flops / (peak_of(self.gpu, dtype) * self.matmul_efficiency(smallest, direction)), memory_s)
            + self.gpu.launch
            for direction in ("forward", "input_gradient", "weight_gradient")
        )
        return Work(forward_s, input_gradient_s, weight_gradient_s, flops, flops, flops)

    def batched_matmuls_s(self, flops: float, num_bytes: float, kernels: int, dtype: str) -> float:
        """Seconds of batched multiplies of which one dimension is a head's: multiply and traffic one after the other.

        A head is one or two tiles wide, so within a block of the kernel loading, multiplying and storing have nothing
        to overlap with. The share of peak is that of the smallest measured multiplies. Assumed, with the 1.3 ms of an
        attention core in view that Korthikanti et al. 2022 publish (arXiv 2205.05198, table 4).
        """
        if self.flat is not None:
            return flops / (peak_of(self.gpu, dtype) * self.flat)
        share = self.gpu.matmul[0].forward * self.kernel_scale
        return flops / (peak_of(self.gpu, dtype) * share) + self.traffic_s(num_bytes, kernels)

    def traffic_s(self, num_bytes: float, kernels: int) -> float:
        """Seconds that memory-bound kernels need for `num_bytes`; zero where one efficiency covers everything."""
        if self.flat is not None:
            return 0.0
        return num_bytes / (self.gpu.memory_bandwidth * self.gpu.memory_efficiency) + kernels * self.gpu.launch

    def elementwise(
        self,
        forward_bytes: float,
        kernels: int,
        backward_bytes: float | None = None,
        backward_kernels: int | None = None,
    ) -> Work:
        """Return the work of memory-bound kernels; unless given, the backward moves twice the forward's bytes."""
        if backward_bytes is None:
            backward_bytes = BACKWARD_FACTOR * forward_bytes
        if backward_kernels is None:
            backward_kernels = BACKWARD_FACTOR * kernels
        return Work(self.traffic_s(forward_bytes, kernels), self.traffic_s(backward_bytes, backward_kernels))

    def all_reduce_s(self, num_bytes: float, kernels: int = 1) -> float:
        """Seconds of a ring all-reduce of `num_bytes` between the GPUs of the peer.

        A reduce-scatter and an all-gather move the same bytes as `kernels=2` collectives.
        """
        if self.gpus == 1 or self.flat is not None:
            return 0.0
        assert self.link_bytes_per_s is not None
        moved = 2 * (self.gpus - 1) / self.gpus * num_bytes
        return moved / (self.link_bytes_per_s * self.gpu.link_efficiency) + kernels * self.gpu.link_delay
