"""How a scenario's model is split and which machine gets which stage, where that is to suit the machines."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from orionbed import model as arithmetic
from orionbed import placement, splitting
from orionbed.hardware import Hardware, busy_s, by_chunk, makes_of
from orionbed.hops import bytes_per_s_per_bps
from orionbed.machines import Machine
from orionbed.memory import stage_memories, weight_gradient_share
from orionbed.operations import chunk_parameters, times_of
from orionbed.scenario import Scenario
from orionbed.schedule.build import build_order, chunks_per_stage
from orionbed.schedule.order import Order, one_each
from orionbed.schedule.timing import Hops


@dataclass(frozen=True, slots=True)
class Arrangement:
    """Layers of each chunk, and the machine of each place, by stage and then by replica."""

    split: list[int]
    machines: list[Machine]


def arrange(scenario: Scenario, machines: Sequence[Machine]) -> Arrangement:
    """Return the split and the order of machines that the scenario asks for; `machines` are as they were placed."""
    pipeline = scenario.pipeline
    by_speed = pipeline.split == "by-speed"
    if isinstance(pipeline.split, str):
        num_chunks = pipeline.stages * chunks_per_stage(pipeline.schedule)
        split = arithmetic.balanced_split(scenario.model, num_chunks)
    else:
        split = list(pipeline.split)
    if not by_speed and scenario.peers.assignment == "in-order":
        return Arrangement(split, list(machines))
    return _Arranger(scenario, machines, split).best(by_speed=by_speed)


class _Arranger:
    """Tries splits and orders of machines; both are judged by the seconds of the cost model."""

    def __init__(self, scenario: Scenario, machines: Sequence[Machine], split: list[int]) -> None:
        self._scenario = scenario
        self._machines = machines
        self._split = split
        self._num_stages = scenario.pipeline.stages
        self._makes = makes_of(scenario)
        self._kinds = np.array([machine.hardware for machine in machines])
        self._speed = np.array([machine.speed for machine in machines])
        hardware = self._hardware(split)
        self._memory = np.array([one.gpu.memory for one in hardware])[self._kinds]
        # What a machine is worth whatever its stage: how fast it would do all of them, one after the other, as far as
        # its links keep up.
        whole_s = np.array([sum(busy_s(costs) for costs in one.chunk_costs) for one in hardware])
        middle = self._link_rates()[:, self._num_stages // 2] / self._num_stages
        self._everywhere = np.minimum(self._speed / whole_s[self._kinds], middle)

    def best(self, *, by_speed: bool) -> Arrangement:
        """Return the arrangement whose slowest stage is fastest, of those that fit if any does."""
        may_move = self._scenario.peers.assignment == "balanced"
        orders = [list(range(len(self._machines)))]
        if may_move:
            orders = placement.candidates(self._values(self._split), self._memory.tolist())
        found = []
        for order in orders:
            split = self._by_speed(order) if by_speed else self._split
            values = self._values(split)
            found.append((placement.slowest(values, order), order, split))
            if may_move and by_speed:
                moved = placement.exchanged(values, order)
                found.append((placement.slowest(values, moved), moved, split))
        _, order, split = max(found, key=lambda one: one[0])
        return Arrangement(split, [self._machines[m] for m in order])

    def _by_speed(self, order: list[int]) -> list[int]:
        """Return the layers that suit the machines in this order."""
        speeds = self._everywhere[order].reshape(self._num_stages, -1).sum(axis=1)
        smallest = self._memory[order].reshape(self._num_stages, -1).min(axis=1)

        def fits(split: list[int]) -> list[bool]:
            return [bool(need <= room) for need, room in zip(self._needed(split), smallest, strict=True)]

        return splitting.by_speed(self._scenario.model, speeds.tolist(), fits)

    def _values(self, split: list[int]) -> NDArray[np.float64]:
        """Return what each machine is worth in each stage, shape (machines, stages)."""
        stage_of = self._stage_of(self._order(split))
        hardware = self._hardware(split)
        seconds = np.zeros((len(hardware), self._num_stages))
        for kind, one in enumerate(hardware):
            for chunk, costs in enumerate(one.chunk_costs):
                seconds[kind, stage_of[chunk]] += busy_s(costs)
        fits = np.array(self._needed(split))[None, :] <= self._memory[:, None]
        rates = self._speed[:, None] / seconds[self._kinds]
        return placement.values_of(np.minimum(rates, self._link_rates()), fits)

    def _link_rates(self) -> NDArray[np.float64]:
        """Return the micro-batches per second whose tensors each machine's links move, shape (machines, stages)."""
        scenario = self._scenario
        model, last = scenario.model, self._num_stages - 1
        links = np.array([min(machine.uplink_bps, machine.downlink_bps) for machine in self._machines])
        num_bytes = arithmetic.boundary_bytes(
            scenario.batch.tokens, model.hidden, model.dtype, scenario.pipeline.boundary
        )
        num_tensors = np.array([(stage > 0) + (stage < last) for stage in range(self._num_stages)])
        per_s = links[:, None] * bytes_per_s_per_bps(scenario.network) / num_bytes
        return np.where(num_tensors > 0, per_s / np.maximum(num_tensors, 1), np.inf)

    def _hardware(self, split: list[int]) -> list[Hardware]:
        return [by_chunk(self._scenario, make, split) for make in self._makes]

    def _needed(self, split: list[int]) -> list[int]:
        """Return the bytes that a peer of each stage needs."""
        order = self._order(split)
        parameters = chunk_parameters(self._scenario, split, self._stage_of(order))
        return [memory.total_bytes for memory in stage_memories(self._scenario, split, parameters, order)]

    def _order(self, split: list[int]) -> Order | None:
        """Return the order of a step without delays, which tells how much is kept; None for a queue."""
        schedule = self._scenario.pipeline.schedule
        if schedule.kind == "queue":
            return None
        times = times_of(by_chunk(self._scenario, self._makes[0], split).chunk_costs)
        return build_order(schedule, self._num_stages, times, Hops(), weight_gradient_share(self._scenario))

    def _stage_of(self, order: Order | None) -> tuple[int, ...]:
        return one_each(len(self._split)) if order is None else order.stage_of
