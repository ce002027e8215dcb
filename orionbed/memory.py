"""Memory of each stage, given what its schedule keeps in flight."""

from collections.abc import Sequence

from orionbed import model as arithmetic
from orionbed.model import StageMemory
from orionbed.scenario import Scenario
from orionbed.scenario.schedules import QuantizeBoundary, TopKBoundary
from orionbed.schedule.order import Order
from orionbed.schedule.timing import peak_held


def stage_memories(
    scenario: Scenario, split: Sequence[int], parameters: Sequence[int], order: Order | None
) -> list[StageMemory]:
    """Return the memory of each stage; `split` gives the layers of each chunk, `order` is None for a queue."""
    if order is None:
        return _queue_driven(scenario, split, parameters)
    tokens = scenario.batch.tokens
    kept = [_kept_bytes(scenario, layers) for layers in split]
    activations = [_activation_bytes(scenario, layers) for layers in split]
    for_weights = weight_gradient_share(scenario)
    peaks = peak_held(order, kept, [for_weights * chunk for chunk in activations])
    recomputes = scenario.pipeline.schedule.recompute == "full"
    memories = []
    for stage, peak in enumerate(peaks):
        held = [chunk for chunk, holder in enumerate(order.stage_of) if holder == stage]
        working = max(_working_bytes(scenario, split[chunk]) for chunk in held) if recomputes else 0
        if order.num_chunks - 1 in held:
            working += arithmetic.logits_bytes(scenario.model, tokens) // scenario.peers.gpus
        states = _states_bytes(scenario, parameters[stage])
        for chunk in held:
            states += _left_to_send_bytes(scenario, is_first=chunk == 0, is_last=chunk == order.num_chunks - 1)
        memories.append(StageMemory(states, int(peak), working))
    return memories


def _queue_driven(scenario: Scenario, split: Sequence[int], parameters: Sequence[int]) -> list[StageMemory]:
    schedule = scenario.pipeline.schedule
    assert schedule.kind == "queue"
    # A window that sizes itself is as deep as forwards fit into one round trip; at most about four per stage.
    in_flight = 4 * len(split) if isinstance(schedule.window, str) else schedule.window
    memories = []
    for stage, layers in enumerate(split):
        is_last = stage == len(split) - 1
        working = _activation_bytes(scenario, layers)
        if is_last:
            working += arithmetic.logits_bytes(scenario.model, scenario.batch.tokens) // scenario.peers.gpus
        waiting = 0 if is_last else in_flight * _kept_bytes(scenario, layers)
        held = parameters[stage]
        if not is_last and scenario.recovery.in_flight == "neighbour":
            held += parameters[stage + 1]  # every peer holds the next stage's layers too
        states = _states_bytes(scenario, held) + _left_to_send_bytes(scenario, is_first=stage == 0, is_last=is_last)
        memories.append(StageMemory(states, waiting, working))
    return memories


def _states_bytes(scenario: Scenario, parameters: int) -> int:
    return parameters * scenario.model.optimizer.state_bytes_per_parameter // scenario.peers.gpus


def _left_to_send_bytes(scenario: Scenario, *, is_first: bool, is_last: bool) -> int:
    """Bytes per GPU of what error feedback has left to send: a whole tensor each for activations and gradients."""
    model, boundary = scenario.model, scenario.pipeline.boundary
    if not (isinstance(boundary, QuantizeBoundary | TopKBoundary) and boundary.error_feedback):
        return 0
    whole = arithmetic.boundary_bytes(scenario.batch.tokens, model.hidden, model.dtype, None)
    return (2 - is_first - is_last) * whole // scenario.peers.gpus


def _activation_bytes(scenario: Scenario, layers: int) -> int:
    """Bytes per GPU that a chunk's backward needs of one micro-batch; what is recomputed selectively is not kept."""
    peers = scenario.peers
    return layers * arithmetic.layer_activation_bytes(
        scenario.model,
        scenario.batch.tokens,
        sequence=scenario.batch.sequence,
        gpus=peers.gpus,
        sequence_parallel=peers.sequence_parallel,
        selective=scenario.pipeline.schedule.recompute == "selective",
    )


def _working_bytes(scenario: Scenario, layers: int) -> int:
    """Bytes per GPU that are there while a backward with full recompute is under way."""
    return _activation_bytes(scenario, 1 if _checkpoints_layers(scenario) else layers)


def _checkpoints_layers(scenario: Scenario) -> bool:
    """Whether full recompute keeps the input of each layer, as Megatron-LM does, or of the stage, as IOTA does."""
    return scenario.model.block == "gpt"


def _kept_bytes(scenario: Scenario, layers: int) -> int:
    """Bytes per GPU that a chunk keeps of one micro-batch between forward and backward."""
    if scenario.pipeline.schedule.recompute != "full":
        return _activation_bytes(scenario, layers)
    model, tokens, peers = scenario.model, scenario.batch.tokens, scenario.peers
    if not _checkpoints_layers(scenario):
        return arithmetic.boundary_bytes(tokens, model.hidden, model.dtype, scenario.pipeline.boundary)
    split_over = peers.gpus if peers.sequence_parallel else 1
    return layers * arithmetic.boundary_bytes(tokens, model.hidden, model.dtype, None) // split_over


def weight_gradient_share(scenario: Scenario) -> float:
    """Return the share of a chunk's activations that weight gradients need: inputs and output gradients of multiplies.

    GPT: 32 of the 34 + 5 a s / h bytes per value of the residual stream (Qi et al., arXiv 2401.10241, table 1). The
    Llama block with fused attention keeps little else than inputs of multiplies, and their output gradients are as
    large as all of it.
    """
    model = scenario.model
    if model.block != "gpt":
        return 1.0
    squares = 5.0 * model.heads * scenario.batch.sequence / model.hidden if model.attention == "unfused" else 0.0
    return 32.0 / (34.0 + squares)
