"""The files that come with orionbed: scenarios, GPU profiles, delay tables."""

import csv
import os
from pathlib import Path

import orionbed
from orionbed.scenario.problems import Place, Problem, ScenarioError, did_you_mean, nearest

FOLDER = Path(orionbed.__file__).resolve().parent.parent / "scenarios"
FOLDERS = ("peers", "agreement", "hardware", "training")
"""Folders of scenarios: other systems, comparisons of backends, trainings; names may be given with or without them."""
CONTESTS = ("apex-routing",)
"""Files beside the scenarios that are routing contests, for `orionbed contest`."""


def names(subfolder: str = "", ending: str = ".yaml") -> list[str]:
    """Names, without ending, of the packaged files of one kind."""
    return sorted(path.stem for path in (FOLDER / subfolder).glob(f"*{ending}"))


def scenarios() -> list[str]:
    """What the packaged scenarios are called, those in a folder behind its name: `minimal`, `peers/...`."""
    own = [name for name in names() if name not in CONTESTS]
    return own + [f"{folder}/{name}" for folder in FOLDERS for name in names(folder)]


def _inside(name: str) -> str | None:
    """The packaged scenario or contest that `name` means, as `scenarios` calls it, or None."""
    inside = name.removeprefix("scenarios/").removesuffix(".yaml")
    places = (inside, *(f"{folder}/{inside}" for folder in FOLDERS))
    return next((known for known in places if known in (*scenarios(), *CONTESTS)), None)


def scenario_file(name: str, folder: Path | None = None, *, not_this: Path | None = None) -> tuple[Path, str] | None:
    """The file that `name` means and how to call it in messages, or None.

    A path (relative to `folder`) comes first, with or without its ending; then the packaged scenarios.
    """
    base = folder or Path()
    for candidate in (base / name, base / f"{name}.yaml"):
        if candidate.is_file() and not (not_this and candidate.resolve() == not_this):
            return candidate, os.path.normpath(candidate)
    inside = _inside(name)
    if inside is not None:
        return FOLDER / f"{inside}.yaml", f"scenarios/{inside}.yaml"
    # A folder, which reading will refuse, or a pipe, which it will not.
    other = base / name
    return (other, os.path.normpath(other)) if other.exists() and not other.is_file() else None


def missing(name: str) -> str:
    """What to say about a scenario that is not there."""
    short = {known.rpartition("/")[2]: known for known in (*CONTESTS, *scenarios())}
    near = nearest(name.removesuffix(".yaml").rpartition("/")[2], list(short))
    hint = f"; did you mean {short[near]}?" if near else f"; packaged are {', '.join(scenarios())}"
    return f"no such file, nor a packaged scenario{hint}"


def delay_sites(table: str) -> list[str]:
    """The sites that a packaged delay table knows."""
    lines = (FOLDER / "delays" / f"{table}.csv").read_text(encoding="utf-8").splitlines()
    rows = csv.DictReader(line for line in lines if line and not line.startswith("#"))
    return sorted({row[column] for row in rows for column in ("site", "other")})


def gpu_file(name: str) -> tuple[Path, str]:
    """The file of a GPU profile: a packaged name, or a path that ends in .yaml. Raises ScenarioError."""
    if name.endswith(".yaml") and Path(name).is_file():
        return Path(name), name
    if name in names("gpus"):
        return FOLDER / "gpus" / f"{name}.yaml", f"scenarios/gpus/{name}.yaml"
    raise ScenarioError([Problem(Place(f"scenarios/gpus/{name}.yaml"), "", unknown_gpu(name))])


def unknown_gpu(name: str) -> str:
    """What to say about a GPU profile that is not there."""
    known = names("gpus")
    return (
        f"no GPU profile {name!r}{did_you_mean(name, known)} (profiles: {', '.join(known)}; or a path to a .yaml file)"
    )
