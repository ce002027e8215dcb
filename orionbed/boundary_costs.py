"""What the ends of a boundary cost on a peer: multiplies of narrow layers, passes over memory of packings.

FLOPs of multiplies are counted; a packing executes none that count, and moves bytes. All of it is boundary work, whose
FLOPs are part of HFU and never of MFU, since a model that is not cut has none of it.
"""

from dataclasses import dataclass, replace

from orionbed.compute import CostModel
from orionbed.kernels import Work
from orionbed.model import BYTES_PER_VALUE, Transformer, boundary_token_bytes
from orionbed.scenario.schedules import (
    Boundary,
    NarrowBoundary,
    NoBoundary,
    QuantizeBoundary,
    ResBMBoundary,
    SubspaceBoundary,
    TopKBoundary,
)

# Assumed: one kernel per tensor that has each token's values at hand, as fused quantisation kernels do. Rounding reads
# every value once; choosing the largest reads them twice, for the threshold and to collect. Feedback reads and writes
# what is left out.
QUANTIZE_READS = 1
TOPK_READS = 2
FEEDBACK_PASSES = 2


@dataclass(frozen=True, slots=True)
class Ends:
    """What a chunk does at its entrance and at its exit; of a forward that is done again `again` comes once more."""

    entrance: Work
    exit: Work
    again: Work

    def work(self) -> Work:
        """Return both."""
        return self.entrance + self.exit


def ends_of(
    costs: CostModel, model: Transformer, tokens: int, boundary: Boundary | None, *, is_first: bool, is_last: bool
) -> Ends:
    """Return what a chunk does for boundaries; the first has no entrance and the last no exit.

    The backward of an entrance ends with what sends a gradient, that of an exit begins with what receives one.
    """
    none = Work()
    if boundary is None or isinstance(boundary, NoBoundary):
        return Ends(none, none, none)
    if isinstance(boundary, NarrowBoundary):
        entrance = none if is_first else _narrow(costs, model, tokens, boundary, is_encoder=False)
        leaving = none if is_last else _narrow(costs, model, tokens, boundary, is_encoder=True)
        return Ends(entrance, leaving, entrance + leaving)
    pack_s, unpack_s = _packing_s(costs, model, tokens, boundary)
    entrance = none if is_first else Work(unpack_s, pack_s)
    leaving = none if is_last else Work(pack_s, unpack_s)
    # What came is kept packed; what is done again is not sent again.
    return Ends(entrance, leaving, entrance)


def _narrow(costs: CostModel, model: Transformer, tokens: int, boundary: NarrowBoundary, *, is_encoder: bool) -> Work:
    width = boundary.width
    if isinstance(boundary, SubspaceBoundary):
        # Nothing is trained, so there is no weight gradient.
        return replace(costs.narrowing(model, tokens, width), weight_gradient_s=0.0, weight_gradient_flops=0.0)
    inner = boundary.inner_width if isinstance(boundary, ResBMBoundary) else None
    if inner is None:
        return costs.encoder(model, tokens, width) if is_encoder else costs.decoder(model, tokens, width)
    share = -(-tokens // costs.gpus)
    multiplies = costs.matmul(share, model.hidden, inner, model.dtype) + costs.matmul(share, inner, width, model.dtype)
    each = BYTES_PER_VALUE[model.dtype] * float(share * inner)
    # SiLU reads and writes; its backward reads input and gradient, and writes.
    return multiplies.on(costs.gpus) + costs.elementwise(2 * each, 1, 3 * each, 1)


def _packing_s(
    costs: CostModel, model: Transformer, tokens: int, boundary: QuantizeBoundary | TopKBoundary
) -> tuple[float, float]:
    """Return the seconds of packing a tensor and of unpacking one; tokens are cut over the GPUs of a peer."""
    share = float(-(-tokens // costs.gpus))
    each = BYTES_PER_VALUE[model.dtype]
    whole, packed = model.hidden * each, boundary_token_bytes(model.hidden, each, boundary)
    passes = QUANTIZE_READS if isinstance(boundary, QuantizeBoundary) else TOPK_READS
    if boundary.error_feedback:
        passes += FEEDBACK_PASSES
    scattered = boundary.keep * each if isinstance(boundary, TopKBoundary) else 0
    pack_s = costs.traffic_s(share * (passes * whole + packed), kernels=1)
    return pack_s, costs.traffic_s(share * (packed + whole + scattered), kernels=1)
