"""From a scenario to a plan: stages, operations with their costs, peers placed on sites, memory. Plain data."""

from dataclasses import dataclass

import numpy as np

from orionbed import model as arithmetic
from orionbed.bandwidth import Floats, draw_links
from orionbed.compute import Cost, CostModel, Work
from orionbed.model import BYTES_PER_VALUE, StageMemory
from orionbed.scenario import Distribution, GpuProfile, Scenario, gpu_profile
from orionbed.schedule.actions import Kind
from orionbed.streams import Streams


@dataclass(frozen=True, slots=True)
class StagePlan:
    """One stage: its layers, its memory, and what each of its operations costs."""

    index: int
    first_layer: int
    num_layers: int
    parameters: int
    weight_bytes: int
    memory: StageMemory
    costs: dict[Kind, Cost]
    useful_flops: dict[Kind, float]

    @property
    def microbatch_s(self) -> float:
        """Seconds one micro-batch keeps a peer of this stage busy, without its share of optimizer steps."""
        return sum(self.costs[kind].duration_s for kind in ("F", "B") if kind in self.costs)


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
    """Everything a backend needs to run a scenario, resolved and drawn."""

    scenario: Scenario
    gpu: GpuProfile
    tokens_per_microbatch: int
    num_parameters: int
    split: tuple[int, ...]
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
    def useful_flops_per_microbatch(self) -> float:
        """FLOPs credited for one applied micro-batch, in the 6N convention."""
        return 6.0 * self.num_parameters * self.tokens_per_microbatch

    @property
    def attention_flops_per_microbatch(self) -> float:
        """Causal attention FLOPs of one micro-batch, which 6N leaves out."""
        model = self.scenario.model
        per_token = arithmetic.attention_flops_per_token(model, self.scenario.batch.sequence)
        return float(per_token * self.tokens_per_microbatch)

    @property
    def fits(self) -> bool:
        """Whether every stage fits the GPU's memory."""
        return all(stage.memory.total_bytes <= self.gpu.memory for stage in self.stages)


def make_plan(scenario: Scenario, seed: int | None = None) -> Plan:
    """Resolve `scenario` into a plan; draws depend only on the scenario and the seed."""
    streams = Streams(scenario.run.seed if seed is None else seed)
    model, pipeline = scenario.model, scenario.pipeline
    gpu = gpu_profile(scenario.peers.gpu)
    tokens = scenario.batch.sequence * scenario.batch.sequences
    split = _split(scenario)
    return Plan(
        scenario=scenario,
        gpu=gpu,
        tokens_per_microbatch=tokens,
        num_parameters=arithmetic.num_parameters(model),
        split=tuple(split),
        stages=tuple(_stages(scenario, gpu, split, tokens)),
        peers=tuple(_peers(scenario, streams)),
        boundary_bytes=arithmetic.boundary_bytes(tokens, model.hidden, model.dtype, pipeline.boundary),
        boundary_bytes_uncompressed=arithmetic.boundary_bytes(tokens, model.hidden, model.dtype, None),
        site_names=tuple(scenario.peers.sites),
    )


def _split(scenario: Scenario) -> list[int]:
    split = scenario.pipeline.split
    if isinstance(split, str):
        return arithmetic.balanced_split(scenario.model, scenario.pipeline.stages)
    return list(split)


@dataclass(frozen=True, slots=True)
class _StageWork:
    """What one stage computes per micro-batch, by purpose."""

    model: Work
    boundary: Work
    attention: Work

    def forward(self) -> Cost:
        return Cost(
            model_s=self.model.forward_s,
            boundary_s=self.boundary.forward_s,
            model_flops=self.model.forward_flops,
            boundary_flops=self.boundary.forward_flops,
        )

    def backward(self) -> Cost:
        return Cost(
            model_s=self.model.backward_s,
            boundary_s=self.boundary.backward_s,
            model_flops=self.model.backward_flops,
            boundary_flops=self.boundary.backward_flops,
        )

    def recompute(self, policy: str) -> Cost:
        if policy == "none":
            return Cost()
        if policy == "selective":
            return Cost(recompute_s=self.attention.forward_s, recompute_flops=self.attention.forward_flops)
        return Cost(
            recompute_s=self.model.forward_s,
            boundary_s=self.boundary.forward_s,
            recompute_flops=self.model.forward_flops,
            boundary_flops=self.boundary.forward_flops,
        )


def _stages(scenario: Scenario, gpu: GpuProfile, split: list[int], tokens: int) -> list[StagePlan]:
    costs = CostModel(gpu, scenario.peers.efficiency, scenario.peers.kernel_scale)
    works = [_stage_work(scenario, costs, split, index, tokens) for index in range(len(split))]
    total_model_flops = sum(w.model.forward_flops + w.model.backward_flops for w in works)
    useful = 6.0 * arithmetic.num_parameters(scenario.model) * tokens
    parameters = arithmetic.stage_parameters(scenario.model, split)
    stages = []
    first_layer = 0
    for index, (num_layers, work) in enumerate(zip(split, works, strict=True)):
        operations = _operations(scenario, costs, work, parameters[index], is_last=index == len(split) - 1)
        stages.append(
            StagePlan(
                index=index,
                first_layer=first_layer,
                num_layers=num_layers,
                parameters=parameters[index],
                weight_bytes=parameters[index] * BYTES_PER_VALUE[scenario.model.dtype],
                memory=_memory(scenario, split, index, parameters[index], tokens),
                costs=operations,
                # 6N also credits the embedding, which executes nothing, so the credit is spread over executed FLOPs.
                useful_flops={k: useful * c.model_flops / total_model_flops for k, c in operations.items()},
            )
        )
        first_layer += num_layers
    return stages


def _stage_work(scenario: Scenario, costs: CostModel, split: list[int], index: int, tokens: int) -> _StageWork:
    model, boundary = scenario.model, scenario.pipeline.boundary
    is_first, is_last = index == 0, index == len(split) - 1
    work = costs.layer(model, tokens, scenario.batch.sequence).times(split[index])
    if is_first:
        work += costs.embedding(model, tokens)
    if is_last:
        work += costs.head(model, tokens)
    narrowing = Work()
    if boundary.kind in {"resbm", "bottleneck", "subspace"}:
        narrowing = costs.narrowing(model, tokens, boundary.width).times((not is_first) + (not is_last))
    attention = costs.attention_core(model, tokens, scenario.batch.sequence).times(split[index])
    return _StageWork(work, narrowing, attention)


def _operations(
    scenario: Scenario, costs: CostModel, work: _StageWork, parameters: int, *, is_last: bool
) -> dict[Kind, Cost]:
    schedule = scenario.pipeline.schedule
    overhead = Cost(model_s=scenario.peers.overhead)
    step = Cost(optimizer_s=costs.optimizer_step_s(parameters, scenario.model.dtype))
    if schedule.kind == "queue" and is_last:
        return {"B": work.forward() + work.backward() + overhead, "STEP": step}
    backward = work.recompute(schedule.recompute) + work.backward() + overhead
    return {"F": work.forward() + overhead, "B": backward, "STEP": step}


def _memory(scenario: Scenario, split: list[int], index: int, parameters: int, tokens: int) -> StageMemory:
    model, schedule, num_stages = scenario.model, scenario.pipeline.schedule, len(split)
    if schedule.kind == "queue":
        # A window that sizes itself is as deep as forwards fit into one round trip; at most about four per stage.
        in_flight = 4 * num_stages if isinstance(schedule.window, str) else schedule.window
    elif schedule.kind == "gpipe":
        in_flight = schedule.microbatches
    else:
        in_flight = min(schedule.microbatches, num_stages - index)
    return arithmetic.stage_memory(
        model,
        tokens,
        num_layers=split[index],
        parameters=parameters,
        state_bytes_per_parameter=model.optimizer.state_bytes_per_parameter,
        in_flight=in_flight,
        input_bytes=arithmetic.boundary_bytes(tokens, model.hidden, model.dtype, scenario.pipeline.boundary),
        recompute=schedule.recompute,
        is_last=schedule.kind == "queue" and index == num_stages - 1,
    )


def _peers(scenario: Scenario, streams: Streams) -> list[PeerPlan]:
    num_stages, num_replicas = scenario.pipeline.stages, scenario.pipeline.replicas
    num_peers = num_stages * num_replicas
    places = [site for site, count in scenario.peers.sites.items() for _ in range(count)]
    if scenario.peers.placement == "spread":
        order = streams.get("placement").permutation(num_peers)
        places = [places[i] for i in order]
    else:
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
            name=f"s{index // num_replicas:02d}r{index % num_replicas}",
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
