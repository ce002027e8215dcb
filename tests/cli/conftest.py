"""A scenario of four peers and five minutes, the command line in this process, and one finished run to read."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

TINY = """\
name: tiny
title: Four peers for five minutes
model: {layers: 4, hidden: 512, ffn: 2048, heads: 8, kv_heads: 8, vocab: 1024}
batch: {sequence: 512, sequences: 4}
pipeline:
  stages: 2
  replicas: 2
  boundary: {kind: resbm, width: 32}
  schedule: {kind: queue, window: 4}
peers:
  gpu: a100-80gb
  sites: {virginia: 2, oregon: 2}
network:
  uplink: {dist: lognormal, median: 200 Mbps, sigma: 0.3}
  downlink: 400 Mbps
  delay: us-metros
merge: {every: 2 min, compute: 1 s}
churn: none
datacenter: {link: 25 GB/s, delay: 5 us, horizon: 10 s}
cost: {gpu_hour: $1.25, egress_per_gb: $0.09, prices_as_of: 2026-06}
run: {duration: 5 min, trace: summary, samples_horizon: 2 min}
report: {uplinks: []}
published:
  - {quantity: model.num_parameters, value: 17830400, kind: input, source: a test}
  - {quantity: mfu.wall_clock, value: 0.002, source: a test}
  - {quantity: mfu.nowhere, value: 0.5, source: a test}
uncertain:
  network.uplink.median: {dist: uniform, low: 100 Mbps, high: 400 Mbps}
  pipeline.schedule.window: {choice: [2, 4]}
"""

# Whoever runs the tests in the background ignores SIGINT, and children inherit that.
WITHOUT_REPORT = """\
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
import sys
from orionbed.cli import main
sys.modules["orionbed.cli.run"]._write_report = lambda folder: None
main()
"""


@dataclass(frozen=True)
class Ended:
    """How a command ended, and what it wrote."""

    code: int
    out: str
    err: str


class Terminal:
    """Runs commands in a folder of their own, in this process or in another."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.scenario = folder / "tiny.yaml"
        self.scenario.write_text(TINY)
        self.runs = folder / "runs"

    def start(self, *arguments: object, **options: Any) -> "subprocess.Popen[str]":
        """Start a command without its report in another process, in a session of its own."""
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
        return subprocess.Popen(
            [sys.executable, "-c", WITHOUT_REPORT, *map(str, arguments)],
            cwd=self.folder,
            text=True,
            start_new_session=True,
            **pipes,
        )

    def hidden(self) -> list[Path]:
        """Folders of runs that are not finished."""
        return [path for path in self.folder.rglob(".*") if path.is_dir()]


@pytest.fixture
def terminal(tmp_path: Path) -> Terminal:
    return Terminal(tmp_path)


@pytest.fixture
def orionbed(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[..., Ended]:
    """Run a command in this process, without drawing the report; `orionbed(...)` returns how it ended."""
    monkeypatch.chdir(terminal.folder)
    monkeypatch.setattr("orionbed.cli.run._write_report", lambda folder: (folder / "report.html").write_text("<p>"))

    def run(*arguments: object) -> Ended:
        capfd.readouterr()
        code = call(monkeypatch, *arguments)
        out, err = capfd.readouterr()
        return Ended(code, out, err)

    return run


def call(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """Run a command in this process and return its exit code."""
    from orionbed.cli import main

    monkeypatch.setattr(sys, "argv", ["orionbed", *map(str, arguments)])
    try:
        main()
    except SystemExit as ending:
        return int(ending.code or 0)
    return 0


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Terminal:
    """A store with two finished runs, seeds 0 and 1, without their reports. Not to be changed."""
    terminal = Terminal(tmp_path_factory.mktemp("finished"))
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(terminal.folder)
        monkeypatch.setattr("orionbed.cli.run._write_report", lambda _folder: None)
        assert [call(monkeypatch, "run", "tiny.yaml", "--seed", seed) for seed in (0, 1)] == [0, 0]
    return terminal
