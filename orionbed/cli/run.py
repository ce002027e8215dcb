"""`orionbed run`: simulate or execute a scenario, write its folder, print where the report is."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orionbed.cli.options import (
    DEFAULT_RUNS,
    JsonOption,
    ProfileOption,
    RunsOption,
    ScenarioArgument,
    SeedOption,
    SetOption,
)

if TYPE_CHECKING:
    from orionbed.backends import Backend
    from orionbed.cli.progress import Console
    from orionbed.runs import RunId
    from orionbed.scenario import Scenario


def run(
    scenario: ScenarioArgument,
    *,
    backend: Annotated[str, typer.Option(help="What runs it: sim, emulator or real.")] = "sim",
    sets: SetOption = None,
    profile: ProfileOption = None,
    seed: SeedOption = None,
    samples: Annotated[int, typer.Option(min=0, help="Draw the uncertain inputs this many times, for bands.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Write the run's files straight into this folder.")] = None,
    runs: RunsOption = DEFAULT_RUNS,
    jobs: Annotated[int, typer.Option(min=0, help="Processes for samples and curve; 0: one per core.")] = 0,
    force: Annotated[bool, typer.Option("--force", help="Run again although the run exists, and replace it.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be started where, for --backend real.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Run a scenario, write its folder and its report, and print where the report is."""
    from orionbed import backends
    from orionbed.cli.progress import Console
    from orionbed.processes import num_cores
    from orionbed.runs import is_done, read_summary, run_id, unfinished, with_seed
    from orionbed.scenario import load

    the_scenario = load(scenario, sets or (), profile=profile)
    if seed is not None:
        the_scenario = with_seed(the_scenario, seed)
    if dry_run:
        _rehearse(the_scenario, backend)
        return
    module = backends.load(backend)
    identity = run_id(the_scenario, backend, samples)
    target = out if out is not None else runs / str(identity)
    console = Console(quiet=as_json)
    if not force and is_done(target, identity, the_scenario):
        console.line(f"run {identity} is already done; --force runs it again")
    else:
        job = _Job(the_scenario, module, identity, _given_text(scenario), samples, jobs or num_cores())
        with unfinished(target, force=force) as folder:
            _write_run(job, folder, console)
    _finish(target, read_summary(target), console, as_json=as_json)


def _rehearse(scenario: "Scenario", backend: str) -> None:
    from orionbed import backends
    from orionbed.cli.ending import InputError
    from orionbed.plan import make_plan

    if backend != "real":
        raise InputError("--dry-run is for --backend real; `orionbed check` says what a simulation comes to")
    for line in backends.load_rehearsing().dry_run(make_plan(scenario)):
        typer.echo(line)


@dataclass(frozen=True, slots=True)
class _Job:
    """What one invocation is to do; `given` is the scenario file as it was when the run began."""

    scenario: "Scenario"
    module: "Backend"
    identity: "RunId"
    given: bytes | None
    samples: int
    jobs: int


def _given_text(name: str) -> bytes | None:
    """Return the scenario file as given; `None` for a pipe, which can be read only once."""
    from orionbed.scenario.packaged import scenario_file

    found = scenario_file(name)
    return found[0].read_bytes() if found is not None and found[0].is_file() else None


def _write_run(job: _Job, folder: Path, console: "Console") -> None:
    from orionbed import backends
    from orionbed.journal import to_json
    from orionbed.plan import make_plan
    from orionbed.runs import command_line, git_state, manifest, write_json
    from orionbed.summary import summarise
    from orionbed.tables import write_tables

    started_at = datetime.now(UTC).isoformat(timespec="seconds")
    seed = job.identity.seed
    plan = make_plan(job.scenario, seed)
    with console.run(plan, job.identity) as progress:
        result = job.module.run(plan, seed=seed, progress=progress, say=console.line)
    baseline = None
    if result.has_baseline:
        console.line("simulating the datacenter baseline")
        baseline = backends.load("sim").simulate_baseline(result.plan.scenario, seed)
    summary = summarise(result, baseline, git=git_state(), started_at=started_at)
    _add_curve(job, summary, folder, console)
    _add_bands(job, summary, folder, console)
    _write_scenario(job, folder)
    write_tables(result, folder)
    if result.trace is not None:
        result.trace.save(folder / "trace.npz")
    if result.journal:
        (folder / "journal.json").write_text(to_json(result.journal), encoding="utf-8")
    write_json(folder / "summary.json", summary)
    write_json(folder / "warnings.json", summary["warnings"])
    write_json(
        folder / "manifest.json",
        manifest(
            job.identity, command=command_line(), started_at=started_at, wall_s=result.wall_s, samples=job.samples
        ),
    )
    (folder / "log.txt").write_text("\n".join(console.log) + "\n", encoding="utf-8")
    _write_report(folder)


def _write_report(folder: Path) -> None:
    import reports

    reports.build([folder], folder / "report.html")


def _write_scenario(job: _Job, folder: Path) -> None:
    from orionbed.scenario import to_yaml

    if job.given is not None:
        (folder / "scenario.yaml").write_bytes(job.given)
    (folder / "resolved.yaml").write_text(to_yaml(job.scenario), encoding="utf-8")


def _add_curve(job: _Job, summary: dict[str, Any], folder: Path, console: "Console") -> None:
    from orionbed.bandwidth_needed import bandwidth_needed
    from orionbed.tables import write_csv

    if not job.scenario.report.uplinks or job.identity.backend != "sim":
        return
    console.line(f"simulating the bandwidth curve at {len(job.scenario.report.uplinks)} uplinks")
    rows = job.module.bandwidth_curve(job.scenario, job.identity.seed, job.jobs)
    write_csv(folder / "curve.csv", rows, ("uplink_bps", "boundary", "tokens_per_s", "relative_speed"))
    summary["curve_needed"] = bandwidth_needed(rows)


def _add_bands(job: _Job, summary: dict[str, Any], folder: Path, console: "Console") -> None:
    from orionbed.sampling import bands, sample
    from orionbed.tables import write_csv

    if not job.samples:
        return
    if not job.scenario.uncertain:
        console.line("nothing is under `uncertain`: the draws differ by their seeds alone")
    with console.count("draws", job.samples) as progress:
        rows = sample(
            job.scenario,
            job.identity.backend,
            seed=job.identity.seed,
            num_samples=job.samples,
            jobs=job.jobs,
            progress=progress,
        )
    write_csv(folder / "bands.csv", rows, tuple(rows[0]))
    summary["bands"] = bands(rows)
    summary["bands_samples"] = job.samples


def _finish(target: Path, summary: dict[str, Any], console: "Console", *, as_json: bool) -> None:
    from orionbed.cli.ending import EXIT_VOID

    if as_json:
        typer.echo(json.dumps(summary, indent=2, ensure_ascii=False))
    else:
        console.line(headline(summary))
        console.line(f"report  {target / 'report.html'}")
    if summary["aborted"]:
        typer.echo(f"aborted: {summary['aborted']}; what there is was kept", err=True)
        raise typer.Exit(EXIT_VOID)


def headline(summary: dict[str, Any]) -> str:
    """Return the main numbers of a run in one line."""
    mfu, relative, num_warnings = summary["mfu"], summary["datacenter"]["relative_speed"], len(summary["warnings"])
    parts = [
        f"MFU {mfu['wall_clock']:.1%} (peak {mfu['peak_sustained']:.1%})",
        f"{summary['tokens']['per_s']['wall_clock']:,.0f} tokens/s",
        *([] if relative is None else [f"{relative:.0%} of datacenter speed"]),
        f"{num_warnings} warning{'' if num_warnings == 1 else 's'}",
    ]
    return "   ".join(parts)
