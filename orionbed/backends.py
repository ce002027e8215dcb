"""The one place that names the backends; each is imported only when a run asks for it."""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, Protocol, cast

from orionbed.plan import Plan
from orionbed.results import RunResult
from orionbed.scenario import Scenario
from orionbed.summary import Baseline

NAMES = ("sim", "emulator", "real")


class BackendError(Exception):
    """The backend cannot run this; the message says why and what to do."""


class Progress(Protocol):
    """How far a run has got: seconds of the run, micro-batches applied, and how many it is to apply."""

    @property
    def now_s(self) -> float: ...
    @property
    def applied(self) -> int: ...
    @property
    def target(self) -> int | None: ...


class Backend(Protocol):
    """What every backend offers (module `api` of its package)."""

    def run(
        self,
        plan: Plan,
        *,
        seed: int | None = None,
        progress: Callable[[Any], None] | None = None,
        say: Callable[[str], None] | None = None,
    ) -> RunResult:
        """Run `plan` to its number of tokens or its duration; `say` hears what a user should know on the way."""

    def simulate_baseline(self, scenario: Scenario, seed: int) -> Baseline:
        """Return the scenario's datacenter baseline (the simulator alone)."""

    def bandwidth_curve(self, scenario: Scenario, seed: int, jobs: int) -> list[dict[str, object]]:
        """Return tokens/s and relative speed against the median uplink (the simulator alone)."""


class Joining(Protocol):
    """What a backend offers whose peers can live on several machines."""

    def join(
        self, address: str, token: str, *, slots: int, host: str, certificates: Path | None, say: Callable[[str], None]
    ) -> Literal["over", "gone", "interrupted"]:
        """Let peers of the run at `address` live on this machine until it ends; return how that came about."""


class Rehearsing(Protocol):
    """What a backend offers whose processes are started by commands."""

    def dry_run(self, plan: Plan) -> list[str]:
        """Return what would be started, line by line."""


def load_rehearsing() -> Rehearsing:
    """Import what says how the processes of a run on hardware would be started."""
    return cast(Rehearsing, import_module("real.api"))


def load_joining() -> Joining:
    """Import what lets this machine join a run of the emulator."""
    return cast(Joining, import_module("emulator.api"))


def load(name: str) -> Backend:
    """Import a backend.

    Raises:
        BackendError: there is none of that name.

    """
    if name not in NAMES:
        raise BackendError(f"backend '{name}' does not exist; use --backend {', '.join(NAMES[:-1])} or {NAMES[-1]}")
    return cast(Backend, import_module(f"{name}.api"))
