"""Small scenarios for the emulator, and a look that no process of it is left behind."""

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from orionbed.scenario import Scenario, apply, load

TINY: dict[str, Any] = {
    "pipeline.stages": 3,
    "pipeline.replicas": 1,
    "pipeline.schedule": {"kind": "1f1b", "microbatches": 4},
    "peers.sites": {"virginia": 2, "oregon": 1},
    "run.tokens": 12 * 16384.0,
    "emulator": {"clock": "virtual", "width": 32, "tokens": 8, "vocab": 32, "lateness_limit": 30.0},
}


class Leftovers:
    """The processes that supervisors started: this process, and others that it was told to watch."""

    def __init__(self) -> None:
        self._supervisors = {str(os.getpid()).encode()}

    def watch(self, supervisor: int) -> None:
        """Look after those of another supervisor too."""
        self._supervisors.add(str(supervisor).encode())

    def processes(self) -> set[int]:
        """Return their numbers; the command line that a zygote and its children share names the supervisor."""
        found = set()
        for folder in Path("/proc").iterdir():
            if folder.name.isdecimal() and folder.name != str(os.getpid()):
                try:
                    command = (folder / "cmdline").read_bytes()
                except OSError:
                    continue
                words = command.split(b"\0")
                if b"emulator.zygote" in words and self._supervisors.intersection(words):
                    found.add(int(folder.name))
        return found

    def gone(self, within_s: float = 20.0) -> bool:
        """Whether all have ended, waiting a little for the last."""
        deadline = time.monotonic() + within_s
        while self.processes() and time.monotonic() < deadline:
            time.sleep(0.1)
        return not self.processes()


@pytest.fixture(name="leftovers", autouse=True)
def _leftovers() -> Iterator[Leftovers]:
    found = Leftovers()
    yield found
    assert found.gone(), found.processes()


@pytest.fixture(name="tiny", scope="session")
def _tiny() -> Callable[..., Scenario]:
    """Return a function that makes a small scenario with changes; `__` in a name stands for a dot."""

    def make(**changes: Any) -> Scenario:
        settings = {**TINY, **{key.replace("__", "."): value for key, value in changes.items()}}
        settings["emulator"] = TINY["emulator"] | settings["emulator"]
        return apply(load("agreement/base"), settings)

    return make
