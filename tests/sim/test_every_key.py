"""Every key of the scenario is live: changing it changes the result, or the run says that it is not modelled here.

A knob without effect is the classic bug of simulators, so the table below must name every key of the schema.
"""

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from orionbed.plan import make_plan
from orionbed.scenario import Scenario, apply, load, to_yaml
from orionbed.scenario.churn import Bulk, Diurnal, Flapping, Liquid
from orionbed.scenario.emulation import Emulator
from orionbed.scenario.groups import Group
from orionbed.scenario.hardware import Real
from orionbed.scenario.keys import members, names_of
from orionbed.scenario.layout import Measured
from orionbed.scenario.merging import Codec, Deadline
from orionbed.scenario.network import Relay
from orionbed.scenario.orchestrator import BridgeBlock, Kick, Orchestrator, Store, Trigger
from orionbed.scenario.schedules import Boundary, Schedule
from orionbed.scenario.sections import Sync
from orionbed.schedule.text import to_csv
from orionbed.summary import summarise
from orionbed.tables import marks, peers, stages, steps
from sim.api import run, simulate_baseline

TRACE = """t,peer,dir,bps
0,s00r0,up,5000000
0,s00r0,down,5000000
"""

# A small run in which everything happens: losses, merges, churn, cold connections, shared caps.
BASE: dict[str, Any] = {
    "model": {"layers": 6, "hidden": 256, "ffn": 1024, "heads": 4, "kv_heads": 2, "vocab": 1000},
    "batch": {"sequence": 256, "sequences": 4},
    "pipeline.stages": 3,
    "pipeline.replicas": 2,
    "pipeline.boundary": {"kind": "resbm", "width": 64},
    "pipeline.schedule": {
        "kind": "queue", "window": 3, "router": "swarm", "status_every": 0.5, "cache_ttl": 2.0, "connect_timeout": 0.2,
        "attempts": 2, "local_step_every": 3,
    },
    "peers.sites": {"virginia": 2, "ohio": 2, "oregon": 2},
    "peers.overhead": 0.03,
    "peers.speed": {"dist": "lognormal", "median": 1.0, "sigma": 0.2},
    "peers.jitter": 0.05,
    "network.uplink": {"dist": "lognormal", "median": 2e7, "sigma": 0.5},
    "network.downlink": {"dist": "lognormal", "median": 3e7, "sigma": 0.4},
    "network.jitter": {"sd": 0.001, "spike_probability": 0.05},
    "network.variability": "cloud",
    "network.transport": {"window": 65536.0, "keep_warm": False, "loss": 1e-4, "slow_start_after_idle": True},
    "network.storage": {"delay": 0.02, "streams": 2},
    "merge": {"every": 12.0, "compute": 0.5, "quorum_every": 0.4, "quorum_relax": 0.05, "quorum_floor": 0.4},
    "churn": {"up": {"dist": "weibull", "shape": 0.7, "scale": 25.0}, "down": {"dist": "exponential", "mean": 3.0}},
    "datacenter": {
        "link": 1e9, "delay": 1e-4, "horizon": 30.0, "published": {"other": {"mfu": 0.5, "source": "a test"}},
    },
    "cost": {"gpu_hour": 1.25, "egress_per_gb": 0.05, "storage_egress_per_gb": 0.01, "datacenter_gpu_hour": 2.0,
             "prices_as_of": "2026-06"},
    "run": {"duration": 70.0, "seed": 2, "startup": 1.0, "trace_from": 10.0, "trace_for": 5.0, "peak_window": 20.0,
            "trace": "window"},
    "report": {"uplinks": []},
    "published": [{"quantity": "mfu.wall_clock", "value": 0.1, "source": "a test"}],
    "provenance": {},
    "uncertain": {},
}  # fmt: skip

# Parts of `churn` that do something within seconds.
FLAPPING = {"up": {"dist": "exponential", "mean": 12.0}, "down": 1.0}
BULK = {"of": "stage", "rate_per_hour": 300.0, "down": 2.0}
WINDOW = {"at": 4.0, "for": 2.0}
LIQUID = {"market": 1.25, "repriced_every": 2.0, "reverts_in": 10.0}
DIURNAL = {"available_from": 86380.0, "available_until": 25.0}
PARTS = {"flapping": FLAPPING, "bulk": BULK, "windows": [WINDOW], "liquid": LIQUID, "diurnal": DIURNAL}

# The same six peers in two groups of different GPUs.
GROUPS: list[dict[str, Any]] = [
    {"name": "large", "count": 3, "gpu": "a100-80gb", "sites": {"virginia": 2, "ohio": 1}},
    {"name": "small", "count": 3, "gpu": "rtx-4090-24gb", "sites": {"ohio": 1, "oregon": 2}},
]
IN_GROUPS: dict[str, Any] = {"peers.gpu": None, "peers.sites": None, "peers.groups": GROUPS}
NATTED: dict[str, Any] = {"network.nat.natted": 1.0, "network.nat.punch": 0.0}


def _small_group(**changes: Any) -> dict[str, Any]:
    return {"peers.groups": [GROUPS[0], GROUPS[1] | changes]}


CHANGES: dict[str, Any] = {
    "model.layers": 9,
    "model.hidden": 512,
    "model.ffn": 2048,
    "model.heads": 8,
    "model.kv_heads": 4,
    "model.vocab": 3000,
    "model.tied_embeddings": True,
    "model.dtype": "fp32",
    "model.block": "gpt",
    "model.positions": 256,
    "model.attention": "unfused",
    "model.optimizer.state_bytes_per_parameter": 16,
    "batch.sequence": 300,
    "batch.sequences": 5,
    "pipeline.stages": {"pipeline.stages": 2, "peers.sites": {"virginia": 2, "ohio": 2}},
    "pipeline.replicas": {"pipeline.replicas": 1, "peers.sites": {"virginia": 1, "ohio": 1, "oregon": 1}},
    "pipeline.split": [1, 2, 3],
    "pipeline.boundary.kind": {"pipeline.boundary": {"kind": "none"}},
    "pipeline.boundary.width": 128,
    "pipeline.boundary.encoder": "mlp",
    "pipeline.boundary.encoder_width": 32,
    "pipeline.boundary.error_feedback": False,
    "pipeline.boundary.bits": {"pipeline.boundary": {"kind": "quantize", "bits": 4}},
    "pipeline.boundary.keep": {"pipeline.boundary": {"kind": "topk", "keep": 10}},
    "pipeline.schedule.kind": {"pipeline.schedule": {"kind": "1f1b", "microbatches": 6}},
    "pipeline.schedule.microbatches": {"pipeline.schedule": {"kind": "gpipe", "microbatches": 4}},
    "pipeline.schedule.chunks": 1,
    "pipeline.schedule.memory_limit": 1,
    "pipeline.schedule.split_backward": True,
    "pipeline.schedule.file": None,
    "pipeline.schedule.window": 5,
    "pipeline.schedule.router": "random",
    "pipeline.schedule.status_every": 2.0,
    "pipeline.schedule.local_step_every": 2,
    "pipeline.schedule.recompute": "selective",
    "pipeline.schedule.cache_ttl": 8.0,
    "pipeline.schedule.connect_timeout": 1.0,
    "pipeline.schedule.attempts": 1,
    "pipeline.schedule.poll_loop": 0.02,
    "pipeline.schedule.poll_empty": 0.03,
    "pipeline.schedule.poll_full": 0.3,
    "pipeline.schedule.via": "object-storage",
    "pipeline.schedule.store.request": 0.5,
    "pipeline.schedule.store.poll_every": 2.0,
    "pipeline.schedule.store.timeout": 0.02,
    "pipeline.schedule.retry.backoff": 1.0,
    "pipeline.schedule.retry.backoff_cap": 0.6,
    "pipeline.schedule.retry.push_timeout": 0.2,
    "pipeline.schedule.retry.drop_after": 0.1,
    "pipeline.schedule.retry.backward": True,
    "pipeline.schedule.retry.concurrent": 1,
    "pipeline.schedule.knowledge": {},
    "pipeline.schedule.knowledge.poll_every": 0.4,
    "pipeline.schedule.knowledge.keep_alive_every": 1.0,
    "pipeline.schedule.knowledge.evict_after": 8.0,
    "pipeline.schedule.knowledge.delay": 0.5,
    "orchestrator": {},
    "orchestrator.request": 1.0,
    "orchestrator.speed_test": 5e6,
    "orchestrator.failure": 0.5,
    "orchestrator.assign": "poorest",
    "orchestrator.warm_up": 1,
    "orchestrator.share_optimizer_state": True,
    "orchestrator.backoff": 1.0,
    "orchestrator.backoff_cap": 2.0,
    "orchestrator.backoff_jitter": 0.5,
    "orchestrator.kick": {"policy": "bottom-n"},
    "orchestrator.kick.policy": "threshold",
    "orchestrator.kick.number": 2,
    "orchestrator.kick.below": 0.99,
    "orchestrator.kick.for": 5.0,
    "orchestrator.trigger": {},
    "orchestrator.trigger.share": 0.3,
    "orchestrator.trigger.backwards": 15,
    "orchestrator.trigger.check_every": 2.0,
    "orchestrator.timeout": 7.0,
    "peers.gpu": None,
    "peers.gpus": 2,
    "peers.gpu_link": 1e9,
    "peers.sequence_parallel": True,
    "peers.overlap_collectives": False,
    "peers.groups": IN_GROUPS,
    "peers.groups.name": _small_group(name="other"),
    "peers.groups.count": {
        "peers.groups": [GROUPS[0] | {"count": 2, "sites": "ohio"}, GROUPS[1] | {"count": 4, "sites": "ohio"}]
    },
    "peers.groups.gpu": _small_group(gpu="l4-24gb"),
    "peers.groups.sites": _small_group(sites="ohio"),
    "peers.groups.speed": _small_group(speed=0.5),
    "peers.groups.efficiency": _small_group(efficiency=0.3),
    "peers.groups.kernel_scale": _small_group(kernel_scale=0.5),
    "peers.groups.overhead": _small_group(overhead=0.1),
    "peers.groups.links": _small_group(links="home-us-2022"),
    "peers.groups.uplink": _small_group(uplink=1e7),
    "peers.groups.downlink": _small_group(downlink=1e7),
    "peers.groups.correlation": _small_group(correlation=-0.9),
    "peers.groups.natted": _small_group(natted=1.0),
    "peers.groups.price": _small_group(price=0.3),
    "peers.assignment": "balanced",
    "peers.measured": {"forward": 0.05, "input_gradient": 0.06, "weight_gradient": 0.02},
    "peers.measured.forward": [0.05, 0.07, 0.05],
    "peers.measured.input_gradient": 0.08,
    "peers.measured.weight_gradient": 0.05,
    "peers.rebalance_every": 2.0,
    "peers.rejoin": "random",
    "peers.efficiency": 0.2,
    "peers.kernel_scale": 0.5,
    "peers.sites": {"virginia": 4, "ohio": 1, "oregon": 1},
    "peers.placement": "grouped",
    "peers.speed": 1.0,
    "peers.jitter": 0.2,
    "peers.overhead": 0.06,
    "network.uplink": 1e7,
    "network.downlink": 1e7,
    "network.correlation": -0.9,
    "network.rate_is": "l2",
    "network.delay": 0.08,
    "network.delay_inside": 0.05,
    "network.jitter": "none",
    "network.jitter.sd": 0.01,
    "network.jitter.spike_probability": 0.5,
    "network.jitter.spike": 0.5,
    "network.variability": "bad",
    "network.transport.streams": 3,
    "network.transport.window": 20000.0,
    "network.transport.initial_window": 29e3,
    "network.transport.keep_warm": True,
    "network.transport.slow_start_after_idle": False,
    "network.transport.loss": 1e-2,
    "network.transport.congestion": "bbr",
    "network.transport.tls": False,
    "network.transport.cipher_rate": 2e6,
    "network.transport.synchronous": True,
    "network.site_uplink": 5e6,
    "network.site_downlink": 5e6,
    "network.wan": 3e6,
    "network.nat.natted": 1.0,
    "network.nat.punch": 1.0,
    "network.nat.relay.rate": 1e6,
    "network.nat.relay.delay": 0.3,
    "network.nat.relay.site": "oregon",
    "network.nat.relay.capacity": 2e6,
    "network.storage.delay": 0.2,
    "network.storage.streams": 1,
    "network.storage.rate": 2e6,
    "merge": "none",
    "merge.every": 20.0,
    "merge.quorum_relax": 0.5,
    "merge.quorum_every": 2.0,
    "merge.quorum_floor": 1.0,
    "merge.compute": 2.0,
    "merge.timeout": 1.0,
    "merge.algorithm": "ring",
    "merge.via": "object-storage",
    "merge.partitions": "pairs",
    "merge.group_size": 2,
    "merge.rounds": 3,
    "merge.codec.kind": {"merge.codec": {"kind": "int8"}},
    "merge.codec.encode": 0.5,
    "merge.codec.decode": 0.5,
    "merge.codec.keep": 256,
    "merge.codec.chunk": 512,
    "merge.codec.bits": 8,
    "merge.codec.share": 0.5,
    "merge.outer": "none",
    "merge.fragments": 2,
    "merge.overlap": True,
    "merge.flush": False,
    "merge.deadline.kind": {"merge.deadline": {"kind": "all"}},
    "merge.deadline.wait": 0.4,
    "merge.deadline.k": 0.2,
    "merge.deadline.after": 1.0,
    "merge.deadline.quorum": 0.2,
    "merge.deadline.grace": 0.1,
    "merge.failure": 0.5,
    "merge.failure_timeout": 0.5,
    "merge.coverage_floor": 1.0,
    "merge.attempts": 1,
    "sync": {"algorithm": "ring"},
    "sync.algorithm": "gather",
    "sync.every": 2,
    "sync.bits": 8.0,
    "sync.fragments": 2,
    "sync.overlap": True,
    "sync.buckets": 1,
    "sync.behind": 2,
    "sync.compute": 0.5,
    "churn": "none",
    "churn.up": 30.0,
    "churn.down": 9.0,
    "churn.preset": "hardware-llama3",
    "churn.flapping": FLAPPING,
    "churn.flapping.who": "replica:0",
    "churn.flapping.share": 0.4,
    "churn.flapping.up": 7.0,
    "churn.flapping.down": 3.0,
    "churn.bulk": BULK,
    "churn.bulk.of": "all",
    "churn.bulk.rate_per_hour": 900.0,
    "churn.bulk.mean_size": 1.1,
    "churn.bulk.share": 0.5,
    "churn.bulk.down": 3.0,
    "churn.bulk.notice": 20.0,
    "churn.trace": None,
    "churn.windows": [WINDOW],
    "churn.windows.0.at": 8.0,
    "churn.windows.0.for": 3.0,
    "churn.windows.0.every": 15.0,
    "churn.windows.0.who": "stage:1",
    "churn.windows.0.stagger": 0.5,
    "churn.windows.0.notice": 1.5,
    "churn.liquid": LIQUID,
    "churn.liquid.who": "replica:1",
    "churn.liquid.share": 0.4,
    "churn.liquid.pay": 1.6,
    "churn.liquid.market": 1.7,
    "churn.liquid.sigma": 0.6,
    "churn.liquid.reverts_in": 60.0,
    "churn.liquid.spread": 0.5,
    "churn.liquid.repriced_every": 3.0,
    "churn.diurnal": DIURNAL,
    "churn.diurnal.who": "site:ohio",
    "churn.diurnal.available_from": 5.0,
    "churn.diurnal.available_until": 15.0,
    "churn.diurnal.jitter": 5.0,
    "churn.diurnal.attendance": 0.3,
    "churn.diurnal.starts_at": 5.0,
    "churn.diurnal.utc_offset": {"ohio": 10.0},
    "recovery.in_flight": "resend",
    "recovery.detect": 3.0,
    "recovery.reconfigure": 2.0,
    "recovery.redundant": 0.0,
    "faults.list": [{"id": "k1", "at": "1 min", "kind": "crash", "target": "peer:s01r0"}],
    "faults.seed": 5,
    "faults.heal_at": 40.0,
    "datacenter.link": 1e8,
    "datacenter.delay": 0.01,
    "datacenter.recompute": "full",
    "datacenter.horizon": 8.0,
    "datacenter.published": {"other": {"mfu": 0.6, "source": "a test"}},
    "cost.gpu_hour": 2.0,
    "cost.egress_per_gb": 0.2,
    "cost.storage_egress_per_gb": 0.2,
    "cost.datacenter_gpu_hour": 5.0,
    "cost.pay_absent": False,
    "cost.prices_as_of": "2027-01",
    "run.tokens": 5_000.0,
    "run.duration": 60.0,
    "run.seed": 3,
    "run.startup": 3.0,
    "run.trace": "summary",
    "run.trace_from": 20.0,
    "run.trace_for": 2.0,
    "run.peak_window": 10.0,
    "published": [],
    "title": "another",
}  # fmt: skip

FIXED = {"pipeline.schedule": {"kind": "1f1b", "microbatches": 6}, "merge": "none"}
SYNCED = FIXED | {"sync": {"algorithm": "ring"}}
LOCAL = FIXED | {"sync": {"algorithm": "ring", "every": 4}}
OPPORTUNISTIC = {"pipeline.schedule": {"kind": "opportunistic", "microbatches": 6}}
THREE = {"pipeline.stages": 2, "pipeline.replicas": 3}
MEASURED = {"peers.measured": {"forward": 0.05, "input_gradient": 0.06, "weight_gradient": 0.02}}

HASTY = {"pipeline.schedule.retry.push_timeout": 0.4, "pipeline.schedule.attempts": 5, "churn.up": 8.0}
STORED = {"pipeline.schedule.via": "object-storage"}
BRIDGED = {"pipeline.schedule.knowledge": {"keep_alive_every": 2.0, "poll_every": 1.0, "evict_after": 20.0}}
ORCHESTRATED = {"orchestrator": {"speed_test": 1e6}}
RESET = {"orchestrator": {"speed_test": 1e6, "failure": 0.5, "backoff": 3.0}}
KICKED = {"churn": "none", "orchestrator": {"speed_test": 1e6, "kick": {"policy": "bottom-n"}}}
THRESHOLD = {"churn": "none", "orchestrator": {"speed_test": 1e6, "kick": {"policy": "threshold", "below": 0.1}}}
TRIGGERED = {"churn": "none", "orchestrator": {"speed_test": 1e6, "trigger": {"backwards": 5, "check_every": 1.0}}}
NEVER = {"speed_test": 1e6, "trigger": {"backwards": 10**6}, "timeout": 10.0}
IMPATIENT = {"churn": "none", "orchestrator": NEVER}

RING = {"merge.algorithm": "ring", "churn": "none"}
GATHER = {"merge.algorithm": "gather"}
SILENT = {"merge.failure": 0.4, "merge.failure_timeout": 2.0, "churn": "none"}

# What must hold for a key to matter.
SLOW = {"id": "s1", "at": 20.0, "kind": "slow", "target": {"pick": "one", "of": "*"}, "compute_factor": 9.0}
FIRST: dict[str, dict[str, Any]] = {
    "recovery.detect": {"recovery.in_flight": "resend"},
    "recovery.reconfigure": {"recovery.in_flight": "iteration"},
    "recovery.redundant": {"recovery.in_flight": "neighbour"},
    "faults.seed": {"faults.list": [SLOW]},
    "faults.heal_at": {"faults.list": [SLOW]},
    "model.positions": {"model.block": "gpt"},
    "model.attention": {"model.block": "gpt"},
    "pipeline.boundary.encoder_width": {"pipeline.boundary": {"kind": "resbm", "width": 64, "encoder": "mlp"}},
    "pipeline.boundary.error_feedback": {"pipeline.boundary": {"kind": "quantize", "bits": 8}},
    "pipeline.schedule.chunks": {"pipeline.schedule": {"kind": "interleaved-1f1b", "microbatches": 6, "chunks": 2}},
    "pipeline.schedule.memory_limit": OPPORTUNISTIC,
    "pipeline.schedule.split_backward": OPPORTUNISTIC,
    **{f"pipeline.schedule.store.{name}": STORED for name in Store.model_fields},
    "pipeline.schedule.retry.backward": HASTY,
    "pipeline.schedule.retry.backoff_cap": {"pipeline.schedule.retry.backoff": 1.0},
    **{f"pipeline.schedule.knowledge.{name}": BRIDGED for name in BridgeBlock.model_fields},
    **{f"orchestrator.{name}": ORCHESTRATED for name in Orchestrator.model_fields},
    **{f"orchestrator.backoff{end}": RESET for end in ("", "_cap", "_jitter")},
    **{f"orchestrator.kick.{name}": KICKED for name in names_of(Kick)},
    "orchestrator.kick.below": THRESHOLD,
    **{f"orchestrator.trigger.{name}": TRIGGERED for name in Trigger.model_fields},
    "orchestrator.timeout": IMPATIENT,
    "peers.gpu_link": {"peers.gpus": 2},
    "peers.sequence_parallel": {"peers.gpus": 2},
    "peers.overlap_collectives": {"peers.gpus": 2},
    **{f"peers.groups.{name}": IN_GROUPS for name in Group.model_fields},
    "peers.groups.natted": IN_GROUPS | {"network.nat.punch": 0.0},
    "peers.assignment": IN_GROUPS,
    "network.nat.natted": {"network.nat.punch": 0.0},
    "network.nat.punch": NATTED,
    **{f"network.nat.relay.{name}": NATTED for name in Relay.model_fields},
    "peers.measured.forward": MEASURED,
    "peers.measured.input_gradient": MEASURED,
    "peers.measured.weight_gradient": MEASURED,
    "network.transport.synchronous": FIXED,
    "peers.rebalance_every": {"peers.rejoin": "random"},
    "churn.preset": {"churn": {"preset": "marketplace"}, "run.duration": 280.0},
    **{
        key: {"churn": {key.split(".")[1]: PARTS[key.split(".")[1]]}, "run.duration": 40.0}
        for key in CHANGES
        if key.startswith("churn.") and key.split(".")[1] in PARTS and key.count(".") > 1
    },
    "churn.bulk.mean_size": {"churn": {"bulk": BULK | {"of": "all"}}, "run.duration": 40.0},
    "cost.pay_absent": {"churn": {"windows": [WINDOW]}},
    "merge.via": RING,
    # With three peers of a stage both schemes leave the same, whoever is silent.
    "merge.partitions": SILENT
    | {
        "pipeline.stages": 1,
        "pipeline.replicas": 8,
        "peers.sites": {"virginia": 8, "ohio": 0, "oregon": 0},
        "network.uplink": 1e9,
        "network.downlink": 1e9,
        "network.transport": {"window": 1e9},
        "merge.deadline": {"kind": "fixed", "wait": 2.0},
        "merge.every": 6.0,
    },
    "merge.group_size": THREE | {"merge.algorithm": "grouped", "churn": "none"},
    "merge.rounds": RING | {"merge.algorithm": "grouped"},
    "merge.codec.encode": RING | {"merge.codec": {"kind": "int8"}},
    "merge.codec.decode": RING | {"merge.codec": {"kind": "int8"}},
    "merge.codec.keep": GATHER | {"merge.codec": {"kind": "sparse"}},
    "merge.codec.chunk": GATHER | {"merge.codec": {"kind": "sparse"}},
    "merge.codec.bits": GATHER | {"merge.codec": {"kind": "sparse"}},
    "merge.codec.share": {"merge.codec": {"kind": "sparta"}},
    "merge.overlap": RING,
    "merge.deadline.wait": {"merge.deadline": {"kind": "fixed", "wait": 1.0}},
    "merge.deadline.k": {"merge.deadline": {"kind": "mad", "k": 3.0}},
    "merge.deadline.after": {"merge.deadline": {"kind": "mad", "k": 0.5}},
    "merge.deadline.quorum": {"merge.deadline": {"kind": "quorum-grace", "grace": 0.2}},
    "merge.deadline.grace": {"merge.deadline": {"kind": "quorum-grace"}},
    "merge.failure_timeout": RING | SILENT,
    "merge.coverage_floor": SILENT | {"merge.failure": 0.7, "merge.deadline": {"kind": "fixed", "wait": 3.0}},
    "merge.attempts": RING | SILENT,
    "sync": FIXED,
    "sync.algorithm": SYNCED,
    "sync.every": SYNCED,
    "sync.bits": SYNCED,
    "sync.fragments": LOCAL,
    "sync.overlap": SYNCED,
    "sync.buckets": FIXED | {"sync": {"algorithm": "ring", "overlap": True}},
    "sync.behind": FIXED | {"sync": {"algorithm": "ring", "every": 4, "overlap": True}},
    "sync.compute": SYNCED,
    "network.transport.slow_start_after_idle": {"network.transport.keep_warm": True},
    "network.transport.congestion": {"network.transport.loss": 1e-2, "network.transport.window": 1e6},
}

ELSEWHERE = {
    "name": "names the run, not what happens in it",
    "model.optimizer.name": "a label for the reader; memory and time have keys of their own",
    "run.samples_horizon": "used by run --samples, tested with it",
    "report.uplinks": "used by the bandwidth curve, tested with it",
    "report.horizon": "used by the bandwidth curve, tested with it",
    "provenance": "prose; shown among the assumptions",
    "uncertain": "drawn from by run --samples, tested with it",
    **{f"emulator.{name}": "for the emulator, tested with it" for name in Emulator.model_fields},
    "training": "what is learned; the simulator computes nothing, and `orionbed train` tests it",
    **{f"real.{name}": "for the real backend, tested with it" for name in Real.model_fields},
}


@cache
def outcome(scenario_text: str) -> str:
    path = Path(scenario_text)
    scenario = load(path)
    result = run(make_plan(scenario))
    baseline = simulate_baseline(scenario, scenario.run.seed)
    summary = summarise(result, baseline, git="", started_at="")
    for volatile in ("wall_s", "engine", "assumptions"):
        del summary[volatile]
    trace = [] if result.trace is None else [result.trace.num_spans, result.trace["start_s"].sum()]
    tables = [table(result) for table in (steps, marks, stages, peers)]
    return json.dumps([summary, tables, [float(x) for x in trace]], default=str)


@pytest.fixture(name="base", scope="module")
def _base(tmp_path_factory: pytest.TempPathFactory) -> tuple[Scenario, Path]:
    scenario = apply(load("minimal"), BASE)
    path = tmp_path_factory.mktemp("keys") / "base.yaml"
    path.write_text(to_yaml(scenario))
    return scenario, path


@pytest.mark.parametrize("key", [key for key in CHANGES if CHANGES[key] is not None])
def test_changing_a_key_changes_the_result(base: tuple[Scenario, Path], tmp_path: Path, key: str) -> None:
    scenario, path = base
    change = CHANGES[key]
    several = isinstance(change, dict) and any("." in str(name) for name in change)
    before = path
    if key in FIRST:
        scenario = apply(scenario, FIRST[key])
        before = tmp_path / "before.yaml"
        before.write_text(to_yaml(scenario))
    after = tmp_path / "changed.yaml"
    after.write_text(to_yaml(apply(scenario, change if several else {key: change})))
    assert outcome(str(after)) != outcome(str(before)), f"{key} has no effect"


def test_another_gpu_changes_the_result(base: tuple[Scenario, Path], tmp_path: Path) -> None:
    scenario, path = base
    profile = yaml.safe_load(Path("scenarios/gpus/a100-80gb.yaml").read_text())
    slower = tmp_path / "slower.yaml"
    slower.write_text(yaml.safe_dump(profile | {"name": "slower", "peak": "100 TFLOP/s"}))
    changed = tmp_path / "changed.yaml"
    changed.write_text(to_yaml(apply(scenario, {"peers.gpu": str(slower)})))
    assert outcome(str(changed)) != outcome(str(path))


@pytest.mark.parametrize("kind", ["gpipe", "zb-h1"])
def test_another_schedule_file_changes_the_result(base: tuple[Scenario, Path], tmp_path: Path, kind: str) -> None:
    outcomes = []
    for name in ("1f1b", kind):
        plan = make_plan(apply(base[0], {"pipeline.schedule": {"kind": name, "microbatches": 6}}))
        assert plan.order is not None
        order = tmp_path / f"{name}.csv"
        order.write_text(to_csv(plan.order))
        changed = tmp_path / f"{name}.yaml"
        changed.write_text(to_yaml(apply(base[0], {"pipeline.schedule": {"kind": "csv", "file": str(order)}})))
        outcomes.append(outcome(str(changed)))
    assert outcomes[0] != outcomes[1]


def test_a_bandwidth_trace_changes_the_result(base: tuple[Scenario, Path], tmp_path: Path) -> None:
    scenario, path = base
    trace = tmp_path / "links.csv"
    trace.write_text(TRACE)
    changed = tmp_path / "changed.yaml"
    changed.write_text(to_yaml(apply(scenario, {"network.variability": str(trace)})))
    assert outcome(str(changed)) != outcome(str(path))


def test_a_churn_trace_changes_the_result(base: tuple[Scenario, Path], tmp_path: Path) -> None:
    scenario, path = base
    trace = tmp_path / "churn.csv"
    trace.write_text("t,peer,state\n5,s00r0,down\n9,s00r0,up\n")
    changed = tmp_path / "changed.yaml"
    changed.write_text(to_yaml(apply(scenario, {"churn.trace": str(trace)})))
    assert outcome(str(changed)) != outcome(str(path))


def keys_of(block: Any, prefix: str = "") -> Iterator[str]:
    """Keys of the schema down to the level the table names them at."""
    for name in type(block).model_fields:
        key = f"{prefix}{name}"
        yield key
        value = getattr(block, name)
        if hasattr(type(value), "model_fields") and not hasattr(value, "sample"):
            yield from keys_of(value, f"{key}.")


def choices(prefix: str, block: Any) -> Iterator[str]:
    """Keys of a block of which a scenario has one kind or none."""
    for kind in members(block):
        for inner in getattr(kind, "__args__", ()):
            yield from choices(prefix, inner)
        for name in names_of(kind) if hasattr(kind, "model_fields") else ():
            yield f"{prefix}.{name}"


def test_the_table_names_every_key_of_the_schema(base: tuple[Scenario, Path]) -> None:
    optional = {
        "pipeline.schedule": Schedule, "pipeline.boundary": Boundary, "peers.measured": Measured, "sync": Sync,
        "merge.codec": Codec, "merge.deadline": Deadline,
        "peers.groups": Group,
        "pipeline.schedule.knowledge": BridgeBlock, "orchestrator": Orchestrator, "orchestrator.kick": Kick,
        "orchestrator.trigger": Trigger,
        "churn.flapping": Flapping, "churn.bulk": Bulk, "churn.liquid": Liquid, "churn.diurnal": Diurnal,
    }  # fmt: skip
    keys = {*keys_of(base[0]), *(key for prefix, block in optional.items() for key in choices(prefix, block))}

    def covered(key: str) -> bool:
        below = any(other.startswith(f"{key}.") for other in (*CHANGES, *ELSEWHERE))
        return key in CHANGES or key in ELSEWHERE or below or key.startswith("training.")

    assert [key for key in sorted(keys) if not covered(key)] == []
