"""What boundaries cost: torch's count of FLOPs, of parameters and of bytes is that of orionbed's arithmetic."""

from types import SimpleNamespace
from typing import Any

import pytest

from orionbed import model as arithmetic
from orionbed.boundary_costs import ends_of
from orionbed.compute import CostModel, Work
from orionbed.emulation import scaled
from orionbed.plan import make_plan
from orionbed.scenario import apply, gpu_profile, load
from orionbed.scenario.schedules import ResBMBoundary
from orionbed.scenario.training import InnerOptimizer
from orionbed.training.shape import ModelShape, parameters_of
from orionbed.training.worker import StageWorker

GPU = gpu_profile("a100-80gb")
SHAPES = [
    {"layers_per_chunk": (1, 1, 1)},
    {"layers_per_chunk": (2, 3, 1), "hidden": 24, "ffn": 40, "heads": 3, "kv_heads": 1, "vocab": 50, "sequence": 5},
]


def matrices(run: Any) -> int:
    """FLOPs of what is called, by torch's own counter, without attention proper, which is made of other operations."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        run()
    return sum(
        flops for op, flops in counter.get_flop_counts()["Global"].items() if str(op) in {"aten.mm", "aten.addmm"}
    )


def counted(shape: ModelShape, chunk: int) -> Work:
    """FLOPs of a chunk's matrices by the cost model, its boundaries included."""
    costs = CostModel(GPU, 1.0)
    names = (
        "layers",
        "hidden",
        "ffn",
        "heads",
        "kv_heads",
        "vocab",
        "tied_embeddings",
        "block",
        "positions",
        "attention",
    )
    model: Any = SimpleNamespace(dtype="fp32", **{name: getattr(shape, name) for name in names})
    layers = shape.layers_per_chunk[chunk]
    work = costs.layer(model, shape.tokens, shape.sequence).times(layers)
    if shape.is_last(chunk):
        work += costs.head(model, shape.tokens)
    ends = ends_of(costs, model, shape.tokens, shape.boundary, is_first=chunk == 0, is_last=shape.is_last(chunk))
    work += ends.work()
    attention = costs.attention_core(model, shape.tokens, shape.sequence).times(layers)
    return work + Work(
        forward_flops=-attention.forward_flops,
        input_gradient_flops=-attention.input_gradient_flops,
        weight_gradient_flops=-attention.weight_gradient_flops,
    )


@pytest.mark.parametrize("sizes", SHAPES)
@pytest.mark.parametrize("chunk", [0, 1, 2])
def test_flops_are_counted_as_they_are(every: Any, chunk: int, sizes: dict[str, Any], small: Any) -> None:
    import torch

    shape = small(3, boundary=every, **sizes)
    worker = StageWorker(shape, [chunk], seed=0, optimizer=InnerOptimizer())
    crossing = torch.zeros(shape.boundary_shape, dtype=shape.boundary_dtype)
    inputs, gradient = None if chunk == 0 else crossing, None if shape.is_last(chunk) else crossing
    expected = counted(shape, chunk)
    assert matrices(lambda: worker.forward(chunk, 0, inputs)) == expected.forward_flops
    # Nobody asks the first chunk for the gradient of its tokens, whose table executes nothing.
    halves = expected.input_gradient_flops, expected.weight_gradient_flops
    found = (
        matrices(lambda: worker.backward_input(chunk, 0, gradient)),
        matrices(lambda: worker.backward_weight(chunk, 0)),
    )
    assert found == halves


@pytest.mark.parametrize("sizes", SHAPES)
def test_parameters_are_counted_as_they_are(every: Any, sizes: dict[str, Any], small: Any) -> None:
    from orionbed.training.modules import make_chunk

    shape = small(3, boundary=every, **sizes)
    made = [sum(p.numel() for p in make_chunk(shape, chunk, 0).parameters()) for chunk in range(3)]
    assert made == [parameters_of(shape, chunk) for chunk in range(3)]
    ends = 2 * (3 - 1) * arithmetic.boundary_end_parameters(shape.hidden, shape.boundary)
    assert sum(made) == arithmetic.num_parameters(shape) + ends


def test_the_hundred_billion_are_there_to_the_last() -> None:
    """On torch's meta device, which makes no numbers: parameters of all chunks and FLOPs of each chunk's matrices."""
    import torch

    from orionbed.training.modules import Chunk

    plan = make_plan(load("orion-100b"))
    model = plan.scenario.model
    sizes = (model.hidden, model.ffn, model.heads, model.kv_heads, model.vocab, 800, 10)
    plain = ModelShape(plan.split, *sizes, None, "bfloat16")
    narrow = ModelShape(plan.split, *sizes, plan.scenario.pipeline.boundary, "bfloat16")
    assert narrow.boundary_bytes == plan.boundary_bytes == 2_304_000
    totals = []
    with torch.device("meta"):
        for shape in (plain, narrow):
            chunks = [Chunk(shape, chunk) for chunk in range(shape.num_chunks)]
            totals.append(sum(p.numel() for chunk in chunks for p in chunk.parameters()))
        for chunk in (0, 1, 15):
            width = (10, 800) if chunk == 0 else narrow.boundary_shape
            inputs = torch.zeros(width, dtype=torch.int64 if chunk == 0 else torch.bfloat16)
            with torch.no_grad():
                found = matrices(lambda piece=chunks[chunk], given=inputs: piece.without_loss(given))
            assert found == counted(narrow, chunk).forward_flops
    assert totals == [99_615_863_808, 99_615_863_808 + 15 * 2 * 9216 * 144]


# ---------------------------------------------------------------- seconds


def forward_and_back(**boundary: Any) -> tuple[Work, Work]:
    """What the entrance and the exit of a middle stage of Orion take."""
    scenario = apply(load("orion-100b"), {"pipeline.boundary": boundary})
    costs = CostModel(GPU)
    ends = ends_of(costs, scenario.model, 8000, scenario.pipeline.boundary, is_first=False, is_last=False)
    return ends.entrance, ends.exit


def test_packing_takes_as_long_as_memory_needs() -> None:
    rate = GPU.memory_bandwidth * GPU.memory_efficiency
    values = 8000 * 9216
    entrance, leaving = forward_and_back(kind="quantize", bits=8)
    packed = values + 4 * 8000
    pack_s, unpack_s = (3 * 2 * values + packed) / rate + GPU.launch, (packed + 2 * values) / rate + GPU.launch
    assert (leaving.forward_s, leaving.input_gradient_s) == pytest.approx((pack_s, unpack_s))
    assert (entrance.forward_s, entrance.input_gradient_s) == pytest.approx((unpack_s, pack_s))
    _, plain = forward_and_back(kind="quantize", bits=8, error_feedback=False)
    assert pack_s - plain.forward_s == pytest.approx(2 * 2 * values / rate)
    _, largest = forward_and_back(kind="topk", keep=144)
    assert largest.forward_s == pytest.approx((2 * 2 * values + 8000 * 144 * 4) / rate + GPU.launch)
    assert largest.input_gradient_s == pytest.approx((8000 * 144 * (4 + 2) + 2 * values) / rate + GPU.launch)


def test_a_subspace_has_no_weights_to_find_gradients_of() -> None:
    entrance, leaving = forward_and_back(kind="subspace", width=144)
    learnt, _ = forward_and_back(kind="resbm", width=144)
    assert (entrance.weight_gradient_s, leaving.weight_gradient_flops) == (0.0, 0.0)
    assert (entrance.forward_s, entrance.input_gradient_s) == (learnt.forward_s, learnt.input_gradient_s)


def test_two_matrices_cost_more_than_one() -> None:
    one, _ = forward_and_back(kind="resbm", width=144)
    two, _ = forward_and_back(kind="resbm", width=144, encoder="mlp")
    assert two.forward_flops == 2.0 * 8000 * 576 * (9216 + 144)
    assert two.forward_s > one.forward_s


@pytest.mark.parametrize("recompute", ["full", "none"])
def test_what_is_done_again_is_unpacked_again_and_not_packed(recompute: str) -> None:
    boundary = {"kind": "quantize", "bits": 4}
    schedule = {"kind": "1f1b", "microbatches": 4, "recompute": recompute}
    plan = make_plan(apply(load("orion-100b"), {
        "pipeline.boundary": boundary, "pipeline.schedule": schedule, "merge": "none", "peers.efficiency": "by-shape",
        "peers.measured": None,
    }))  # fmt: skip
    entrance, leaving = forward_and_back(**boundary)
    costs = plan.chunk_costs[1]
    again_s = entrance.forward_s if recompute == "full" else 0.0
    back_s = entrance.input_gradient_s + leaving.input_gradient_s
    assert costs["F"].boundary_s == pytest.approx(entrance.forward_s + leaving.forward_s)
    assert costs["B"].boundary_s == pytest.approx(back_s + again_s)


def test_feedback_keeps_two_tensors_at_a_middle_stage() -> None:
    def states(feedback: bool) -> list[int]:
        changes = {"pipeline.boundary": {"kind": "quantize", "bits": 8, "error_feedback": feedback}}
        return [stage.memory.states_bytes for stage in make_plan(apply(load("orion-100b"), changes)).stages]

    more = [a - b for a, b in zip(states(feedback=True), states(feedback=False), strict=True)]
    assert more == [147_456_000, *[2 * 147_456_000] * 14, 147_456_000]


def test_a_scaled_boundary_has_one_value_at_least() -> None:
    found = scaled(ResBMBoundary(kind="resbm", width=3), 0.1)
    assert isinstance(found, ResBMBoundary)
    assert found.width == 1
