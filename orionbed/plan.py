"""From a scenario to a plan: stages, operations with their costs, peers placed on sites, memory. Plain data."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from orionbed import model as arithmetic
from orionbed.arranging import arrange
from orionbed.compute import peak_of
from orionbed.hardware import Hardware, busy_s, by_chunk, by_stage, makes_of
from orionbed.hops import bytes_per_s_per_bps, plan_hops
from orionbed.machines import Machine, machines_of
from orionbed.memory import stage_memories, weight_gradient_share
from orionbed.model import BYTES_PER_VALUE, StageMemory
from orionbed.operations import Costs, chunk_parameters, credit, times_of
from orionbed.scenario import GpuProfile, Scenario
from orionbed.scenario.fault_fields import peer_name
from orionbed.schedule.actions import Kind
from orionbed.schedule.build import build_order
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
        return self.num_chunks * busy_s(self.costs)


@dataclass(frozen=True, slots=True)
class PeerPlan:
    """One peer: what it does, where it is, how fast its GPU and its links are.

    `hardware` tells which kind of machine it is: 0 is that of the plan itself, others are in the plan's `others`.
    `price` is that of one of its GPUs per hour, None where it is the scenario's.
    """

    index: int
    name: str
    stage: int
    replica: int
    site: str
    speed: float
    uplink_bps: float
    downlink_bps: float
    group: str = ""
    gpu: str = ""
    hardware: int = 0
    natted: bool = False
    price: float | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything a backend needs to run a scenario, resolved and drawn.

    `split` and `chunk_costs` are by chunk of the model; a stage holds one chunk unless its schedule says otherwise.
    `order` is the schedule of one step; none for the queue-driven one. `gpu` and all costs are those of the first kind
    of machine; where there are further kinds, `others` has theirs, and the methods that take a peer choose.
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
    others: tuple[Hardware, ...] = ()

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
        """Peak FLOP/s of all GPUs of all peers in the model's number format, each at its own peak."""
        if not self.others:
            return peak_of(self.gpu, self.scenario.model.dtype) * self.num_gpus
        return sum(self.peer_peak_flops(peer) for peer in self.peers)

    @property
    def is_mixed(self) -> bool:
        """Whether the peers are described by groups, which need not be alike."""
        return bool(self.scenario.peers.groups)

    def gpu_of(self, peer: PeerPlan) -> GpuProfile:
        """Return the GPU of a peer."""
        return self.others[peer.hardware - 1].gpu if peer.hardware else self.gpu

    def peer_peak_flops(self, peer: PeerPlan) -> float:
        """Return the peak FLOP/s of a peer's GPUs together in the model's number format."""
        return peak_of(self.gpu_of(peer), self.scenario.model.dtype) * self.scenario.peers.gpus

    @property
    def gpu_counts(self) -> dict[str, int]:
        """How many peers have each GPU, by the name of its profile."""
        counts = dict.fromkeys((self.gpu.name, *(kind.gpu.name for kind in self.others)), 0)
        for peer in self.peers:
            counts[self.gpu_of(peer).name] += 1
        return counts

    @property
    def gpu_hour(self) -> float:
        """Price of a GPU per hour, on average over the peers."""
        if all(peer.price is None for peer in self.peers):
            return self.scenario.cost.gpu_hour
        return sum(self.price_of(peer) for peer in self.peers) / len(self.peers)

    def price_of(self, peer: PeerPlan) -> float:
        """Return the price of one GPU of a peer per hour."""
        return self.scenario.cost.gpu_hour if peer.price is None else peer.price

    def chunk_costs_on(self, hardware: int) -> tuple[Costs, ...]:
        """Return what operations cost on a kind of machine, by chunk."""
        return self.others[hardware - 1].chunk_costs if hardware else self.chunk_costs

    def stage_costs_on(self, hardware: int, stage: int) -> Costs:
        """Return what operations of a stage cost on a kind of machine, on average over its chunks."""
        return self.others[hardware - 1].stage_costs[stage] if hardware else self.stages[stage].costs

    def speed_of(self, peer: PeerPlan, stage: int | None = None) -> float:
        """Return how fast a peer is in a stage (its own unless given), in units of the first kind of machine."""
        if not peer.hardware:
            return peer.speed
        where = peer.stage if stage is None else stage
        return peer.speed * busy_s(self.stages[where].costs) / busy_s(self.stage_costs_on(peer.hardware, where))

    def known_speed(self, peer: PeerPlan, stage: int | None = None) -> float:
        """Return how fast others take a peer to be in a stage, in units of the first kind of machine.

        Peers of groups are known by what they get done: as fast as their GPU is, but no faster than their links can
        move the tensors of a micro-batch over the stage's boundaries. Peers that are all alike are known by their GPU.
        """
        speed = self.speed_of(peer, stage)
        where = peer.stage if stage is None else stage
        num_tensors = (where > 0) + (where < self.num_stages - 1)
        if not self.is_mixed or not num_tensors:
            return speed
        rate = min(peer.uplink_bps, peer.downlink_bps) * bytes_per_s_per_bps(self.scenario.network)
        return min(speed, self.stages[where].microbatch_s * rate / (num_tensors * self.boundary_bytes))

    def pace_s(self, peer: PeerPlan, stage: int) -> float:
        """Seconds that a peer needs per micro-batch in a stage, with its share of optimizer steps."""
        costs = self.stage_costs_on(peer.hardware, stage)
        once_s = self.stages[stage].num_chunks * busy_s(costs)
        return (once_s + costs["STEP"].duration_s / self.microbatches_per_step) / peer.speed

    @property
    def slowest_costs(self) -> tuple[Costs, ...]:
        """What operations cost by chunk on the kind of machine that is slowest among the peers of its stage."""
        if not self.others:
            return self.chunk_costs
        kinds: list[set[int]] = [set() for _ in self.stages]
        for peer in self.peers:
            kinds[peer.stage].add(peer.hardware)
        return tuple(
            max((self.chunk_costs_on(kind)[chunk] for kind in sorted(kinds[stage])), key=busy_s)
            for chunk, stage in enumerate(self.stage_of)
        )

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
        """Whether every stage fits the memory of all GPUs that it is on."""
        return all(self.stages[peer.stage].memory.total_bytes <= self.gpu_of(peer).memory for peer in self.peers)


def make_plan(scenario: Scenario, seed: int | None = None) -> Plan:
    """Resolve `scenario` into a plan; draws depend only on the scenario and the seed.

    Raises:
        ScheduleError: the schedule cannot be run.

    """
    streams = Streams(scenario.run.seed if seed is None else seed)
    model, pipeline = scenario.model, scenario.pipeline
    tokens = scenario.batch.tokens
    arrangement = arrange(scenario, machines_of(scenario, streams))
    split = arrangement.split
    makes = makes_of(scenario)
    kinds = [by_chunk(scenario, make, split) for make in makes]
    peers = tuple(_peers(scenario, arrangement.machines, kinds))
    sites = tuple(scenario.peers.counts)
    boundary_bytes = arithmetic.boundary_bytes(tokens, model.hidden, model.dtype, pipeline.boundary)
    order = None
    if pipeline.schedule.kind != "queue":
        hops = plan_hops(scenario.network, peers, sites, boundary_bytes)
        slowest = max(kinds, key=lambda kind: sum(map(busy_s, kind.chunk_costs)))
        order = build_order(
            pipeline.schedule, pipeline.stages, times_of(slowest.chunk_costs), hops, weight_gradient_share(scenario)
        )
    stage_of = one_each(len(split)) if order is None else order.stage_of
    parameters = chunk_parameters(scenario, split, stage_of)
    kinds = [
        replace(kind, stage_costs=by_stage(scenario, make, kind, stage_of, parameters))
        for make, kind in zip(makes, kinds, strict=True)
    ]
    return Plan(
        scenario=scenario,
        gpu=kinds[0].gpu,
        tokens_per_microbatch=tokens,
        num_parameters=arithmetic.num_parameters(model),
        split=tuple(split),
        chunk_costs=kinds[0].chunk_costs,
        order=order,
        stages=tuple(_stages(scenario, kinds[0], split, parameters, order)),
        peers=peers,
        boundary_bytes=boundary_bytes,
        boundary_bytes_uncompressed=arithmetic.boundary_bytes(tokens, model.hidden, model.dtype, None),
        site_names=sites,
        others=tuple(kinds[1:]),
    )


def _stages(
    scenario: Scenario, kind: Hardware, split: list[int], parameters: list[int], order: Order | None
) -> list[StagePlan]:
    model = scenario.model
    stage_of = one_each(len(split)) if order is None else order.stage_of
    memories = stage_memories(scenario, split, parameters, order)
    credited = credit(kind.chunk_costs, 6.0 * arithmetic.num_parameters(model) * scenario.batch.tokens)
    stages = []
    for index in range(scenario.pipeline.stages):
        mine = [chunk for chunk, holder in enumerate(stage_of) if holder == index]
        stages.append(
            StagePlan(
                index=index,
                num_layers=sum(split[chunk] for chunk in mine),
                parameters=parameters[index],
                weight_bytes=parameters[index] * BYTES_PER_VALUE[model.dtype],
                memory=memories[index],
                costs=kind.stage_costs[index],
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


def _peers(scenario: Scenario, machines: Sequence[Machine], kinds: Sequence[Hardware]) -> list[PeerPlan]:
    num_replicas = scenario.pipeline.replicas
    return [
        PeerPlan(
            index=index,
            name=peer_name(index // num_replicas, index % num_replicas),
            stage=index // num_replicas,
            replica=index % num_replicas,
            site=machine.site,
            speed=machine.speed,
            uplink_bps=machine.uplink_bps,
            downlink_bps=machine.downlink_bps,
            group=machine.group,
            gpu=kinds[machine.hardware].gpu.name,
            hardware=machine.hardware,
            natted=machine.natted,
            price=machine.price,
        )
        for index, machine in enumerate(machines)
    ]
