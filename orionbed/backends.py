"""The one place that names the backends; each is imported only when a run asks for it."""

from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast

from orionbed.pinned import TORCH
from orionbed.plan import Plan
from orionbed.results import RunResult
from orionbed.scenario import Scenario
from orionbed.script import Write
from orionbed.summary import Baseline

if TYPE_CHECKING:
    from orionbed.contest.answering import Answering, Facts
    from orionbed.contest.results import SeedResult
    from orionbed.contest.schema import Contest

NAMES = ("sim", "emulator", "real")


class BackendError(Exception):
    """The backend cannot run this; the message says why and what to do."""


def require_torch(who_needs: str) -> None:
    """Raise BackendError where torch is not installed; `who_needs` is how the message begins, like "training needs"."""
    if find_spec("torch") is None:
        raise BackendError(f"{who_needs} torch, which is not installed: pip install torch=={TORCH}")


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
        self,
        address: str,
        token: str,
        *,
        slots: int,
        host: str,
        certificates: Path | None,
        key: Path | None,
        trusted: Path | None,
        say: Callable[[str], None],
    ) -> Literal["over", "gone", "interrupted"]:
        """Let peers of the run at `address` live on this machine until it ends; return how that came about."""


class Rehearsing(Protocol):
    """What a backend offers whose processes are started by commands."""

    def dry_run(self, plan: Plan) -> list[str]:
        """Return what would be started, line by line."""


def load_rehearsing() -> Rehearsing:
    """Import what says how the processes of a run on hardware would be started."""
    return cast(Rehearsing, import_module("real.api"))


class Calibrated(Protocol):
    """What came of a calibration: lines to print, the same for JSON, and whether the profile predicts whole stages."""

    @property
    def lines(self) -> list[str]: ...
    @property
    def plain(self) -> dict[str, Any]: ...
    @property
    def passed(self) -> bool: ...


class Calibrating(Protocol):
    """What measures a device (module `calibration.api` of the real backend)."""

    def calibrate(
        self,
        scenario: Scenario,
        *,
        device: Literal["cpu", "cuda"],
        stage: int | None,
        threads: int,
        out: Path | None,
        check_only: Path | None,
        repetitions: int,
        say: Callable[[str], None],
    ) -> Calibrated:
        """Measure the pieces of a scenario's stages, write a profile and check it; or check one that is there."""


class Simulating(Protocol):
    """What the simulator alone can do: a run that is written down, or in which peers of the plan are absent."""

    def run(
        self,
        plan: Plan,
        *,
        seed: int | None = None,
        fetches: bool = True,
        without: frozenset[int] = frozenset(),
        script: Write | None = None,
    ) -> RunResult:
        """Run `plan` without the peers `without`, by index; without `fetches` all have their first weights.

        `script` takes down what happens to weights; a BackendError lists what they could not follow.
        """


def load_simulator() -> Simulating:
    """Import the simulator for what no other backend can."""
    return cast(Simulating, import_module("sim.api"))


class Contesting(Protocol):
    """What simulates routing contests."""

    def run_contest(
        self, contest: "Contest", seed: int, name: str, make: "Callable[[Facts], Answering]"
    ) -> "SeedResult":
        """Simulate all epochs of one seed with the router that `make` makes; raise RouterError if it is no good."""


def load_contesting() -> Contesting:
    """Import what simulates routing contests."""
    return cast(Contesting, import_module("sim.contest.api"))


class Merging(Protocol):
    """What the simulator offers to the merging lab and to the deadline lab."""

    def merge_point(
        self, scenario: Scenario, changes: Mapping[str, Any], seed: int, merges: int, horizon_s: float | None
    ) -> dict[str, Any]:
        """Return what merges cost with some keys changed, over so many merges or so many seconds."""

    def merge_arrivals(self, scenario: Scenario, seed: int, merges: int) -> list[list[float]]:
        """Return, for each of a few merges, after how many seconds each peer's upload was there."""


def load_merging() -> Merging:
    """Import what simulates merges."""
    return cast(Merging, import_module("sim.api"))


def load_joining() -> Joining:
    """Import what lets this machine join a run of the emulator."""
    return cast(Joining, import_module("emulator.api"))


def load_calibrating() -> Calibrating:
    """Import what measures a device.

    Raises:
        BackendError: torch is not installed.

    """
    require_torch("calibrating needs")
    return cast(Calibrating, import_module("real.calibration.api"))


def load(name: str) -> Backend:
    """Import a backend.

    Raises:
        BackendError: there is none of that name.

    """
    if name not in NAMES:
        raise BackendError(f"backend '{name}' does not exist; use --backend {', '.join(NAMES[:-1])} or {NAMES[-1]}")
    return cast(Backend, import_module(f"{name}.api"))
