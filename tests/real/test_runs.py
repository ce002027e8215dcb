"""Whole runs on this machine's processor: their ledger, their order, their weights, and how they end."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from orionbed.backends import load as load_backend
from orionbed.checkpoints.survey import survey
from orionbed.crosscheck import _same_order
from orionbed.keys import Key, Trusted
from orionbed.plan import make_plan
from orionbed.scenario import Scenario, to_yaml
from orionbed.waterfall import gpu_seconds
from real.api import dry_run, run

pytestmark = [pytest.mark.xdist_group("real"), pytest.mark.timeout(300), pytest.mark.usefixtures("leaves_nothing")]

Tiny = Callable[..., Scenario]
FOUR: dict[str, Any] = {"pipeline__stages": 4, "peers__sites": {"here": 4}}
TWO_BY_TWO: dict[str, Any] = {"pipeline__replicas": 2, "peers__sites": {"here": 4}, "sync": {}}


@pytest.mark.parametrize(
    "changes",
    [
        {"pipeline__schedule": {"kind": "zb-v", "microbatches": 4, "recompute": "full"}},
        {
            **TWO_BY_TWO,
            "pipeline__schedule": {"kind": "zb-h1", "microbatches": 3, "recompute": "selective"},
            "real": {"transport": "tcp"},
        },
    ],
    ids=["zb-v-2", "zb-h1-2x2-tcp"],
)
def test_a_run_trains_as_the_plain_model_does_in_the_order_of_the_simulator(
    tiny: Tiny, changes: Any, described: Callable[[dict[str, Any]], list[str]]
) -> None:
    plan = make_plan(tiny(**changes))
    result = run(plan)
    assert result.aborted == ""
    block = result.backend_block
    assert described(block) == []
    assert block["reference_difference"] < 1e-10
    assert block["audit"]["ok"]
    assert block["steps"]["measured"] == 2
    assert result.ledger.applied == result.ledger.created == 2 * plan.num_replicas * result.plan.order.num_microbatches  # type: ignore[union-attr]
    assert gpu_seconds(result).sum() == pytest.approx(result.duration_s * len(plan.peers))
    assert _same_order(load_backend("sim").run(result.plan, seed=0), result)
    assert not result.has_baseline, "the profile is that of a GPU"
    assert block["profile"]["peak_source"] == "measured before this run"
    assert block["encrypted"] == (block["transport"] == "tcp")


def test_a_run_of_a_length_ends_about_then(tiny: Tiny) -> None:
    changes: dict[str, Any] = {"run__tokens": None, "run__duration": 0.5}
    result = run(make_plan(tiny(real={"steps": None}, **changes)))
    assert result.backend_block["steps"]["measured"] >= 2
    assert 0.1 < result.duration_s < 5.0


def test_a_dry_run_starts_nothing_and_says_what_it_would_start(tiny: Tiny) -> None:
    lines = "\n".join(dry_run(make_plan(tiny(**FOUR))))
    assert "4 processes on this machine, cpu, gloo" in lines
    assert "torchrun --nproc-per-node 4 --standalone" in lines
    queue = "\n".join(dry_run(make_plan(tiny(pipeline__schedule={"kind": "queue", "window": 2}))))
    assert "RANK=1 WORLD_SIZE=2" in queue


# ---------------------------------------------------------------- how runs end


Started = Callable[[Scenario], "subprocess.Popen[str]"]


@pytest.fixture
def started(tmp_path: Path, leaves_nothing: object) -> Iterator[Started]:
    """Start runs in processes of their own, which are ended whatever becomes of the test."""
    processes: list[subprocess.Popen[str]] = []

    def start(scenario: Scenario) -> "subprocess.Popen[str]":
        path = tmp_path / "scenario.yaml"
        path.write_text(to_yaml(scenario), encoding="utf-8")
        command = [
            sys.executable,
            "-m",
            "orionbed",
            "run",
            str(path),
            "--backend",
            "real",
            "--out",
            str(tmp_path / "out"),
        ]
        processes.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
        return processes[-1]

    yield start
    for process in processes:
        if process.poll() is None:
            process.terminate()
            process.communicate(timeout=30)


def until_it_trains(process: "subprocess.Popen[str]") -> list[int]:
    """Wait until what counts has begun, and a moment more; return the processes of the run by rank."""
    assert process.stdout is not None
    for line in process.stdout:
        if "what counts begins" in line:
            break
    threading.Thread(target=process.stdout.read, daemon=True).start()
    time.sleep(1.0)
    found = ranks()
    return [found[rank] for rank in sorted(found)]


def ranks() -> dict[int, int]:
    """Return the processes of this test's run by rank."""
    found = {}
    mine = f"TMPDIR={os.environ['TMPDIR']}".encode()
    for folder in Path("/proc").iterdir():
        try:
            command = (folder / "cmdline").read_bytes().split(b"\0")
            environment = (folder / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        rank = [entry[5:] for entry in environment if entry.startswith(b"RANK=")]
        if b"real.worker" in command and mine in environment and rank:
            found[int(rank[0])] = int(folder.name)
    return found


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_lost_process_ends_the_run_with_its_name_within_half_a_minute(
    tiny: Tiny, started: Started, tmp_path: Path, number: signal.Signals
) -> None:
    process = started(tiny(real={"steps": 100_000, "reference": False}))
    victim = until_it_trains(process)[1]
    os.kill(victim, number)
    lost_s = time.monotonic()
    _, stderr = process.communicate(timeout=60)
    assert time.monotonic() - lost_s < 30.0
    assert process.returncode == 3
    how = "died" if number is signal.SIGKILL else "was not heard of for"
    assert f"aborted: s01r0 (rank 1) {how}" in stderr
    assert "its last action was 1" in stderr
    assert "of step" in stderr
    summary = json.loads((tmp_path / "out" / "summary.json").read_text(encoding="utf-8"))
    assert summary["microbatches"]["applied"] > 0, "what there is of the run is kept"


def test_a_run_goes_on_from_its_checkpoint(tiny: Tiny, started: Started, tmp_path: Path) -> None:
    real = {
        "steps": 120,
        "reference": False,
        "checkpoint": str(tmp_path / "kept"),
        "checkpoint_every": 5,
        "keys": str(tmp_path / "keys"),
        "restarts": 1,
    }
    keys = [Key.new(name) for name in ("s00r0", "s01r0")]
    for key in keys:
        key.write(tmp_path / "keys")
    process = started(tiny(real=real))
    os.kill(until_it_trains(process)[0], signal.SIGKILL)
    _, stderr = process.communicate(timeout=100)
    assert process.returncode == 0, stderr
    summary = json.loads((tmp_path / "out" / "summary.json").read_text(encoding="utf-8"))
    assert summary["real"]["steps"]["measured"] == 120
    assert len(summary["real"]["restarts"]) == 1
    assert summary["real"]["audit"]["ok"]
    assert summary["microbatches"]["applied"] == 120 * 8
    kept = survey(tmp_path / "kept", Trusted.of(keys))
    assert kept.good
    assert {each.manifest.position for each in kept.found if each.manifest is not None} == {115, 120}


def test_ctrl_c_leaves_nothing(tiny: Tiny, started: Started, tmp_path: Path) -> None:
    process = started(tiny(real={"steps": 100_000, "reference": False}))
    until_it_trains(process)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == 3
    assert "interrupted" in stderr
    assert not (tmp_path / "out").exists()


def test_when_the_supervisor_is_killed_its_processes_end(
    tiny: Tiny, started: Started, leaves_nothing: Callable[[], set[int]]
) -> None:
    process = started(tiny(real={"steps": 100_000, "reference": False}))
    until_it_trains(process)
    process.kill()
    process.communicate(timeout=30)
    deadline_s = time.monotonic() + 20.0
    while leaves_nothing():
        assert time.monotonic() < deadline_s, "processes outlive their supervisor"
        time.sleep(0.2)
