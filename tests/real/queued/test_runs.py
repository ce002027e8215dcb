"""Peers that really train over TLS: what a run gives, how it survives a peer that dies, and what ends it."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from math import isfinite
from pathlib import Path
from typing import Any

import pytest

from orionbed import waterfall
from orionbed.results import RunResult
from orionbed.scenario import Scenario, to_yaml

Tiny = Callable[..., Scenario]
Run = Callable[..., RunResult]
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("real"), pytest.mark.timeout(120)]


def is_whole(result: RunResult) -> bool:
    """Whether nothing was lost: every rule of the audit holds, and every GPU-second has its cause."""
    waterfall.gpu_seconds(result)
    result.ledger.check()
    broken = [rule for rule in result.backend_block["audit"]["rules"] if rule["violations"]]
    assert broken == []
    assert result.trace is not None
    assert result.trace.problems() == []
    return True


class Signalling:
    """Sends a signal to a rank when a run has come so far, once."""

    def __init__(self, workers: Any, rank: int, number: signal.Signals, after: int) -> None:
        self._workers, self._rank, self._number, self._after = workers, rank, number, after
        self.sent_s = 0.0

    def __call__(self, state: Any) -> None:
        if not self.sent_s and state.applied >= self._after:
            self.sent_s = time.monotonic()
            os.kill(self._workers.pids()[self._rank], self._number)


def test_peers_train_merge_and_end_with_every_second_and_byte_accounted_for(
    tiny: Tiny, run_here: Run, described: Callable[[dict[str, Any]], list[str]]
) -> None:
    merge = {"every": 30.0, "compute": 2.0, "quorum_every": 0.5}
    result = run_here(tiny(merge=merge, real={"training": 1.5, "merges": 1, "dtype": "float64", "reference": True}))
    assert not result.aborted
    assert is_whole(result)
    assert result.backend_block["audit"]["rules"][6]["checked"] == 1
    assert [mark.kind for mark in result.marks] == ["merge"]
    committed = {(e.chunk, e.step, e.detail) for e in result.journal if e.event == "committed"}
    assert len(committed) == 2  # replicas of both stages are equal after the merge
    assert described(result.backend_block) == []
    losses = result.backend_block["loss"]
    assert isfinite(losses["last"])
    assert losses["last"] < losses["first"]
    assert result.bytes_up.sum() > result.bytes_boundary > 0.0
    kinds = {(row["stage"], row["kind"]) for row in result.backend_block["operations"]}
    assert kinds == {(0, "F"), (0, "B"), (0, "STEP"), (1, "B"), (1, "STEP")}
    assert {row["from"] for row in result.backend_block["connections"]} >= {"s00r0", "s01r1", "the store"}
    # Nothing that a warm-up did is left: the first micro-batch has the loss of weights that know nothing yet.
    assert losses["curve"][0][1] == pytest.approx(losses["first"], abs=1.5)


def test_a_peer_that_is_killed_comes_back_with_anothers_state(tiny: Tiny, run_here: Run, workers: Any) -> None:
    kill, said = Signalling(workers, 1, signal.SIGKILL, after=60), list[str]()
    # By micro-batches, not by time: a machine with other things to do starts a process as slowly as it trains.
    changes = {"run__tokens": 2000 * 128.0, "run__duration": None, "real": {"training": None, "restarts": 1}}
    result = run_here(tiny(**changes), kill, said.append)
    assert not result.aborted
    assert is_whole(result)
    events = [entry.event for entry in result.journal if entry.peer == 1]
    assert [e for e in events if e in {"crashed", "returned", "adopted"}] == ["crashed", "returned", "adopted"]
    assert "accumulated" in events[events.index("adopted") :]
    (restart,) = result.backend_block["restarts"]
    assert restart["peer"] == "s00r1"
    assert "was killed by SIGKILL; its last action was" in restart["why"]
    assert any("it is started again" in line for line in said)


@pytest.mark.parametrize("restarts", [0, 1])
def test_a_peer_that_nobody_can_stand_in_for_ends_the_run(
    tiny: Tiny, run_here: Run, workers: Any, pair: dict[str, Any], restarts: int
) -> None:
    kill = Signalling(workers, 1, signal.SIGKILL, after=20)
    result = run_here(tiny(**pair, real={"training": 60.0, "restarts": restarts}), kill)
    assert time.monotonic() - kill.sent_s < 30.0
    assert result.aborted.startswith("s01r0 (rank 1) was killed by SIGKILL; its last action was ")
    assert "none yet" not in result.aborted
    assert ("no other peer has what stage 1 had learnt" in result.aborted) == bool(restarts)
    waterfall.gpu_seconds(result)


def test_a_peer_that_stands_still_is_found_by_its_silence(
    tiny: Tiny, run_here: Run, workers: Any, pair: dict[str, Any]
) -> None:
    stop = Signalling(workers, 0, signal.SIGSTOP, after=20)
    result = run_here(tiny(**pair, real={"training": 60.0, "silence": 4.0}), stop)
    assert 3.0 < time.monotonic() - stop.sent_s < 30.0
    assert "s00r0 (rank 0) was not heard of for 4." in result.aborted
    waterfall.gpu_seconds(result)


SCRIPT = """
import sys
from orionbed.fleet.interrupts import run_interruptibly
from orionbed.plan import make_plan
from orionbed.scenario import load
from real.prepared import prepare
from real.queued.run import run_queue

say = lambda text: print(text, flush=True)
prepared = prepare(make_plan(load(sys.argv[1])), 0, say, measure=False)
run_interruptibly(run_queue(prepared, lambda state: None, say))
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_ending_the_supervisor_leaves_nothing(
    tiny: Tiny, tmp_path: Path, number: signal.Signals, workers: Any, pair: dict[str, Any]
) -> None:
    path = tmp_path / "long.yaml"
    path.write_text(to_yaml(tiny(**pair, real={"training": 600.0})), encoding="utf-8")
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(path)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    workers.watch(process.pid)
    assert process.stdout is not None
    try:
        output = ""
        for line in process.stdout:
            output += line
            if "the run begins" in line:
                break
        assert len(workers.pids()) == 2, output
        process.send_signal(number)
        assert workers.gone(within_s=8.0)
        assert process.wait(10.0) != 0
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_a_process_that_cannot_begin_is_named_with_what_it_said(
    tiny: Tiny, run_here: Run, pair: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from orionbed.backends import BackendError

    monkeypatch.setattr("real.queued.processes.worker_command", lambda _job: [sys.executable, "-c", "1 / 0"])
    with pytest.raises(BackendError, match=r"s0[01]r0 \(rank [01]\) ended with status 1(.|\n)*ZeroDivisionError"):
        run_here(tiny(**pair))


def test_peers_of_another_machine_are_started_by_hand(
    tiny: Tiny, run_here: Run, pair: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free_port: int
) -> None:
    monkeypatch.chdir(tmp_path)
    there: list[subprocess.Popen[bytes]] = []

    def say(text: str) -> None:
        words = text.split()
        if words[-3:-1] == ["-m", "real.worker"]:
            given = dict(word.split("=", 1) for word in words if "=" in word)
            command = [sys.executable, "-m", "real.worker", words[-1]]
            threading.Timer(0.5, lambda: there.append(subprocess.Popen(command, env=os.environ | given))).start()

    scenario = tiny(**pair, real={"nodes": 2, "listen": f"127.0.0.1:{free_port}"})
    try:
        result = run_here(scenario, say=say)
        assert not result.aborted
        assert is_whole(result)
        (clock,) = result.backend_block["clocks"]
        assert clock["peer"] == "s01r0"
        assert 0.0 < clock["uncertainty_s"] < 0.1
        assert abs(clock["offset_s"]) < 0.1  # it is this machine's clock, after all
        assert [process.wait(10.0) for process in there] == [0]
        assert list(tmp_path.glob("*.json")) == []
    finally:
        for process in there:
            process.kill()
            process.wait()
