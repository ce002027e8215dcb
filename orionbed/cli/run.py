"""`orionbed run`: simulate or execute a scenario, write its folder, print where the report is."""

import json
import os
import shutil
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orionbed.cli.options import (
    DEFAULT_RUNS,
    JsonOption,
    RunsOption,
    ScenarioArgument,
    SeedOption,
    SetOption,
)

if TYPE_CHECKING:
    from orionbed.backends import Backend
    from orionbed.results import RunResult
    from orionbed.runs import RunId
    from orionbed.scenario import Scenario


def run(
    scenario: ScenarioArgument,
    backend: Annotated[str, typer.Option(help="What runs it: sim, emulator or real.")] = "sim",
    sets: SetOption = None,
    seed: SeedOption = None,
    samples: Annotated[int, typer.Option(min=0, help="Draw the uncertain inputs this many times, for bands.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Write the run's files straight into this folder.")] = None,
    runs: RunsOption = DEFAULT_RUNS,
    jobs: Annotated[int, typer.Option(min=0, help="Processes for samples and curve; 0: one per core.")] = 0,
    force: Annotated[bool, typer.Option("--force", help="Run again although the run exists, and replace it.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Run a scenario, write its folder and its report, and print where the report is."""
    from orionbed import backends
    from orionbed.cli.progress import Console
    from orionbed.runs import read_summary, run_id, unfinished
    from orionbed.scenario import load

    the_scenario = load(scenario, sets or ())
    module = backends.load(backend)
    the_seed = the_scenario.run.seed if seed is None else seed
    identity = run_id(the_scenario, backend, the_seed, samples)
    target = out if out is not None else runs / str(identity)
    console = Console(quiet=as_json)
    if not force and (target / "summary.json").is_file():
        console.line(f"run {identity} is already done; --force runs it again")
    else:
        with unfinished(target, force=force) as folder:
            _write_run(
                _Job(the_scenario, module, identity, scenario, samples, jobs or os.cpu_count() or 1), folder, console
            )
    _finish(target, read_summary(target), console, as_json=as_json)


class _Job:
    """What one invocation is to do."""

    def __init__(
        self, scenario: "Scenario", module: "Backend", identity: "RunId", given: str, samples: int, jobs: int
    ) -> None:
        self.scenario = scenario
        self.module = module
        self.identity = identity
        self.given = given
        self.samples = samples
        self.jobs = jobs


def _write_run(job: _Job, folder: Path, console: Any) -> None:
    from orionbed.plan import make_plan
    from orionbed.runs import command_line, git_state, manifest, write_json
    from orionbed.summary import summarise
    from orionbed.tables import write_tables

    started_at = datetime.now(UTC).isoformat(timespec="seconds")
    seed = job.identity.seed
    plan = make_plan(job.scenario, seed)
    with console.run(plan, job.identity) as progress:
        result = job.module.run(plan, seed=seed, progress=progress)
    console.line("simulating the datacenter baseline")
    baseline = job.module.simulate_baseline(job.scenario, seed)
    summary = summarise(result, baseline, git=git_state(), started_at=started_at)
    _add_curve(job, summary, folder, console)
    _add_bands(job, summary, folder, console)
    _copy_scenario(job, folder)
    write_tables(result, folder)
    if result.trace is not None:
        result.trace.save(folder / "trace.npz")
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


def _copy_scenario(job: _Job, folder: Path) -> None:
    from orionbed.scenario import to_yaml
    from orionbed.scenario.packaged import scenario_file

    given = scenario_file(job.given)
    if given is not None:
        shutil.copyfile(given[0], folder / "scenario.yaml")
    (folder / "resolved.yaml").write_text(to_yaml(job.scenario), encoding="utf-8")


def _add_curve(job: _Job, summary: dict[str, Any], folder: Path, console: Any) -> None:
    from orionbed.bandwidth_needed import bandwidth_needed
    from orionbed.tables import write_csv

    if not job.scenario.report.uplinks:
        return
    console.line(f"simulating the bandwidth curve at {len(job.scenario.report.uplinks)} uplinks")
    rows = job.module.bandwidth_curve(job.scenario, job.identity.seed, job.jobs)
    write_csv(folder / "curve.csv", rows, ("uplink_bps", "boundary", "tokens_per_s", "relative_speed"))
    summary["curve_needed"] = bandwidth_needed(rows)


def _add_bands(job: _Job, summary: dict[str, Any], folder: Path, console: Any) -> None:
    from orionbed.sampling import bands, sample
    from orionbed.tables import write_csv

    if not job.samples:
        return
    with console.count("draws", job.samples) as progress:
        rows = sample(job.scenario, job.identity.backend, job.identity.seed, job.samples, job.jobs, progress)
    write_csv(folder / "bands.csv", rows, tuple(rows[0]))
    summary["bands"] = bands(rows)
    summary["bands_samples"] = job.samples


def _finish(target: Path, summary: dict[str, Any], console: Any, *, as_json: bool) -> None:
    if as_json:
        sys.stdout.write(json.dumps(summary, indent=2, ensure_ascii=False) + "\n")
        return
    relative = summary["datacenter"]["relative_speed"]
    share = "" if relative is None else f"   {relative:.0%} of datacenter speed"
    mfu, tokens = summary["mfu"], summary["tokens"]
    console.line(
        f"MFU {mfu['wall_clock']:.1%} (peak {mfu['peak_sustained']:.1%})   "
        f"{tokens['per_s']['wall_clock']:,.0f} tokens/s{share}   {len(summary['warnings'])} warnings"
    )
    console.line(f"report  {target / 'report.html'}")
