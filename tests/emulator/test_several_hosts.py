"""Whole runs with peers on several hosts: processes on loopback, and network namespaces joined by a cable."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

pytestmark = [
    pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="looks at processes in /proc"),
    pytest.mark.xdist_group("emulator"),
]
HOME = "127.0.0.1"
PATIENCE_S = 90.0
TINY = """\
name: tiny
title: Four peers for a moment
model: {layers: 4, hidden: 512, ffn: 2048, heads: 8, kv_heads: 8, vocab: 1024}
batch: {sequence: 512, sequences: 4}
pipeline: {stages: 2, replicas: 2, boundary: {kind: resbm, width: 32}, schedule: {kind: queue, window: 4}}
peers: {gpu: a100-80gb, sites: {virginia: 2, oregon: 2}}
network: {uplink: 200 Mbps, downlink: 400 Mbps, delay: us-metros}
merge: none
churn: none
datacenter: {link: 25 GB/s, delay: 5 us, horizon: 10 s}
cost: {gpu_hour: $1.25, egress_per_gb: $0.09, prices_as_of: 2026-06}
emulator: {width: 32, tokens: 16, vocab: 64, time_dilation: 4, lateness_limit: 10 s}
run: {duration: 1.5 s, trace: summary}
report: {uplinks: []}
"""
# Whoever runs the tests in the background ignores SIGINT, and children inherit that. The report is not tested here.
PROGRAM = """\
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
import sys
from orionbed.cli import main
sys.modules["orionbed.cli.run"]._write_report = lambda folder: None
main()
"""


def free_port() -> int:
    with socket.create_server((HOME, 0)) as server:
        return int(server.getsockname()[1])


def wait_until(condition: Callable[[], object], within_s: float = PATIENCE_S) -> None:
    end_s = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < end_s
        time.sleep(0.02)


class Lab:
    """Starts commands whose processes, and all processes that those start, can be told by a mark."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.mark = f"ORIONBED_TEST={uuid.uuid4()}"
        self.started: list[subprocess.Popen[str]] = []
        (folder / "tiny.yaml").write_text(TINY, "utf-8")

    def start(self, name: str, *arguments: str, inside: Sequence[str] = ()) -> "subprocess.Popen[str]":
        """Start a command whose output goes to the file `name`."""
        key, _, value = self.mark.partition("=")
        environment = {k: v for k, v in os.environ.items() if k != "ORIONBED_TOKEN"} | {key: value}
        with (self.folder / name).open("w") as log:
            process = subprocess.Popen(
                [*inside, sys.executable, "-uc", PROGRAM, *arguments],
                cwd=self.folder, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                text=True, start_new_session=True,
            )  # fmt: skip
        self.started.append(process)
        return process

    def supervisor(
        self, listen: str, *sets: str, slots: int = 3, inside: Sequence[str] = ()
    ) -> tuple["subprocess.Popen[str]", list[str]]:
        """Start a run, and return it with the arguments of the command that it prints for other machines."""
        options = [f"emulator.listen='{listen}'", f"emulator.remote_slots={slots}", *sets]
        arguments = [word for value in options for word in ("--set", value)]
        process = self.start(
            "supervisor", "run", "tiny.yaml", "--backend", "emulator", "--out", "out", *arguments, inside=inside
        )
        command = r"^  orionbed (peer --join \S+ --token \S+)$"
        wait_until(lambda: process.poll() is not None or re.search(command, self.log("supervisor"), re.MULTILINE))
        found = re.search(command, self.log("supervisor"), re.MULTILINE)
        assert found, self.log("supervisor")
        return process, found[1].split()

    def log(self, name: str) -> str:
        return (self.folder / name).read_text("utf-8")

    def marked(self) -> set[int]:
        """The living processes that came from here."""
        found = set()
        for path in Path("/proc").glob("[0-9]*"):
            try:
                dead = (path / "stat").read_text().rpartition(")")[2].split()[0] == "Z"
                if not dead and self.mark.encode() in (path / "environ").read_bytes():
                    found.add(int(path.name))
            except OSError:
                continue
        return found

    def children(self, process: "subprocess.Popen[str]") -> int:
        return len(Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split())


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    lab = Lab(tmp_path)
    try:
        yield lab
        wait_until(lambda: not lab.marked(), 20.0)
    finally:
        for pid in lab.marked():
            os.kill(pid, signal.SIGKILL)
        for process in lab.started:
            process.wait()


def ended(process: "subprocess.Popen[str]") -> int:
    return process.wait(PATIENCE_S)


def summary(lab: Lab) -> Any:
    return json.loads((lab.folder / "out/summary.json").read_text("utf-8"))


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_run_with_two_joined_hosts(lab: Lab) -> None:
    run, command = lab.supervisor(f"{HOME}:{free_port()}")
    first = lab.start("first", *command, "--slots", "2")
    second = lab.start("second", *command, "--slots", "1", "--certificates", "kept")
    assert [ended(process) for process in (run, first, second)] == [0, 0, 0], lab.log("supervisor")
    log = lab.log("supervisor")
    for text in ("2 slots", "1 slots", "3 of 3 slots have joined", "4 of 4 processes are up", "its clock drifted by"):
        assert text in log
    assert lab.log("first").endswith("the run is over\n")
    assert summary(lab)["aborted"] is None
    assert summary(lab)["microbatches"]["applied"] > 0
    (kept,) = (lab.folder / "kept").iterdir()
    assert kept.stat().st_mode & 0o777 == 0o600


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 3), (signal.SIGKILL, -9)], ids=["leaves", "dies"])
def test_a_host_that_goes_away_takes_its_peers_with_it(lab: Lab, number: int, code: int) -> None:
    run, command = lab.supervisor(f"{HOME}:{free_port()}", "run.duration=1 h", slots=2)
    first, second = (lab.start(name, *command, "--slots", "1") for name in ("first", "second"))
    wait_until(lambda: run.poll() is not None or "a second of the run takes" in lab.log("supervisor"))
    time.sleep(8.0)  # all peers have reported by then
    first.send_signal(number)
    assert ended(first) == code
    assert ("interrupted" in lab.log("first")) is (number == signal.SIGINT)
    assert (ended(run), ended(second)) == (3, 0), lab.log("supervisor")
    assert "is gone, and 1 peers with it" in lab.log("supervisor")
    assert "was killed by SIGKILL, which no fault of the scenario asked for" in lab.log("supervisor")


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_hosts_of_a_supervisor_that_is_gone_end(lab: Lab) -> None:
    run, command = lab.supervisor(f"{HOME}:{free_port()}", "run.duration=1 h", slots=2)
    hosts = [lab.start(name, *command, "--slots", "1") for name in ("first", "second")]
    wait_until(lambda: run.poll() is not None or "a second of the run takes" in lab.log("supervisor"))
    run.send_signal(signal.SIGKILL)
    assert [ended(host) for host in hosts] == [3, 3]
    assert f"the supervisor at {command[2]} is gone, and its peers here with it" in lab.log("first")


@pytest.mark.slow
def test_interrupted_while_waiting_for_hosts(lab: Lab) -> None:
    run, command = lab.supervisor(f"{HOME}:{free_port()}")
    host = lab.start("first", *command, "--slots", "1")
    wait_until(lambda: "1 of 3 slots have joined" in lab.log("supervisor"))
    wait_until(lambda: lab.children(host))
    host.send_signal(signal.SIGINT)
    assert ended(host) == 3
    wait_until(lambda: "0 of 3 slots have joined" in lab.log("supervisor"))
    host = lab.start("second", *command, "--slots", "1")
    wait_until(lambda: lab.log("supervisor").count("1 of 3 slots have joined") == 2)
    run.send_signal(signal.SIGINT)
    assert (ended(run), ended(host)) == (3, 0), lab.log("supervisor")
    assert not (lab.folder / "out").exists()


def test_hosts_that_do_not_come(lab: Lab) -> None:
    run, _ = lab.supervisor(f"{HOME}:{free_port()}", "emulator.join_timeout=100 ms")
    assert ended(run) == 2
    assert "only 0 of 3 slots on other hosts have joined within 0.1 s" in lab.log("supervisor")
    assert "Traceback" not in lab.log("supervisor")


def ip(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)


@pytest.fixture
def cabled() -> Iterator[tuple[str, str]]:
    """Two network namespaces, 10.231.77.1 and .2, joined by a cable."""
    if shutil.which("ip") is None:
        pytest.skip("NOT TESTED with network namespaces: there is no command `ip`")
    names = [f"orionbed-{uuid.uuid4().hex[:8]}" for _ in range(2)]
    try:
        for name in names:
            made = ip("netns", "add", name)
            if made.returncode:
                pytest.skip(f"NOT TESTED with network namespaces: `ip netns add` failed: {made.stderr.strip()}")
        made = ip("link", "add", "cable", "netns", names[0], "type", "veth", "peer", "cable", "netns", names[1])
        if made.returncode:
            pytest.skip(f"NOT TESTED with network namespaces: no veth pair: {made.stderr.strip()}")
        for number, name in enumerate(names, start=1):
            for command in (
                ("addr", "add", f"10.231.77.{number}/24", "dev", "cable"),
                ("link", "set", "cable", "up"),
                ("link", "set", "lo", "up"),
            ):
                assert ip("-n", name, *command).returncode == 0
        yield names[0], names[1]
    finally:
        for name in names:
            ip("netns", "del", name)


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_run_over_two_network_namespaces(lab: Lab, cabled: tuple[str, str]) -> None:
    here, there = (["ip", "netns", "exec", name] for name in cabled)
    run, command = lab.supervisor("0.0.0.0:7777", slots=2, inside=here)
    command[2] = "10.231.77.1:7777"  # a namespace without a default route does not know its address
    host = lab.start("host", *command, "--slots", "2", inside=there)
    assert (ended(run), ended(host)) == (0, 0), lab.log("supervisor") + lab.log("host")
    assert "host 1 (10.231.77.2) joined with 2 slots" in lab.log("supervisor")
    assert "peers listen on 10.231.77.2" in lab.log("host")
    assert summary(lab)["aborted"] is None
    assert summary(lab)["microbatches"]["applied"] > 0
