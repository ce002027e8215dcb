"""How long one stage's operations take on a given GPU.

A stage is a list of kernels. Matrix multiplies run at a measured share of peak that depends on their shape; everything
else is bound by memory bandwidth; each kernel costs a launch. Nothing here looks at a pipeline or a network.
"""

from dataclasses import dataclass
from itertools import pairwise
from math import log

from orionbed import model as arithmetic
from orionbed.model import BYTES_PER_VALUE, Transformer
from orionbed.scenario import GpuProfile

# Bytes a block reads and writes outside its matrix multiplies, in PyTorch without a compiler, per value of width 1 of
# the residual stream and of the feed-forward. Counted tensor by tensor. Residual stream: two RMSNorms computed in fp32
# (to fp32 6, square 8, mean 4, scale 8, back 6, weight 4: 36 each), two residual additions (6 each), rotary embedding
# of q (24). Feed-forward: SiLU (4) and product (6). Backward moves twice as much.
HIDDEN_TRAFFIC_BYTES = 2 * 36 + 2 * 6 + 24
FFN_TRAFFIC_BYTES = 4 + 6
FORWARD_KERNELS_PER_LAYER = 30
BACKWARD_TRAFFIC_FACTOR = 2
# Loss over the vocabulary: logits written, read as fp32 for the maximum and the sum, gradient written in bf16.
LOSS_TRAFFIC_BYTES = 2 + 4 + 4 + 4 + 2
# Tensors an Adam-like step reads and writes when every arithmetic operation is its own kernel, as multi-tensor
# (foreach) optimizers do it: weight, gradient, two moments, and the temporaries between them.
OPTIMIZER_TENSOR_PASSES = 20


@dataclass(frozen=True, slots=True)
class Cost:
    """Seconds and executed FLOPs of one operation, by purpose.

    `model_s` is work any training of this model needs; `recompute_s`, `boundary_s` and `optimizer_s` are the others.
    """

    model_s: float = 0.0
    recompute_s: float = 0.0
    boundary_s: float = 0.0
    optimizer_s: float = 0.0
    model_flops: float = 0.0
    recompute_flops: float = 0.0
    boundary_flops: float = 0.0

    @property
    def duration_s(self) -> float:
        """Seconds from start to end."""
        return self.model_s + self.recompute_s + self.boundary_s + self.optimizer_s

    @property
    def executed_flops(self) -> float:
        """All FLOPs the GPU executes."""
        return self.model_flops + self.recompute_flops + self.boundary_flops

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(*(a + b for a, b in zip(self.as_tuple(), other.as_tuple(), strict=True)))

    def as_tuple(self) -> tuple[float, ...]:
        """All fields in order."""
        return (
            self.model_s,
            self.recompute_s,
            self.boundary_s,
            self.optimizer_s,
            self.model_flops,
            self.recompute_flops,
            self.boundary_flops,
        )


@dataclass(frozen=True, slots=True)
class Work:
    """Seconds and FLOPs of a piece of model, for its forward and its backward."""

    forward_s: float = 0.0
    backward_s: float = 0.0
    forward_flops: float = 0.0
    backward_flops: float = 0.0

    def __add__(self, other: "Work") -> "Work":
        return Work(
            self.forward_s + other.forward_s,
            self.backward_s + other.backward_s,
            self.forward_flops + other.forward_flops,
            self.backward_flops + other.backward_flops,
        )

    def times(self, count: int) -> "Work":
        """Return `count` such pieces one after the other."""
        return Work(
            count * self.forward_s, count * self.backward_s, count * self.forward_flops, count * self.backward_flops
        )


class CostModel:
    """Times the pieces of a transformer on one GPU.

    `efficiency` is `by-shape` (measured, per kernel) or one share of peak for everything inside a stage.
    `kernel_scale` multiplies the measured shares.
    """

    def __init__(self, gpu: GpuProfile, efficiency: str | float = "by-shape", kernel_scale: float = 1.0) -> None:
        self.gpu = gpu
        self.flat = None if isinstance(efficiency, str) else efficiency
        self.kernel_scale = kernel_scale

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

    def matmul(self, rows: int, inner: int, columns: int) -> Work:
        """Return the work of a (rows x inner) @ (inner x columns) multiply and of its two gradients."""
        flops = 2.0 * rows * inner * columns
        if self.flat is not None:
            seconds = flops / (self.gpu.peak * self.flat)
            return Work(seconds, 2 * seconds, flops, 2 * flops)
        smallest = min(rows, inner, columns)
        at = {d: self.matmul_efficiency(smallest, d) for d in ("forward", "input_gradient", "weight_gradient")}
        peak, launch = self.gpu.peak, self.gpu.launch
        backward_s = flops / peak * (1 / at["input_gradient"] + 1 / at["weight_gradient"]) + 2 * launch
        return Work(flops / (peak * at["forward"]) + launch, backward_s, flops, 2 * flops)

    def traffic_s(self, num_bytes: float, kernels: int) -> float:
        """Seconds that memory-bound kernels need for `num_bytes`; zero where one efficiency covers everything."""
        if self.flat is not None:
            return 0.0
        return num_bytes / (self.gpu.memory_bandwidth * self.gpu.memory_efficiency) + kernels * self.gpu.launch

    def attention_core(self, model: Transformer, tokens: int, sequence: int) -> Work:
        """Scores, softmax and values of one block, causal, by a fused kernel."""
        forward = 2.0 * model.hidden * sequence * tokens
        backward = 2.0 * forward
        if self.flat is not None:
            seconds = forward / (self.gpu.peak * self.flat)
            return Work(seconds, 2 * seconds, forward, backward)
        scale = self.gpu.peak * self.kernel_scale
        share = self.gpu.attention
        return Work(
            forward / (scale * share.forward) + self.gpu.launch,
            backward / (scale * share.backward) + self.gpu.launch,
            forward,
            backward,
        )

    def layer(self, model: Transformer, tokens: int, sequence: int) -> Work:
        """One block: seven matrix multiplies, attention, and memory-bound rest."""
        kv = arithmetic.kv_width(model)
        work = self.attention_core(model, tokens, sequence)
        for inner, columns in (
            (model.hidden, model.hidden),
            (model.hidden, kv),
            (model.hidden, kv),
            (model.hidden, model.hidden),
            (model.hidden, model.ffn),
            (model.hidden, model.ffn),
            (model.ffn, model.hidden),
        ):
            work += self.matmul(tokens, inner, columns)
        return work + self._elementwise(
            tokens * (HIDDEN_TRAFFIC_BYTES * model.hidden + FFN_TRAFFIC_BYTES * model.ffn), FORWARD_KERNELS_PER_LAYER
        )

    def _elementwise(self, forward_bytes: float, kernels: int) -> Work:
        return Work(
            self.traffic_s(forward_bytes, kernels),
            self.traffic_s(BACKWARD_TRAFFIC_FACTOR * forward_bytes, BACKWARD_TRAFFIC_FACTOR * kernels),
        )

    def embedding(self, model: Transformer, tokens: int) -> Work:
        """Table look-up: no FLOPs, one read and one write per value; backward adds into the table."""
        return self._elementwise(2.0 * tokens * model.hidden * BYTES_PER_VALUE[model.dtype], 1)

    def head(self, model: Transformer, tokens: int) -> Work:
        """Final norm, logits and loss."""
        return self.matmul(tokens, model.hidden, model.vocab) + self._elementwise(
            tokens * (HIDDEN_TRAFFIC_BYTES / 3 * model.hidden + LOSS_TRAFFIC_BYTES * model.vocab), 12
        )

    def narrowing(self, model: Transformer, tokens: int, width: int) -> Work:
        """One boundary encoder or decoder: a multiply between the model's width and the narrow one."""
        return self.matmul(tokens, model.hidden, width)

    def optimizer_step_s(self, parameters: int, dtype: str) -> float:
        """One local optimizer step over `parameters`."""
        return self.traffic_s(float(parameters * BYTES_PER_VALUE[dtype] * OPTIMIZER_TENSOR_PASSES), 100)
