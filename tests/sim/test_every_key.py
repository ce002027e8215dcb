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
from orionbed.scenario.emulation import Emulator
from orionbed.scenario.hardware import Real
from orionbed.scenario.keys import members
from orionbed.scenario.layout import Measured
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
    "peers.gpu": None,
    "peers.gpus": 2,
    "peers.gpu_link": 1e9,
    "peers.sequence_parallel": True,
    "peers.overlap_collectives": False,
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
    "network.transport.synchronous": True,
    "network.site_uplink": 5e6,
    "network.site_downlink": 5e6,
    "network.wan": 3e6,
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
    "faults.list": [{"id": "k1", "at": "1 min", "kind": "crash", "target": "peer:s01r0"}],
    "datacenter.link": 1e8,
    "datacenter.delay": 0.01,
    "datacenter.recompute": "full",
    "datacenter.horizon": 8.0,
    "datacenter.published": {"other": {"mfu": 0.6, "source": "a test"}},
    "cost.gpu_hour": 2.0,
    "cost.egress_per_gb": 0.2,
    "cost.storage_egress_per_gb": 0.2,
    "cost.datacenter_gpu_hour": 5.0,
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
MEASURED = {"peers.measured": {"forward": 0.05, "input_gradient": 0.06, "weight_gradient": 0.02}}

# What must hold for a key to matter.
FIRST: dict[str, dict[str, Any]] = {
    "model.positions": {"model.block": "gpt"},
    "model.attention": {"model.block": "gpt"},
    "pipeline.schedule.chunks": {"pipeline.schedule": {"kind": "interleaved-1f1b", "microbatches": 6, "chunks": 2}},
    "pipeline.schedule.memory_limit": OPPORTUNISTIC,
    "pipeline.schedule.split_backward": OPPORTUNISTIC,
    "peers.gpu_link": {"peers.gpus": 2},
    "peers.sequence_parallel": {"peers.gpus": 2},
    "peers.overlap_collectives": {"peers.gpus": 2},
    "peers.measured.forward": MEASURED,
    "peers.measured.input_gradient": MEASURED,
    "peers.measured.weight_gradient": MEASURED,
    "network.transport.synchronous": FIXED,
    "peers.rebalance_every": {"peers.rejoin": "random"},
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
    "merge.algorithm": "one choice so far",
    "merge.via": "one choice so far",
    "run.samples_horizon": "used by run --samples, tested with it",
    "report.uplinks": "used by the bandwidth curve, tested with it",
    "report.horizon": "used by the bandwidth curve, tested with it",
    "provenance": "prose; shown among the assumptions",
    "uncertain": "drawn from by run --samples, tested with it",
    "faults.seed": "for the backends that inject faults, tested with their resolution",
    "faults.heal_at": "for the backends that inject faults, tested with their resolution",
    **{f"emulator.{name}": "for the emulator, tested with it" for name in Emulator.model_fields},
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


def test_faults_are_said_not_to_be_modelled(base: tuple[Scenario, Path], tmp_path: Path) -> None:
    changed = tmp_path / "changed.yaml"
    changed.write_text(to_yaml(apply(base[0], {"faults": CHANGES["faults.list"]})))
    warnings = json.loads(outcome(str(changed)))[0]["warnings"]
    assert any(entry["code"] == "not-modelled" and "faults" in entry["message"] for entry in warnings)


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
        for name in getattr(kind, "model_fields", ()):
            yield f"{prefix}.{name}"


def test_the_table_names_every_key_of_the_schema(base: tuple[Scenario, Path]) -> None:
    optional = {
        "pipeline.schedule": Schedule, "pipeline.boundary": Boundary, "peers.measured": Measured, "sync": Sync,
    }  # fmt: skip
    keys = {*keys_of(base[0]), *(key for prefix, block in optional.items() for key in choices(prefix, block))}

    def covered(key: str) -> bool:
        below = any(other.startswith(f"{key}.") for other in (*CHANGES, *ELSEWHERE))
        return key in CHANGES or key in ELSEWHERE or below

    assert [key for key in sorted(keys) if not covered(key)] == []
