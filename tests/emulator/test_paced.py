"""Runs against the machine's clock: queues, merges, faults, and what remains of a run that is ended from outside."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from emulator.api import run
from orionbed import waterfall
from orionbed.crosscheck import crosscheck, with_clock
from orionbed.fleet.tls import tls_order
from orionbed.plan import make_plan
from orionbed.results import RunResult
from orionbed.scenario import Scenario, to_yaml

Tiny = Callable[..., Scenario]
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("emulator")]

QUEUE: dict[str, Any] = {
    "pipeline__replicas": 2,
    "pipeline__schedule": {"kind": "queue", "window": 6, "poll_full": 0.1, "connect_timeout": 1.0},
    "peers__sites": {"virginia": 4, "oregon": 2},
    "network__uplink": 10e9,
    "network__downlink": 10e9,
    "network__transport": {"window": 64.0 * 2**20},
    "run__tokens": None,
    "run__duration": 60.0,
}
# Whatever happens in a run: one process that does again what its journal says ends with the same weights.
PACED = {"clock": "paced", "dtype": "float64", "reference": True}


def paced(**more: Any) -> dict[str, Any]:
    return QUEUE | {"emulator": PACED | more.pop("emulator", {})} | more


def is_whole(result: RunResult) -> bool:
    """Whether nothing was lost: every rule of the audit holds, every GPU-second has its cause, weights are right."""
    waterfall.gpu_seconds(result)
    result.ledger.check()
    broken = [rule for rule in result.backend_block["audit"]["rules"] if rule["violations"]]
    assert broken == []
    if result.plan.order is None:
        assert result.backend_block["audit"]["rules"][6]["checked"] == 1
    assert result.trace is not None
    assert result.trace.problems() == []
    return True


def test_a_static_schedule_is_as_fast_as_simulated(tiny: Tiny) -> None:
    # Judged by stamps, which lateness does not move; the generous limit is for machines with other things to do.
    (found,), tolerance = crosscheck(with_clock(tiny(), "paced"), [0])
    assert found.same_order
    assert abs(found.error) <= tolerance


def test_peers_of_one_machine_speak_tls_if_they_are_told_to(tiny: Tiny) -> None:
    pytest.importorskip("cryptography")
    changes = {
        "pipeline__stages": 2, "peers__sites": {"virginia": 1, "oregon": 1}, "run__tokens": 4 * 16384.0,
        "emulator": {"clock": "paced", "encrypt": True, "time_dilation": 0.1},
    }  # fmt: skip
    with patch("emulator.supervisor.tls_order", wraps=tls_order) as ordered:
        result = run(make_plan(tiny(**changes)))
    ordered.assert_called_once()
    assert not result.aborted
    assert is_whole(result)
    assert result.ledger.applied >= 4
    assert result.backend_block["encrypted"]


def test_peers_train_merge_and_train_again(tiny: Tiny) -> None:
    # One peer is lost in the first phase, and comes back with what the first merge made.
    fault = {"id": "k1", "at": 12.0, "kind": "crash", "target": "peer:s01r1", "restart": {"after": 5.0}}
    merging = {"merge": {"every": 20.0, "compute": 2.0}, "emulator": {"merges": 2}, "run__duration": 900.0}
    result = run(make_plan(tiny(**paced(**merging, faults={"list": [fault]}))))
    assert not result.aborted
    assert is_whole(result)
    assert len(result.epochs) == 2
    assert [mark.kind for mark in result.marks if mark.kind != "down"] == ["merge", "merge"]
    committed = [e for e in result.journal if e.event == "committed"]
    assert len({(e.chunk, e.step, e.detail) for e in committed}) == 2 * 3  # replicas are equal after each merge
    losses = result.backend_block["loss"]
    assert losses["last"] < losses["first"]


def test_a_peer_that_is_killed_comes_back_with_anothers_state(tiny: Tiny) -> None:
    fault = {
        "id": "k1",
        "at": 15.0,
        "kind": "crash",
        "target": "peer:s01r1",
        "restart": {"after": 5.0, "state": "lost"},
    }
    result = run(make_plan(tiny(**paced(faults={"list": [fault]}, run__duration=55.0))))
    assert not result.aborted
    assert is_whole(result)
    events = [entry.event for entry in result.journal if entry.peer == 3]
    assert [e for e in events if e in {"crashed", "returned", "adopted"}] == ["crashed", "returned", "adopted"]
    assert "accumulated" in events[events.index("adopted") :]
    (row,) = result.faults
    assert row["hit"]
    assert row["recovered_s"] is not None


def test_every_kind_of_fault_is_survived(tiny: Tiny) -> None:
    links = {"from": "peer:s00r0", "to": "*"}
    faults = [
        {"id": "p1", "at": 10.0, "for": 4.0, "kind": "pause", "target": "peer:s02r0"},
        {"id": "s1", "at": 15.0, "for": 10.0, "kind": "slow", "target": "peer:s00r0", "compute_factor": 3.0},
        {
            "id": "l1",
            "at": 20.0,
            "for": 10.0,
            "kind": "link",
            "capacity": "0.01x",
            "owd": "+50 ms",
            "loss": 0.01,
            **links,
        },
        {"id": "n1", "at": 35.0, "for": 5.0, "kind": "partition", "groups": [["peer:s01r0"], ["*"]], "direction": "to"},
        {"id": "n2", "at": 45.0, "for": 3.0, "kind": "partition", "groups": [["peer:s01r1"], ["*"]], "mode": "reset"},
        {"id": "c1", "at": 50.0, "for": 20.0, "kind": "corrupt", "from": "*", "to": "*", "per_chunk": 0.05},
        {"id": "t1", "at": 55.0, "for": 10.0, "kind": "clock", "target": "peer:s01r0", "offset": "+20 s"},
        {"id": "f1", "at": 60.0, "for": 10.0, "kind": "flap", "period": 2.0, "duty": 0.5, **links},
        {"id": "k2", "at": 72.0, "kind": "crash", "target": "peer:s00r1", "restart": {"after": 5.0, "state": "disk"}},
        {"id": "x1", "at": 500.0, "for": 1.0, "kind": "pause", "target": "peer:s00r0"},
    ]
    scenario = tiny(**paced(run__duration=95.0))
    scenario = type(scenario).model_validate(json.loads(scenario.model_dump_json()) | {"faults": faults})
    result = run(make_plan(scenario))
    assert not result.aborted
    assert is_whole(result)
    hit = {row["id"]: row["hit"] for row in result.faults}
    assert not hit.pop("x1")
    assert all(hit.values())


def test_a_pipeline_gives_up_a_step_whole_and_goes_on(tiny: Tiny) -> None:
    faults = [
        {"id": "k1", "at": 8.0, "kind": "crash", "target": "peer:s01r1", "restart": {"after": 5.0, "state": "lost"}},
        {"id": "k2", "at": 35.0, "kind": "crash", "target": "peer:s02r0", "restart": {"after": 5.0, "state": "disk"}},
    ]
    changes = QUEUE | {
        "pipeline__schedule": {"kind": "1f1b", "microbatches": 4}, "sync": {"algorithm": "ring"},
        "emulator": PACED, "faults": {"list": faults},
    }  # fmt: skip
    result = run(make_plan(tiny(**changes)))
    assert not result.aborted
    assert is_whole(result)  # among the rules: the final weights equal the plain model's on what was applied
    assert result.ledger.dropped_by_reason["step given up"] > 0
    assert all(row["recovered_s"] for row in result.faults)


def test_what_cannot_be_recovered_from_is_reported(tiny: Tiny) -> None:
    fault = {"id": "k1", "at": 10.0, "kind": "crash", "target": "stage:1", "restart": {"after": 5.0, "state": "lost"}}
    result = run(make_plan(tiny(**paced(faults={"list": [fault]}))))
    assert "stage 1 has no other peer to take its state from" in result.aborted
    waterfall.gpu_seconds(result)


@pytest.fixture(name="started")
def _started(tiny: Tiny, tmp_path: Path, leftovers: Any) -> "subprocess.Popen[str]":
    """A run from the command line, up and training."""
    path = tmp_path / "long.yaml"
    path.write_text(to_yaml(tiny(**paced(run__duration=3000.0))), encoding="utf-8")
    command = [
        sys.executable,
        "-m",
        "orionbed",
        "run",
        str(path),
        "--backend",
        "emulator",
        "--runs",
        str(tmp_path / "runs"),
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    leftovers.watch(process.pid)
    assert process.stdout is not None
    for line in process.stdout:
        if "a second of the run takes" in line:
            return process
    raise AssertionError("the run did not start")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_ending_the_supervisor_leaves_nothing(
    started: "subprocess.Popen[str]", tmp_path: Path, number: signal.Signals, leftovers: Any
) -> None:
    assert len(leftovers.processes()) == 7  # the zygote and six peers
    os.kill(max(leftovers.processes()), signal.SIGSTOP)  # even one that stands still goes
    started.send_signal(number)
    status = started.wait(30.0)
    assert started.stdout is not None
    output = started.stdout.read()
    started.stdout.close()
    assert leftovers.gone()
    if number is not signal.SIGKILL:
        assert status == 3, output
        assert not list((tmp_path / "runs").glob("*")), output


def test_a_peer_that_dies_by_itself_ends_the_run_with_its_name(
    started: "subprocess.Popen[str]", leftovers: Any
) -> None:
    time.sleep(1.0)
    newest = max(leftovers.processes())
    os.kill(newest, signal.SIGKILL)
    status = started.wait(60.0)
    assert started.stdout is not None
    output = started.stdout.read()
    started.stdout.close()
    assert status == 3, output
    assert "was killed by SIGKILL, which no fault of the scenario asked for" in output


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_any_list_of_faults_ends_in_recovery_or_a_reported_abort(tiny: Tiny, seed: int) -> None:
    drawn = random.Random(seed)
    scenario = tiny(**paced(run__duration=85.0, emulator={"recovery_deadline": 60.0}))
    faults = [any_fault(drawn, number) for number in range(6)]
    scenario = type(scenario).model_validate(
        json.loads(scenario.model_dump_json()) | {"faults": {"seed": seed, "list": faults, "heal_at": "70 s"}}
    )
    result = run(make_plan(scenario))
    waterfall.gpu_seconds(result)
    result.ledger.check()
    audit = result.backend_block["audit"]
    assert [rule for rule in audit["rules"] if rule["violations"]] == []
    assert not result.aborted or "peer to take its state from" in result.aborted or "recover" in result.aborted
    assert len(result.faults) == len(faults)


def any_fault(drawn: random.Random, number: int) -> dict[str, Any]:
    """A fault of any kind at any time, on anybody."""
    stage, replica = drawn.randrange(3), drawn.randrange(2)
    who = drawn.choice([f"peer:s{stage:02d}r{replica}", f"replica:{replica}", "site:virginia"])
    common = {"id": f"f{number}", "at": drawn.uniform(5.0, 60.0)}
    lasting = common | {"for": drawn.uniform(1.0, 12.0)}
    peer = f"peer:s{stage:02d}r{replica}"
    return drawn.choice(
        [
            common
            | {"kind": "crash", "target": peer, "restart": {"after": 3.0, "state": drawn.choice(["lost", "disk"])}},
            lasting | {"kind": "pause", "target": peer},
            lasting | {"kind": "slow", "target": who, "compute_factor": drawn.uniform(0.5, 4.0)},
            lasting | {"kind": "link", "from": who, "to": "*", "capacity": "0.1x", "owd": "+30 ms"},
            lasting | {"kind": "partition", "groups": [[who], ["*"]], "mode": drawn.choice(["blackhole", "reset"])},
            lasting | {"kind": "corrupt", "from": who, "to": "*", "per_chunk": 0.1},
            lasting | {"kind": "clock", "target": peer, "offset": "-3 s"},
            lasting | {"kind": "flap", "from": who, "to": "*", "period": 2.0, "duty": 0.4},
        ]
    )


def test_a_run_that_is_late_is_void(tiny: Tiny) -> None:
    result = run(make_plan(tiny(**paced(run__duration=10.0, emulator={"lateness_limit": 1e-7}))))
    assert result.aborted.startswith("void: one in a hundred operations or messages was later than")
    assert result.backend_block["void"]


def test_pipelines_with_a_fixed_batch_merge_whole_versions(tiny: Tiny) -> None:
    fault = {
        "id": "k1",
        "at": 12.0,
        "kind": "crash",
        "target": "peer:s01r1",
        "restart": {"after": 5.0, "state": "lost"},
    }
    changes = QUEUE | {
        "pipeline__schedule": {"kind": "1f1b", "microbatches": 4}, "merge": {"every": 20.0, "compute": 2.0},
        "emulator": PACED | {"merges": 2}, "run__duration": 900.0, "faults": {"list": [fault]},
    }  # fmt: skip
    result = run(make_plan(tiny(**changes)))
    assert not result.aborted
    assert is_whole(result)
    adopted = [entry.step for entry in result.journal if entry.event == "adopted" and entry.peer == 3]
    committed = {(e.step, e.detail) for e in result.journal if e.event == "committed" and e.chunk == 0}
    assert adopted
    assert len(result.epochs) == 2
    assert len(committed) > 4
