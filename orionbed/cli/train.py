"""`orionbed train`: simulate a scenario, train a model as the simulated peers would, write its folder."""

import json
import os
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
    from orionbed.cli.ending import Interrupted
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
    tasks = [_task(the_scenario, given, each, out, runs, force=force) for each in range(first, first + seeds)]
    try:
        if seeds == 1:
            _train(tasks[0], console)
        else:
            with Console(quiet=as_json).count("seeds", seeds) as progress:
                _several(tasks, jobs or num_cores(), progress)
    except Interrupted:
        raise Interrupted(_what_stays(tasks)) from None
    _finish([task.target for task in tasks], as_json=as_json)


@dataclass(frozen=True, slots=True)
class _Task:
    """What is trained; `given` is the scenario file as it was, `target` the run's folder, `kept` that of its states."""

    scenario: "Scenario"
    given: bytes | None
    identity: "RunId"
    target: Path
    kept: Path
    force: bool

    @property
    def is_done(self) -> bool:
        """Whether its folder holds it already."""
        from orionbed.runs import is_done

        return is_done(self.target, self.identity, self.scenario)


def _task(scenario: "Scenario", given: bytes | None, seed: int, out: Path | None, runs: Path, *, force: bool) -> _Task:
    from orionbed.learning.api import BACKEND
    from orionbed.runs import checkpoints_of, run_id, with_seed

    scenario = with_seed(scenario, seed)
    identity = run_id(scenario, BACKEND, 0)
    target = out if out is not None else runs / str(identity)
    return _Task(scenario, given, identity, target, checkpoints_of(target), force)


def _several(tasks: list[_Task], jobs: int, progress: "Callable[[int], None]") -> None:
    """Train with several seeds, each in a process if there may be more than one."""
    from orionbed.cli.progress import Console
    from orionbed.processes import in_processes

    if jobs > 1:
        in_processes(_train_in_a_pool, [(task,) for task in tasks], jobs, progress)
        return
    for count, task in enumerate(tasks, start=1):
        _train(task, Console(quiet=True))
        progress(count)


def _train_in_a_pool(task: _Task) -> None:
    """Train in a process of a pool, which is ended by a signal and must not leave a half-written folder then."""
    from orionbed.cli.ending import EXIT_VOID, Interrupted, interruptible
    from orionbed.cli.progress import Console

    try:
        with interruptible():
            _train(task, Console(quiet=True))
    except Interrupted:
        os._exit(EXIT_VOID)  # an exception would go to the pool, and this process on to its next task


def _train(task: _Task, console: "Console") -> None:
    """Train with one seed unless that is done."""
    from orionbed.cli.ending import Interrupted
    from orionbed.runs import unfinished

    if not task.force and task.is_done:
        console.line(f"run {task.identity} is already done; --force trains again")
        return
    if task.force:
        shutil.rmtree(task.kept, ignore_errors=True)
    try:
        with unfinished(task.target, force=task.force) as folder:
            _write(task, folder, console)
    except Interrupted:
        if task.is_done:  # only --force replaces it, and that begins anew
            shutil.rmtree(task.kept, ignore_errors=True)
        raise
    shutil.rmtree(task.kept, ignore_errors=True)


def _what_stays(tasks: list[_Task]) -> str:
    """Return what there is of trainings that were interrupted, and how they go on; empty if nothing is."""
    from orionbed.checkpoints import newest

    kept = [task.kept for task in tasks if newest(task.kept) is not None]
    again = "without --force the same command" if tasks[0].force else "the same command"
    if len(tasks) == 1:
        return f"its state is kept in {kept[0]}; {again} goes on from there" if kept else ""
    num_done = sum(task.is_done for task in tasks)
    if not kept and not num_done:
        return ""
    done = f"{num_done} of {len(tasks)} seeds are done"
    return f"{done}, and the states of {len(kept)} are kept; {again} goes on from there"


def _write(task: _Task, folder: Path, console: "Console") -> None:
    from orionbed import backends
    from orionbed.cli.run import _write_report
    from orionbed.learning.api import train as learn
    from orionbed.learning.files import write_training
    from orionbed.runs import command_line, manifest, write_json

    identity = task.identity
    console.line(f"run {identity}")
    simulate = backends.load("sim").run
    with console.training() as progress:
        learned = learn(
            task.scenario,
            seed=identity.seed,
            simulate=simulate,
            folder=task.kept,
            progress=progress,
            say=console.line,
        )
    write_training(learned, task.scenario, task.given, folder)
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
