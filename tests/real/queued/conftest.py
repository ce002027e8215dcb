"""A small queue-driven run on the CPU, and a look that nothing of it is left behind."""

import asyncio
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from orionbed.plan import make_plan
from orionbed.results import RunResult
from orionbed.scenario import Scenario, apply, load
from real.prepared import prepare

TINY: dict[str, Any] = {
    "model": {"layers": 4, "hidden": 64, "ffn": 128, "heads": 4, "kv_heads": 2, "vocab": 64},
    "batch": {"sequence": 32, "sequences": 4},
    "pipeline.stages": 2,
    "pipeline.replicas": 2,
    "pipeline.boundary": {"kind": "resbm", "width": 16},
    "pipeline.schedule": {
        "kind": "queue", "window": 4, "status_every": 0.5, "connect_timeout": 0.5, "poll_loop": 0.0,
        "poll_empty": 0.002, "poll_full": 0.01,
    },
    "peers.sites": {"virginia": 4},
    "run.tokens": None,
    "run.duration": 900.0,
    "real": {"device": "cpu", "training": 3.0, "silence": 20.0, "start_timeout": 90.0},
}  # fmt: skip
PAIR: dict[str, Any] = {"pipeline__replicas": 1, "peers__sites": {"virginia": 2}}
"""Two peers: enough where it matters how a run ends, not what it computes."""


@pytest.fixture(name="tiny", scope="session")
def _tiny() -> Callable[..., Scenario]:
    """Return a function that makes a small scenario with changes; `__` in a name stands for a dot."""

    def make(**changes: Any) -> Scenario:
        settings = {**TINY, **{key.replace("__", "."): value for key, value in changes.items()}}
        settings["real"] = TINY["real"] | settings["real"]
        return apply(load("agreement/base"), settings)

    return make


@pytest.fixture(name="pair", scope="session")
def _pair() -> dict[str, Any]:
    return PAIR


Meanwhile = Callable[[Any], None]


@pytest.fixture(name="run_here", scope="session")
def _run_here() -> Callable[..., RunResult]:
    """Return a function that runs a scenario; `meanwhile` hears of its progress, `say` what a user is told."""
    pytest.importorskip("torch")
    from real.queued.run import run_queue

    def run(
        scenario: Scenario, meanwhile: Meanwhile = lambda _state: None, say: Callable[[str], None] = lambda _text: None
    ) -> RunResult:
        prepared = prepare(make_plan(scenario), 0, say, measure=False)
        return asyncio.run(run_queue(prepared, meanwhile, say))

    return run


class Workers:
    """The processes that supervisors started: this process, and others that it was told to watch."""

    def __init__(self) -> None:
        self._supervisors = {str(os.getpid())}

    def watch(self, supervisor: int) -> None:
        """Look after those of another supervisor too."""
        self._supervisors.add(str(supervisor))

    def pids(self) -> dict[int, int]:
        """Return their numbers by rank; their environment names the supervisor."""
        found = {}
        for folder in Path("/proc").iterdir():
            if folder.name.isdecimal() and folder.name != str(os.getpid()):
                try:
                    lines = (folder / "environ").read_bytes().decode(errors="replace").split("\0")
                except OSError:
                    continue
                given = dict(line.split("=", 1) for line in lines if "=" in line)
                if given.get("ORIONBED_PARENT") in self._supervisors:
                    found[int(given["RANK"])] = int(folder.name)
        return found

    def gone(self, within_s: float = 10.0) -> bool:
        """Whether all have ended, waiting a little for the last."""
        deadline_s = time.monotonic() + within_s
        while self.pids() and time.monotonic() < deadline_s:
            time.sleep(0.05)
        return not self.pids()


@pytest.fixture(name="workers", autouse=True)
def _workers() -> Iterator[Workers]:
    found = Workers()
    yield found
    assert found.gone(), found.pids()


@pytest.fixture(autouse=True)
def _no_files_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr("tempfile.tempdir", None)
    yield
    assert list(folder.iterdir()) == []


@pytest.fixture(name="free_port")
def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
