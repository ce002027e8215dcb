"""From a scenario to a plan: stages, operations with their costs, peers placed on sites, memory. Plain data."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from orionbed import model as arithmetic
from orionbed.bandwidth import Floats, draw_links
from orionbed.compute import Cost, CostModel, peak_of
from orionbed.hops import plan_hops
from orionbed.memory import stage_memories, weight_gradient_share
from orionbed.model import BYTES_PER_VALUE, StageMemory
from orionbed.operations import Costs, chunk_costs, chunk_parameters, credit, stage_costs, times_of
from orionbed.scenario import Distribution, GpuProfile, Scenario, gpu_profile
from orionbed.scenario.fault_fields import peer_name
from orionbed.schedule.actions import Kind
from orionbed.schedule.build import build_order, chunks_per_stage, needs_split_backward
from orionbed.schedule.order import Order, one_each
from orionbed.schedule.timing import Hops
from orionbed.streams import Streams


@dataclass(frozen=True, slots=True)
class StagePlan:
    """One stage: its layers, its memory, and what each of its operations costs on average over its chunks."""

    index: int
    num_layers: int
    parameters: int
    weight_bytes: int
    memory: StageMemory
    costs: Costs
    useful_flops: dict[Kind, float]
    num_chunks: int = 1

    @property
    def microbatch_s(self) -> float:
        """Seconds one micro-batch keeps a peer of this stage busy, without its share of optimizer steps."""
        kinds: tuple[Kind, ...] = ("F", "B") if "B" in self.costs else ("F", "I", "W")
        return self.num_chunks * sum(self.costs[kind].duration_s for kind in kinds if kind in self.costs)


@dataclass(frozen=True, slots=True)
class PeerPlan:
    """One peer: what it does, where it is, how fast its GPU and its links are."""

    index: int
    name: str
    stage: int
    replica: int
    site: str
    speed: float
    uplink_bps: float
    downlink_bps: float


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything a backend needs to run a scenario, resolved and drawn.

    `split` and `chunk_costs` are by chunk of the model; a stage holds one chunk unless its schedule says otherwise.
    `order` is the schedule of one step; none for the queue-driven one.
    """

    scenario: Scenario
    gpu: GpuProfile
    tokens_per_microbatch: int
    num_parameters: int
    split: tuple[int, ...]
    chunk_costs: tuple[Costs, ...]
    order: Order | None
    stages: tuple[StagePlan, ...]
    peers: tuple[PeerPlan, ...]
    boundary_bytes: int
    boundary_bytes_uncompressed: int
    site_names: tuple[str, ...]

    @property
    def num_stages(self) -> int:
        """Pipeline depth."""
        return len(self.stages)

    @property
    def num_replicas(self) -> int:
        """Peers per stage."""
        return len(self.peers) // len(self.stages)

    @property
    def num_chunks(self) -> int:
        """Pieces the model is cut into."""
        return len(self.split)

    @property
    def stage_of(self) -> tuple[int, ...]:
        """The stage that holds each chunk."""
        return one_each(self.num_chunks) if self.order is None else self.order.stage_of

    def chunks_of(self, stage: int) -> list[int]:
        """Return the chunks that a stage holds, in the order of the model."""
        return [chunk for chunk, holder in enumerate(self.stage_of) if holder == stage]

    @property
    def layers_per_stage(self) -> list[int]:
        """Layers of each stage, over all its chunks."""
        return [stage.num_layers for stage in self.stages]

    @property
    def num_gpus(self) -> int:
        """GPUs of all peers together."""
        return self.scenario.peers.gpus * len(self.peers)

    @property
    def peak_flops(self) -> float:
        """Peak FLOP/s of all GPUs of all peers in the model's number format."""
        return peak_of(self.gpu, self.scenario.model.dtype) * self.num_gpus

    @property
    def microbatches_per_step(self) -> float:
        """Micro-batches between two optimizer steps of a peer."""
        schedule = self.scenario.pipeline.schedule
        if schedule.kind == "queue":
            return schedule.local_step_every
        assert self.order is not None
        return self.order.num_microbatches

    @property
    def pieces_per_chunk(self) -> int:
        """Pieces in which a chunk's gradients are exchanged while its last backward is under way."""
        sync = self.scenario.sync
        if isinstance(sync, str) or self.order is None:
            return 0
        return max(1, sync.buckets // self.order.chunks_per_stage)

    @property
    def exchanges_per_step(self) -> float:
        """Exchanges between the replicas of one stage per optimizer step."""
        sync = self.scenario.sync
        if isinstance(sync, str) or self.order is None:
            return 0.0
        if sync.overlap and sync.every == 1:
            return self.pieces_per_chunk * self.order.chunks_per_stage
        return sync.fragments / sync.every

    @property
    def useful_flops_per_microbatch(self) -> float:
        """FLOPs credited for one applied micro-batch, in the 6N convention."""
        return 6.0 * self.num_parameters * self.tokens_per_microbatch

    @property
    def attention_flops_per_microbatch(self) -> float:
        """Causal attention FLOPs of one micro-batch, which 6N leaves out."""
        model = self.scenario.model
        per_token = arithmetic.attention_flops_per_token(model, self.scenario.batch.sequence)
        return float(per_token * self.tokens_per_microbatch)

    def hops(self) -> Hops:
        """Return the hops between the stages of the first replica at the drawn rates, without contention."""
        return plan_hops(self.scenario.network, self.peers, self.site_names, self.boundary_bytes)

    @property
    def fits(self) -> bool:
        """Whether every stage fits the GPU's memory."""
        return all(stage.memory.total_bytes <= self.gpu.memory for stage in self.stages)


def make_plan(scenario: Scenario, seed: int | None = None) -> Plan:
    """Resolve `scenario` into a plan; draws depend only on the scenario and the seed.

    Raises:
        ScheduleError: the schedule cannot be run.

    """
    streams = Streams(scenario.run.seed if seed is None else seed)
    model, pipeline = scenario.model, scenario.pipeline
    gpu = gpu_profile(scenario.peers.gpu)
    tokens = scenario.batch.tokens
    split = _split(scenario)
    costs = CostModel(
        gpu,
        scenario.peers.efficiency,
        scenario.peers.kernel_scale,
        gpus=scenario.peers.gpus,
        sequence_parallel=scenario.peers.sequence_parallel,
        overlap_collectives=scenario.peers.overlap_collectives,
        link_bytes_per_s=scenario.peers.gpu_link,
    )
    per_chunk = chunk_costs(scenario, costs, split, splits_backward=needs_split_backward(pipeline.schedule))
    peers = tuple(_peers(scenario, streams))
    sites = tuple(site for site, count in scenario.peers.sites.items() if count)
    boundary_bytes = arithmetic.boundary_bytes(tokens, model.hidden, model.dtype, pipeline.boundary)
    order = None
    if pipeline.schedule.kind != "queue":
        hops = plan_hops(scenario.network, peers, sites, boundary_bytes)
        order = build_order(
            pipeline.schedule, pipeline.stages, times_of(per_chunk), hops, weight_gradient_share(scenario)
        )
    return Plan(
        scenario=scenario,
        gpu=gpu,
        tokens_per_microbatch=tokens,
        num_parameters=arithmetic.num_parameters(model),
        split=tuple(split),
        chunk_costs=tuple(per_chunk),
        order=order,
        stages=tuple(_stages(scenario, costs, split, per_chunk, order)),
        peers=peers,
        boundary_bytes=boundary_bytes,
        boundary_bytes_uncompressed=arithmetic.boundary_bytes(tokens, model.hidden, model.dtype, None),
        site_names=sites,
    )


def _split(scenario: Scenario) -> list[int]:
    """Layers of each chunk."""
    pipeline = scenario.pipeline
    if isinstance(pipeline.split, str):
        num_chunks = pipeline.stages * chunks_per_stage(pipeline.schedule)
        return arithmetic.balanced_split(scenario.model, num_chunks)
    return list(pipeline.split)


def _stages(
    scenario: Scenario, costs: CostModel, split: list[int], per_chunk: list[Costs], order: Order | None
) -> list[StagePlan]:
    stage_of = one_each(len(split)) if order is None else order.stage_of
    parameters = chunk_parameters(scenario, split, stage_of)
    memories = stage_memories(scenario, split, parameters, order)
    credited = credit(per_chunk, 6.0 * arithmetic.num_parameters(scenario.model) * scenario.batch.tokens)
    stages = []
    for index in range(scenario.pipeline.stages):
        mine = [chunk for chunk, holder in enumerate(stage_of) if holder == index]
        state_bytes = scenario.model.optimizer.state_bytes_per_parameter
        model = scenario.model
        step_s = costs.optimizer_step_s(parameters[index], model.dtype, state_bytes, model=model)
        stages.append(
            StagePlan(
                index=index,
                num_layers=sum(split[chunk] for chunk in mine),
                parameters=parameters[index],
                weight_bytes=parameters[index] * BYTES_PER_VALUE[scenario.model.dtype],
                memory=memories[index],
                costs=stage_costs(per_chunk, stage_of, index, Cost(optimizer_s=step_s)),
                useful_flops=_total(credited[chunk] for chunk in mine) | {"STEP": 0.0},
                num_chunks=len(mine),
            )
        )
    return stages


def _total(by_kind: Iterable[dict[Kind, float]]) -> dict[Kind, float]:
    total: dict[Kind, float] = {}
    for one in by_kind:
        for kind, value in one.items():
            total[kind] = total.get(kind, 0.0) + value
    return total


def _peers(scenario: Scenario, streams: Streams) -> list[PeerPlan]:
    num_stages, num_replicas = scenario.pipeline.stages, scenario.pipeline.replicas
    num_peers = num_stages * num_replicas
    places = [site for site, count in scenario.peers.sites.items() for _ in range(count)]
    if scenario.peers.placement == "spread":
        order = streams.get("placement").permutation(num_peers)
        places = [places[i] for i in order]
    elif scenario.peers.placement == "grouped":
        # Consecutive stages of one replica share a site as far as sites are large enough.
        by_replica = iter(places)
        grouped = {(s, r): next(by_replica) for r in range(num_replicas) for s in range(num_stages)}
        places = [grouped[s, r] for s in range(num_stages) for r in range(num_replicas)]
    network = scenario.network
    uplink, downlink = draw_links(
        num_peers, network.uplink, network.downlink, network.correlation, streams.get("links")
    )
    uplink, downlink = _at_median(uplink, network.uplink), _at_median(downlink, network.downlink)
    speeds = scenario.peers.speed.sample(streams.get("speed"), num_peers)
    return [
        PeerPlan(
            index=index,
            name=peer_name(index // num_replicas, index % num_replicas),
            stage=index // num_replicas,
            replica=index % num_replicas,
            site=places[index],
            speed=float(speeds[index]),
            uplink_bps=float(uplink[index]),
            downlink_bps=float(downlink[index]),
        )
        for index in range(num_peers)
    ]


def _at_median(rates: Floats, distribution: Distribution) -> Floats:
    """Scale lognormal draws so that the peers' median is the one stated.

    A published median is that of the peers that were there, not of a population they might have been drawn from.
    """
    return rates * (distribution.median / float(np.median(rates))) if distribution.kind == "lognormal" else rates
