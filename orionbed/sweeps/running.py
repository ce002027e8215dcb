"""Running the cases of a sweep: in processes, each result kept as soon as it is there."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from orionbed import backends
from orionbed.processes import in_processes
from orionbed.runs import RunError, digest_of, with_seed
from orionbed.scenario import Scenario, ScenarioError
from orionbed.scenario.drawing import draw_each
from orionbed.streams import Streams
from orionbed.sweeps.curves import Point, binned
from orionbed.sweeps.loading import Loaded
from orionbed.sweeps.measures import numbers

if TYPE_CHECKING:
    from orionbed.learning.api import Learned

BACKEND = "sim"


@dataclass(frozen=True, slots=True)
class Record:
    """What one run came to: its numbers by key, and why it ended early (empty when it did not)."""

    run: str
    seed: int
    aborted: str
    numbers: dict[str, float | None]
    curve: list[Point] = field(default_factory=list)
    """Of a training."""


class Mode(NamedTuple):
    """How all runs of a sweep are done: the datacenter beside them, inputs drawn, trained on real tensors."""

    baseline: bool
    draws: bool
    trains: bool


def key_of(scenario: Scenario, sweep: Loaded) -> str:
    """Return what identifies the runs of a case: with the datacenter beside them, or inputs drawn, they are others."""
    extras = "+datacenter" * sweep.baseline + "+drawn" * sweep.draws + "+trained" * sweep.trains
    return digest_of(scenario, BACKEND, 0)[:16] + extras


def run_missing(
    sweep: Loaded,
    done: dict[tuple[str, int], Record],
    keep: Callable[[Record], None],
    *,
    jobs: int,
    progress: Callable[[int], None] | None = None,
) -> None:
    """Run what `done` does not have yet; `keep` gets every record as soon as it is there, in any order.

    `progress` gets the number of records, those that were there before included.
    """
    wanted = {(key_of(case.scenario, sweep), seed): case.scenario for case in sweep.cases for seed in sweep.seeds}
    mode = Mode(sweep.baseline, sweep.draws, sweep.trains)
    tasks = [(scenario, *each, mode) for each, scenario in wanted.items() if each not in done]
    before = len(wanted) - len(tasks)
    counted = None if progress is None else lambda count: progress(before + count)
    if counted is not None:
        counted(0)
    if jobs > 1 and len(tasks) > 1:
        in_processes(one_run, tasks, jobs, counted, arrived=lambda _, record: keep(record))
        return
    for count, task in enumerate(tasks, start=1):
        keep(one_run(*task))
        if counted is not None:
            counted(count)


def one_run(scenario: Scenario, run: str, seed: int, mode: Mode) -> Record:
    """Simulate or train one case with one seed, as a task of a pool.

    Raises:
        RunError: what the seed draws gives a scenario that cannot be.

    """
    if mode.draws:
        scenario = _drawn(scenario, seed)
    if mode.trains:
        return _trained(with_seed(scenario, seed), run)
    summary = summary_of(with_seed(scenario, seed), baseline=mode.baseline)
    return Record(run, seed, summary["aborted"] or "", numbers(summary))


def trained(scenario: Scenario) -> "Learned":
    """Train a scenario on real tensors.

    Raises:
        BackendError: it has what cannot be trained.
        TextError: its text is at fault.

    """
    from orionbed.learning.api import train

    return train(scenario, seed=scenario.run.seed, simulate=backends.load(BACKEND).run)


def _trained(scenario: Scenario, run: str) -> Record:
    learned = trained(scenario)
    curve = binned([(float(point.tokens), point.loss) for point in learned.curve])
    return Record(run, scenario.run.seed, learned.summary["aborted"] or "", numbers(learned.summary), curve)


def _drawn(scenario: Scenario, seed: int) -> Scenario:
    """Draw the uncertain inputs, each from a stream of its own, so that it is the same in every case that has it."""
    streams = Streams(seed).child("sweep")
    try:
        return draw_each(scenario, lambda key: streams.get(f"uncertain/{key}"))[0]
    except ScenarioError as error:
        raise RunError(f"seed {seed} draws what cannot be, narrow `uncertain`:\n{error}") from None


def summary_of(scenario: Scenario, *, baseline: bool) -> dict[str, Any]:
    """Simulate a scenario and return its summary, with the datacenter beside it if that is wanted.

    Raises:
        ScheduleError: its schedule cannot be run.

    """
    from orionbed.plan import make_plan
    from orionbed.summary import summarise

    module, seed = backends.load(BACKEND), scenario.run.seed
    result = module.run(make_plan(scenario, seed), seed=seed)
    beside = module.simulate_baseline(scenario, seed) if baseline else None
    return summarise(result, beside, git="", started_at="")
