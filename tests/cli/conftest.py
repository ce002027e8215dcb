"""A scenario of four peers and five minutes, the command line in this process, and one finished run to read."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
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

WITHOUT_REPORT = (
    "from orionbed.cli import main, run; import sys; "
    "sys.modules['orionbed.cli.run']._write_report = lambda folder: None; main()"
)


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
            # Whoever runs the tests in the background ignores SIGINT, and children inherit that.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
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
        return call(monkeypatch, capfd, *arguments)

    return run


def call(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], *arguments: object) -> Ended:
    from orionbed.cli import main

    capfd.readouterr()
    monkeypatch.setattr(sys, "argv", ["orionbed", *map(str, arguments)])
    try:
        main()
        code = 0
    except SystemExit as ending:
        code = int(ending.code or 0)
    out, err = capfd.readouterr()
    return Ended(code, out, err)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Terminal]:
    """A store with two finished runs, seeds 0 and 1, reports and all. Not to be changed."""
    terminal = Terminal(tmp_path_factory.mktemp("finished"))
    code = (
        "import sys; from orionbed.cli import main\n"
        "for seed in '01':\n"
        "    sys.argv = ['orionbed', 'run', 'tiny.yaml', '--seed', seed, '--set', 'run.trace=window',"
        " '--set', 'run.trace_from=60 s', '--set', 'run.trace_for=5 s']\n"
        "    main()\n"
    )
    environment = {**os.environ, "COLUMNS": "80"}
    subprocess.run([sys.executable, "-c", code], cwd=terminal.folder, check=True, env=environment)
    yield terminal
