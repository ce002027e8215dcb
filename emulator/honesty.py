"""What an emulation must say of itself: what was scaled, how late it was, what it leaves out, and when it is void."""

from math import inf
from typing import TYPE_CHECKING, Any

import numpy as np

from orionbed.backends import BackendError, require_torch
from orionbed.emulation import NOISE_WIDTH, boundary_problem, is_shortened, model_shape
from orionbed.encryption import cipher_rate
from orionbed.fleet.losses import losses_of
from orionbed.orchestration import simulated_alone
from orionbed.plan import Plan
from orionbed.results import RunResult
from orionbed.warn import warning

if TYPE_CHECKING:
    from emulator.supervisor import Supervisor

SHORT_OPERATION_S = 0.005


def refuse(plan: Plan) -> None:
    """Raise BackendError for what the emulator cannot run, all of it at once."""
    require_torch("the emulator needs")
    scenario = plan.scenario
    clock, sync = scenario.emulator.clock, scenario.sync
    problems = []
    if clock != "paced":
        if plan.order is None:
            problems.append(f"emulator.clock {clock} is for schedules with a fixed batch; use paced")
        problems += [
            f"{key} needs emulator.clock paced, not {clock}"
            for key, given in (
                ("merge", scenario.merge != "none"),
                ("churn", scenario.churn != "none"),
                ("faults", bool(scenario.faults.list)),
            )
            if given
        ]
    if not isinstance(sync, str) and (sync.algorithm != "ring" or sync.every != 1 or sync.overlap or sync.bits != 32.0):
        problems.append(
            "sync: the emulator does {algorithm: ring, every: 1, bits: 32} without overlap; use that, or sim"
        )
    if not isinstance(scenario.merge, str) and scenario.merge.only_simulated:
        keys = ", ".join(f"merge.{name}" for name in scenario.merge.only_simulated)
        problems.append(f"{keys}: the emulator merges by IOTA's butterfly through the store; use that, or sim")
    if scenario.peers.rebalance_every is not None or scenario.peers.rejoin != "own":
        problems.append("peers.rebalance_every and peers.rejoin: the emulator's peers stay with their stage; use sim")
    problems += simulated_alone(scenario)
    boundary = boundary_problem(plan)
    if boundary is not None:
        problems.append(boundary)
    if scenario.recovery.in_flight != "drop":
        problems.append(
            f"recovery.in_flight {scenario.recovery.in_flight}: the emulator's peers drop; use drop, or sim"
        )
    if problems:
        raise BackendError("\n".join(problems))


def not_modelled(plan: Plan, measured: dict[str, float]) -> list[dict[str, str]]:
    """Return warnings about what this run leaves out or does badly."""
    scenario, found = plan.scenario, []
    if scenario.network.transport.synchronous:
        found.append(
            warning(
                "not-modelled",
                "network.transport.synchronous is not emulated: messages are asynchronous",
                "compare with the simulator only with synchronous: false",
            )
        )
    if not isinstance(scenario.churn, str) and scenario.churn.gives_notice:
        found.append(
            warning(
                "not-modelled",
                "churn gives notice, but peers are killed here without having been told",
                "read what was dropped as the most that can be lost, or use sim",
            )
        )
    if is_shortened(scenario):
        found.append(
            warning(
                "shortened",
                "emulator.training and emulator.merges cut the run short: its start and its merges weigh more in all "
                "averages than in the scenario's own run",
                "read the figures within training phases; published figures of whole runs are not compared here",
            )
        )
    transport = scenario.network.transport
    if scenario.emulator.clock == "paced" and (transport.slow_start_after_idle or not transport.keep_warm):
        found.append(
            warning(
                "not-modelled",
                "connections stay open and warm in paced time, whatever network.transport says of that",
                "use keep_warm: true and slow_start_after_idle: false, or clock: virtual",
            )
        )
    if cipher_rate(scenario.network) < inf:
        found.append(
            warning(
                "not-modelled",
                "what encryption costs by network.transport.cipher_rate is in the times, but counts as waiting for "
                "transfer here",
                "see the bar `encryption` of the simulator's waterfall",
            )
        )
    if any(peer.natted for peer in plan.peers):
        found.append(
            warning(
                "not-modelled",
                "NATs and relays are not emulated: all pairs of peers connect directly, at the direct delay",
                "compare with the simulator only with network.nat.natted: 0 and no natted groups",
            )
        )
    if scenario.emulator.width < NOISE_WIDTH:
        found.append(
            warning(
                "small-model",
                f"at width {scenario.emulator.width} Python costs more than the arithmetic",
                f"read no processor times from this run; emulator.width {NOISE_WIDTH} or more gives meaningful ones",
            )
        )
    if scenario.emulator.clock == "cpu":
        shortest_s = min((seconds for kind, seconds in measured.items() if kind != "STEP"), default=1.0)
        message = "processor times drift by -4 to +20 %: this run shows that the work is real, and no more"
        if shortest_s < SHORT_OPERATION_S:
            message += f"; operations of {1e3 * shortest_s:.1f} ms are mostly noise"
        found.append(warning("cpu-clock", message, "use clock: paced or virtual for figures"))
    return found


def emulation_block(plan: Plan, supervisor: "Supervisor", result: RunResult) -> dict[str, Any]:
    """Return the summary's `emulator` block. It may abort the result: a run that was too late is void."""
    block, shape = plan.scenario.emulator, model_shape(plan)
    finals = [m.final for m in supervisor.members if m.final is not None]
    operations = np.array([late for final in finals for late in final["late_s"]])
    frames = np.array([late for final in finals for late in final["frames_late_s"]])
    lateness = {"operations": _quantiles(operations), "messages": _quantiles(frames)}
    worst_s = max(part["p99_s"] for part in lateness.values())
    if block.clock == "paced" and worst_s > block.lateness_limit and not result.aborted:
        result.aborted = (
            f"void: one in a hundred operations or messages was later than {worst_s * 1e3:.0f} ms, the limit is "
            f"{block.lateness_limit * 1e3:.0f} ms; raise emulator.time_dilation or leave the machine alone"
        )
    return {
        "clock": block.clock,
        "time_dilation": supervisor.scales.time_dilation,
        "payload_scale": supervisor.scales.payload_scale,
        "num_processes": len(supervisor.members),
        "encrypted": block.encrypt or block.remote_slots > 0,
        "model": {
            "layers_per_chunk": list(shape.layers_per_chunk),
            "width": shape.hidden,
            "tokens": shape.tokens,
            "boundary_width": shape.boundary_width,
            "dtype": shape.dtype,
        },
        "lateness": lateness,
        "lateness_limit_s": block.lateness_limit,
        "void": result.aborted.startswith("void"),
        "measured_s": supervisor.measured,
        "memory_bytes_per_peer": [
            (m.final or {}).get("memory_bytes", 0) for m in supervisor.members if m.role == "peer"
        ],
        "loss": losses_of(supervisor.record.loss_curve()),
    }


def _quantiles(values: Any) -> dict[str, float]:
    if not len(values):
        return {"p50_s": 0.0, "p99_s": 0.0, "max_s": 0.0, "count": 0}
    p50, p99 = np.quantile(values, [0.5, 0.99])
    return {"p50_s": float(p50), "p99_s": float(p99), "max_s": float(values.max()), "count": len(values)}
