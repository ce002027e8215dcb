"""`schema`, `doctor` and `clean`: around the runs."""

import importlib.util
import json
import os
import platform
import shutil
import sys
from pathlib import Path
from typing import Annotated

import typer

from orionbed.cli.options import DEFAULT_RUNS, RunsOption
from orionbed.pinned import TORCH

GIGABYTE = 1e9
NEEDED_DISK_BYTES = 2 * GIGABYTE


def schema() -> None:
    """Print the JSON Schema of scenario files, for editors."""
    from orionbed.scenario import json_schema

    typer.echo(json.dumps(json_schema(), indent=2))


def doctor() -> None:
    """Say what this machine has and what that means for orionbed."""
    from orionbed.runs import git_state, version

    free = shutil.disk_usage(Path.cwd()).free
    rows = [
        ("orionbed", f"{version()} {git_state()}".strip(), True, ""),
        ("python", platform.python_version(), sys.version_info >= (3, 11), "orionbed needs Python 3.11 or newer"),
        ("cores", str(os.cpu_count()), True, ""),
        (
            "disk",
            f"{free / GIGABYTE:.0f} GB free",
            free > NEEDED_DISK_BYTES,
            "free some disk space, or use --out elsewhere",
        ),
        ("torch", *_torch()),
    ]
    for name, found, fine, advice in rows:
        typer.echo(f"{'ok' if fine else '--':<3} {name:<9} {found}" + ("" if fine else f"   {advice}"))
    if not all(fine for _, _, fine, _ in rows[:4]):
        raise typer.Exit(1)


def _torch() -> tuple[str, bool, str]:
    if importlib.util.find_spec("torch") is None:
        return "not installed", False, f"the simulator needs none; for emulator and real: pip install torch=={TORCH}"
    from importlib import metadata

    found = metadata.version("torch")
    return found, found.partition("+")[0] == TORCH, f"orionbed is tested with torch {TORCH}: pip install torch=={TORCH}"


def clean(
    *,
    runs: RunsOption = DEFAULT_RUNS,
    everything: Annotated[
        bool, typer.Option("--all", help="Remove finished runs and sweeps too, not only leftovers.")
    ] = False,
) -> None:
    """Remove what runs that never finished left behind; with --all every run, sweep and kept training."""
    from orionbed.runs import CHECKPOINTS, held_run, leftovers, list_runs, remove_run
    from orionbed.sweeps.store import remove_sweeps

    removed, kept = 0, []
    for folder in leftovers(runs):
        shutil.rmtree(folder)
        removed += 1
    for folder in list_runs(runs) if everything else []:
        if not folder.is_symlink() and held_run(folder) is not None and remove_run(folder):
            removed += 1
        else:
            kept.append(folder)
    if everything:
        for folder in runs.glob(f".*{CHECKPOINTS}"):
            shutil.rmtree(folder)
            removed += 1
        num_sweeps, stay = remove_sweeps(runs)
        removed, kept = removed + num_sweeps, [*kept, *stay]
    typer.echo(f"removed {removed} folder{'' if removed == 1 else 's'} from {runs}")
    for folder in kept:
        typer.echo(f"kept {folder}: no run of orionbed's own, or other files are in it")
