"""The kinds of machines of a plan: a GPU, how well it is used, and what every operation costs on it."""

from collections.abc import Sequence
from dataclasses import dataclass

from orionbed.compute import Cost, CostModel
from orionbed.operations import Costs, chunk_costs, stage_costs
from orionbed.scenario import GpuProfile, Scenario, gpu_profile
from orionbed.scenario.groups import Group
from orionbed.schedule.actions import Kind
from orionbed.schedule.build import needs_split_backward


@dataclass(frozen=True, slots=True)
class Make:
    """What the times of a machine depend on; the peers of several groups may be of one make."""

    gpu: str
    efficiency: str | float
    kernel_scale: float
    overhead_s: float


@dataclass(frozen=True, slots=True)
class Hardware:
    """One kind of machine, and what each operation costs on it by chunk of the model and, on average, by stage."""

    gpu: GpuProfile
    chunk_costs: tuple[Costs, ...]
    stage_costs: tuple[Costs, ...] = ()

    def microbatch_s(self, stage: int) -> float:
        """Seconds one micro-batch takes a chunk of this stage, without its share of optimizer steps."""
        return busy_s(self.stage_costs[stage])


def busy_s(costs: Costs) -> float:
    """Seconds of a forward and a backward, whole or in halves."""
    kinds: tuple[Kind, ...] = ("F", "B") if "B" in costs else ("F", "I", "W")
    return sum(costs[kind].duration_s for kind in kinds if kind in costs)


def makes_of(scenario: Scenario) -> list[Make]:
    """Return the makes of all peers, each once, in the order in which the groups name them."""
    groups: Sequence[Group | None] = scenario.peers.groups or (None,)
    return list(dict.fromkeys(make_of(scenario, group) for group in groups))


def make_of(scenario: Scenario, group: Group | None) -> Make:
    """Return the make of a group's machines; None stands for peers that are all alike."""
    peers = scenario.peers
    if group is None:
        return Make(peers.gpu, peers.efficiency, peers.kernel_scale, peers.overhead)
    return Make(
        group.gpu,
        peers.efficiency if group.efficiency is None else group.efficiency,
        peers.kernel_scale if group.kernel_scale is None else group.kernel_scale,
        peers.overhead if group.overhead is None else group.overhead,
    )


def cost_model(scenario: Scenario, make: Make) -> CostModel:
    """Return what times the pieces of the scenario's model on a make."""
    peers = scenario.peers
    return CostModel(
        gpu_profile(make.gpu),
        make.efficiency,
        make.kernel_scale,
        gpus=peers.gpus,
        sequence_parallel=peers.sequence_parallel,
        overlap_collectives=peers.overlap_collectives,
        link_bytes_per_s=peers.gpu_link,
    )


def by_chunk(scenario: Scenario, make: Make, split: Sequence[int]) -> Hardware:
    """Return the costs on a make for a split of layers, those by stage still to come."""
    costs = cost_model(scenario, make)
    halves = needs_split_backward(scenario.pipeline.schedule)
    chunks = chunk_costs(scenario, costs, split, splits_backward=halves, overhead_s=make.overhead_s)
    return Hardware(costs.gpu, tuple(chunks))


def optimizer_cost(scenario: Scenario, make: Make, parameters: int) -> Cost:
    """Return what one optimizer step over so many parameters costs on a make."""
    model = scenario.model
    state_bytes = model.optimizer.state_bytes_per_parameter
    step_s = cost_model(scenario, make).optimizer_step_s(parameters, model.dtype, state_bytes, model=model)
    return Cost(optimizer_s=step_s)


def by_stage(
    scenario: Scenario, make: Make, hardware: Hardware, stage_of: Sequence[int], parameters: Sequence[int]
) -> tuple[Costs, ...]:
    """Return what operations cost on a make in each stage; `parameters` are those of each stage."""
    return tuple(
        stage_costs(hardware.chunk_costs, stage_of, stage, optimizer_cost(scenario, make, count))
        for stage, count in enumerate(parameters)
    )
