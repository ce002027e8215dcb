"""`orionbed train`: simulate a scenario, train a model as the simulated peers would, write its folder."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orionbed.cli.ending import InputError
from orionbed.cli.options import DEFAULT_RUNS, JsonOption, RunsOption, ScenarioArgument, SeedOption, SetOption

if TYPE_CHECKING:
    from collections.abc import Callable

    from orionbed.cli.progress import Console
    from orionbed.runs import RunId
    from orionbed.scenario import Scenario


def train(
    scenario: ScenarioArgument,
    *,
    sets: SetOption = None,
    seed: SeedOption = None,
    seeds: Annotated[int, typer.Option(min=1, help="Train with so many seeds in a row, from --seed on.")] = 1,
    jobs: Annotated[int, typer.Option(min=0, help="Processes for several seeds; 0: one per core.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Write the run's files straight into this folder.")] = None,
    runs: RunsOption = DEFAULT_RUNS,
    force: Annotated[bool, typer.Option("--force", help="Train again although it is done, and replace it.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Train a small model, or the scenario's own, in the order in which the simulated peers work.

    A training that was broken off goes on with the same command where it last kept its state.
    """
    from orionbed.cli.progress import Console
    from orionbed.cli.run import _given_text
    from orionbed.processes import num_cores
    from orionbed.scenario import load

    the_scenario = load(scenario, sets or ())
    given = _given_text(scenario)
    first = the_scenario.run.seed if seed is None else seed
    if seeds > 1 and out is not None:
        raise InputError("--out is for one seed; several go into folders of --runs")
    console = Console(quiet=as_json or seeds > 1)
    tasks = [(the_scenario, given, each, out, runs, force) for each in range(first, first + seeds)]
    if seeds == 1:
        targets = [_train(*tasks[0], console=console)]
    else:
        with Console(quiet=as_json).count("seeds", seeds) as progress:
            targets = _several(tasks, jobs or num_cores(), progress)
    _finish(targets, as_json=as_json)


def _several(tasks: list[tuple[Any, ...]], jobs: int, progress: "Callable[[int], None]") -> list[Path]:
    """Train with several seeds, each in a process if there may be more than one; return the runs' folders."""
    from orionbed.processes import in_processes

    if jobs > 1:
        return in_processes(_train, tasks, jobs, progress)
    targets = []
    for count, task in enumerate(tasks, start=1):
        targets.append(_train(*task))
        progress(count)
    return targets


def _train(  # noqa: PLR0917
    scenario: "Scenario",
    given: bytes | None,
    seed: int,
    out: Path | None,
    runs: Path,
    force: bool,  # noqa: FBT001
    console: "Console | None" = None,
) -> Path:
    """Train with one seed unless that is done; return the run's folder."""
    from orionbed.checkpoints import newest
    from orionbed.cli.ending import Interrupted
    from orionbed.cli.progress import Console
    from orionbed.learning.api import BACKEND
    from orionbed.runs import checkpoints_of, is_done, run_id, unfinished, with_seed

    console = console or Console(quiet=True)
    scenario = with_seed(scenario, seed)
    identity = run_id(scenario, BACKEND, 0)
    target = out if out is not None else runs / str(identity)
    if not force and is_done(target, identity, scenario):
        console.line(f"run {identity} is already done; --force trains again")
        return target
    kept = checkpoints_of(target)
    if force:
        shutil.rmtree(kept, ignore_errors=True)
    try:
        with unfinished(target, force=force) as folder:
            _write(_Job(scenario, given, identity, kept), folder, console)
    except Interrupted:
        if newest(kept) is not None:
            typer.echo(f"its state is kept in {kept}; the same command goes on from there", err=True)
        raise
    shutil.rmtree(kept, ignore_errors=True)
    return target


@dataclass(frozen=True, slots=True)
class _Job:
    """What is trained; `given` is the scenario file as it was, `kept` the folder for checkpoints."""

    scenario: "Scenario"
    given: bytes | None
    identity: "RunId"
    kept: Path


def _write(job: _Job, folder: Path, console: "Console") -> None:
    from orionbed import backends
    from orionbed.cli.run import _write_report
    from orionbed.learning.api import train as learn
    from orionbed.learning.files import write_training
    from orionbed.runs import command_line, manifest, write_json

    identity = job.identity
    console.line(f"run {identity}")
    simulate = backends.load("sim").run
    with console.training() as progress:
        learned = learn(
            job.scenario,
            seed=identity.seed,
            simulate=simulate,
            folder=job.kept,
            progress=progress,
            say=console.line,
        )
    write_training(learned, job.scenario, job.given, folder)
    summary = learned.summary
    made = manifest(
        identity, command=command_line(), started_at=summary["started_at"], wall_s=summary["wall_s"], samples=0
    )
    write_json(folder / "manifest.json", made)
    (folder / "log.txt").write_text("\n".join(console.log) + "\n", encoding="utf-8")
    _write_report(folder)


def _finish(targets: list[Path], *, as_json: bool) -> None:
    from orionbed.cli.ending import EXIT_VOID
    from orionbed.runs import read_summary

    summaries = [read_summary(target) for target in targets]
    if as_json:
        plain: Any = summaries[0] if len(summaries) == 1 else summaries
        typer.echo(json.dumps(plain, indent=2, ensure_ascii=False))
    else:
        for target, summary in zip(targets, summaries, strict=True):
            typer.echo(headline(summary))
            typer.echo(f"report  {target / 'report.html'}")
    aborted = [summary["aborted"] for summary in summaries if summary["aborted"]]
    if aborted:
        typer.echo(f"aborted: {aborted[0]}; what there is was kept", err=True)
        raise typer.Exit(EXIT_VOID)


def headline(summary: dict[str, Any]) -> str:
    """Return the main numbers of a training in one line."""
    block = summary["train"]
    loss, held_out = block["loss"], block["held_out"]
    bits = held_out["bits_per_byte"]
    parts = [
        f"seed {summary['seed']}",
        f"loss {_shown(loss['first'])} to {_shown(loss['last'])}",
        f"held out {_shown(held_out['loss'])}" + ("" if bits is None else f" ({bits:.3f} bits a byte)"),
        f"{block['tokens']:,} tokens in {block['microbatches']:,} micro-batches",
        f"{block['tokens_per_s']:,.0f} tokens/s here",
        f"MFU {summary['mfu']['wall_clock']:.1%} simulated",
    ]
    return "   ".join(parts)


def _shown(loss: float | None) -> str:
    return "no number" if loss is None else f"{loss:.3f}"
