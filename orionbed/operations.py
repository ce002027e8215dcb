"""What each operation of each piece of the model costs on a peer, by purpose."""

from collections.abc import Sequence
from dataclasses import dataclass

from orionbed import model as arithmetic
from orionbed.boundary_costs import ends_of
from orionbed.compute import Cost, CostModel, Work
from orionbed.scenario import Scenario
from orionbed.schedule.actions import Kind
from orionbed.schedule.timing import Times

Costs = dict[Kind, Cost]


def chunk_costs(
    scenario: Scenario,
    costs: CostModel,
    split: Sequence[int],
    *,
    splits_backward: bool,
    overhead_s: float | None = None,
) -> list[Costs]:
    """Return what F, B (or its halves I and W) cost for each chunk of the model.

    `split` gives the layers of each chunk; `overhead_s` of each operation is the scenario's unless given. At the last
    stage of a queue-driven pipeline a B is forward, loss and backward in one go, and there is no F.
    """
    queue = scenario.pipeline.schedule.kind == "queue"
    found: list[Costs] = []
    for index in range(len(split)):
        parts = _parts(scenario, costs, split, index, scenario.peers.overhead if overhead_s is None else overhead_s)
        if queue and index == len(split) - 1:
            found.append({"B": parts.forward + parts.input_gradient + parts.weight_gradient + parts.overhead})
        elif splits_backward:
            # Whatever its halves, a schedule file may also ask for whole backwards.
            found.append(parts.whole() | {"I": parts.first_half(), "W": parts.weight_gradient + parts.overhead})
        else:
            found.append(parts.whole())
    return found


def times_of(costs: Sequence[Costs]) -> Times:
    """Return the seconds of each chunk's operations; where backwards are whole, they count as input gradients."""
    return Times(
        tuple(cost["F"].duration_s for cost in costs),
        tuple((cost["I"] if "I" in cost else cost["B"]).duration_s for cost in costs),
        tuple(cost["W"].duration_s if "W" in cost else 0.0 for cost in costs),
        tuple(cost["B"].duration_s for cost in costs),
    )


@dataclass(frozen=True, slots=True)
class _Parts:
    """The pieces that operations of one chunk are put together from."""

    forward: Cost
    input_gradient: Cost
    weight_gradient: Cost
    recompute: Cost
    overhead: Cost

    def first_half(self) -> Cost:
        return self.recompute + self.input_gradient + self.overhead

    def whole(self) -> Costs:
        return {"F": self.forward + self.overhead, "B": self.first_half() + self.weight_gradient}


def _parts(scenario: Scenario, costs: CostModel, split: Sequence[int], index: int, overhead_s: float) -> _Parts:
    model, boundary, batch = scenario.model, scenario.pipeline.boundary, scenario.batch
    tokens = batch.sequence * batch.sequences
    is_first, is_last = index == 0, index == len(split) - 1
    work = costs.layer(model, tokens, batch.sequence).times(split[index])
    if is_first:
        work += costs.embedding(model, tokens)
    if is_last:
        work += costs.head(model, tokens)
    ends = ends_of(costs, model, tokens, boundary, is_first=is_first, is_last=is_last)
    narrowing = ends.work()
    work = _as_measured(scenario, work, index, len(split) // scenario.pipeline.stages)
    forward = _cost(work.forward_s, work.forward_flops, narrowing.forward_s, narrowing.forward_flops)
    attention = costs.attention_core(model, tokens, batch.sequence).times(split[index])
    return _Parts(
        forward=forward,
        input_gradient=_cost(
            work.input_gradient_s,
            work.input_gradient_flops,
            narrowing.input_gradient_s,
            narrowing.input_gradient_flops,
        ),
        weight_gradient=_cost(
            work.weight_gradient_s,
            work.weight_gradient_flops,
            narrowing.weight_gradient_s,
            narrowing.weight_gradient_flops,
        ),
        recompute=_recompute(scenario.pipeline.schedule.recompute, forward, ends.again, attention),
        overhead=Cost(model_s=overhead_s),
    )


def _cost(model_s: float, model_flops: float, boundary_s: float, boundary_flops: float) -> Cost:
    return Cost(model_s=model_s, model_flops=model_flops, boundary_s=boundary_s, boundary_flops=boundary_flops)


def _recompute(policy: str, forward: Cost, ends: Work, attention: Work) -> Cost:
    if policy == "none":
        return Cost()
    if policy == "selective":
        return Cost(recompute_s=attention.forward_s, recompute_flops=attention.forward_flops)
    return Cost(
        recompute_s=forward.model_s,
        recompute_flops=forward.model_flops,
        boundary_s=ends.forward_s,
        boundary_flops=ends.forward_flops,
    )


def _as_measured(scenario: Scenario, work: Work, index: int, chunks_per_stage: int) -> Work:
    """Replace modelled seconds by measured ones, if the scenario has them; FLOPs stay counted."""
    measured = scenario.peers.measured
    if measured is None:
        return work
    return work.taking(*measured.at(index, chunks_per_stage))


def stage_costs(per_chunk: Sequence[Costs], stage_of: Sequence[int], stage: int, optimizer_step: Cost) -> Costs:
    """Return what operations of a stage cost on average over its chunks, each of which it does equally often."""
    mine = [costs for costs, holder in zip(per_chunk, stage_of, strict=True) if holder == stage]
    kinds = {kind: [costs[kind] for costs in mine] for kind in mine[0]}
    mean: Costs = {kind: _mean(found) for kind, found in kinds.items()}
    mean["STEP"] = optimizer_step
    return mean


def _mean(costs: Sequence[Cost]) -> Cost:
    if len(costs) == 1:
        return costs[0]
    total = Cost()
    for cost in costs:
        total += cost
    return Cost(*(value / len(costs) for value in total.as_tuple()))


def credit(per_chunk: Sequence[Costs], useful_flops: float) -> list[dict[Kind, float]]:
    """Spread the FLOPs credited for one micro-batch over the operations of all chunks by what they execute.

    6N also credits the embedding, which executes nothing, so credit and execution differ by one factor.
    """

    def executed(costs: Costs) -> float:
        halves: tuple[Kind, ...] = ("F", "I", "W") if "I" in costs else ("F", "B")
        return sum(costs[kind].model_flops for kind in halves if kind in costs)

    total = sum(executed(costs) for costs in per_chunk)
    return [{kind: useful_flops * cost.model_flops / total for kind, cost in costs.items()} for costs in per_chunk]


def chunk_parameters(scenario: Scenario, split: Sequence[int], stage_of: Sequence[int]) -> list[int]:
    """Return the parameters of each stage."""
    counts = [0] * (max(stage_of) + 1)
    for stage, count in zip(stage_of, arithmetic.stage_parameters(scenario.model, split), strict=True):
        counts[stage] += count
    if scenario.model.tied_embeddings and len(split) > 1 and stage_of[0] == stage_of[-1]:
        counts[stage_of[0]] -= arithmetic.embedding_parameters(scenario.model)
    return counts
