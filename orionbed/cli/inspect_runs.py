"""`ls`, `show`, `compare` and `report`: reading what has been run."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from orionbed.cli.options import DEFAULT_RUNS, JsonOption, RunsOption

RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="A run's folder, its id, or the id's beginning.")]


def list_command(*, runs: RunsOption = DEFAULT_RUNS, as_json: JsonOption = False) -> None:
    """List the finished runs with their main numbers."""
    from orionbed.runs import RunError, list_runs, read_summary

    rows = []
    for folder in list_runs(runs):
        try:
            summary = read_summary(folder)
        except RunError as error:
            typer.echo(f"left out: {error}", err=True)
            continue
        rows.append(
            {
                "run": folder.name,
                "mfu": summary["mfu"]["wall_clock"],
                "tokens_per_s": summary["tokens"]["per_s"]["wall_clock"],
                "relative_speed": summary["datacenter"]["relative_speed"],
                "started_at": summary["started_at"],
            }
        )
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    if not rows:
        where = f"no runs in {runs}" if runs.is_dir() else f"there is no folder {runs}"
        typer.echo(f"{where}; `orionbed run minimal` makes a run")
        return
    width = max(len(row["run"]) for row in rows)
    typer.echo(f"{'run':<{width}} {'MFU':>7} {'tokens/s':>10} {'datacenter':>10}  started")
    for row in rows:
        relative = "" if row["relative_speed"] is None else f"{row['relative_speed']:.0%}"
        typer.echo(
            f"{row['run']:<{width}} {row['mfu']:>7.1%} {row['tokens_per_s']:>10,.0f} {relative:>10}  "
            f"{row['started_at']}"
        )


def show(run: RunArgument, *, runs: RunsOption = DEFAULT_RUNS, as_json: JsonOption = False) -> None:
    """Show one run: its numbers beside the published ones, its warnings, and its resolved scenario."""
    from orionbed.cli.run import headline
    from orionbed.runs import find_run, read_summary

    folder = find_run(run, runs)
    summary = read_summary(folder)
    if as_json:
        typer.echo(json.dumps(summary, indent=2, ensure_ascii=False))
        return
    typer.echo("   ".join(part for part in (folder.name, summary["title"]) if part))
    typer.echo(f"  {headline(summary)}")
    for row in summary["published"]:
        typer.echo(f"  {row['quantity']:<42} {_beside(row)}")
    for key, (low, middle, high) in summary.get("bands", {}).items():
        typer.echo(f"  {key:<42} {_number(middle):>16}   90 % of draws from {_number(low)} to {_number(high)}")
    for row in sorted(summary["waterfall"], key=lambda r: -r["fraction"]):
        typer.echo(f"  {row['label']:<42} {row['fraction']:>16.2%}")
    for entry in summary["warnings"]:
        typer.echo(f"  warning: {entry['message']}; {entry['advice']}")
    for name in ("resolved.yaml", "report.html"):
        if (folder / name).is_file():
            typer.echo(f"  {name.partition('.')[0].replace('resolved', 'scenario'):<9} {folder / name}")


def _beside(row: dict[str, Any]) -> str:
    """Print our number, the published one and the error."""
    ours = "not measured" if row["ours"] is None else _number(row["ours"])
    error = "" if row["error"] is None else f", {row['error']:+.1%}"
    return f"{ours:>16}   published {_number(row['published'])} ({row['kind']}{error})"


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000.0 else f"{value:.4g}"


def compare(
    first: Annotated[str, typer.Argument(metavar="A", help="A run.")],
    second: Annotated[str, typer.Argument(metavar="B", help="Another run.")],
    *,
    runs: RunsOption = DEFAULT_RUNS,
    as_json: JsonOption = False,
) -> None:
    """Compare two runs: every main number and every cause of the waterfall, B against A."""
    import reports
    from orionbed.runs import RunError, find_run, read_summary

    summaries = [read_summary(find_run(name, runs)) for name in (first, second)]
    try:
        rows = reports.compare(*summaries)
    except ValueError as error:
        raise RunError(str(error)) from None
    if as_json:
        fields = ("quantity", "a", "b", "difference", "relative")
        typer.echo(json.dumps([{name: getattr(row, name) for name in fields} for row in rows], indent=2))
        return
    typer.echo(f"{'quantity':<44} {'A':>16} {'B':>16} {'B - A':>16}")
    for row in rows:
        typer.echo(f"{row.label:<44} " + " ".join(f"{cell:>16}" for cell in row.printed()))


def report(
    names: Annotated[list[str], typer.Argument(metavar="RUN...", help="One run, or several to lay side by side.")],
    *,
    out: Annotated[Path | None, typer.Option(help="Where the page goes; into the run's folder by default.")] = None,
    runs: RunsOption = DEFAULT_RUNS,
) -> None:
    """Write the report of one run again, or one report of several runs."""
    import reports
    from orionbed.runs import RunError, find_run
    from orionbed.tracing import TraceError

    folders = [find_run(name, runs) for name in names]
    target = out or (folders[0] if len(folders) == 1 else runs / "comparison") / "report.html"
    try:
        typer.echo(f"report  {reports.build(folders, target)}")
    except (reports.ReportError, TraceError) as error:
        raise RunError(str(error)) from None
