"""The run store: one folder per finished run, named by what went into it, never changed afterwards."""

import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from orionbed.scenario import Scenario, to_yaml

PACKAGES = ("orionbed", "simpy", "numpy", "pydantic", "matplotlib", "torch")


class RunError(Exception):
    """A run that cannot be found, read or written; the message says what to do."""


@dataclass(frozen=True, slots=True)
class RunId:
    """What identifies a run: the same id means the same scenario, backend, version, samples and seed."""

    name: str
    backend: str
    digest: str
    seed: int

    def __str__(self) -> str:
        return f"{self.name}-{self.backend}-{self.digest}-s{self.seed}"


def run_id(scenario: Scenario, backend: str, seed: int, samples: int) -> RunId:
    """Return the id of a run; the digest covers the resolved scenario, backend, version and number of samples."""
    text = "\n".join((to_yaml(scenario), backend, version(), str(samples)))
    return RunId(scenario.name, backend, hashlib.sha256(text.encode()).hexdigest()[:6], seed)


def version() -> str:
    """Return the installed version of orionbed."""
    return metadata.version("orionbed")


@contextmanager
def unfinished(target: Path, *, force: bool) -> Iterator[Path]:
    """Give a folder to write into that becomes `target` only when the block ends well.

    Raises:
        RunError: `target` exists and `force` is not set.

    """
    if target.exists() and not force and (not target.is_dir() or any(target.iterdir())):
        raise RunError(f"{target} exists already; use --force to replace it, or --out for another folder")
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.parent / f".{target.name}.partial-{os.getpid()}"
    partial.mkdir()
    try:
        yield partial
        if target.exists():
            if force and any(target.iterdir()) and not (target / "manifest.json").exists():
                raise RunError(f"{target} is not a run folder, so --force will not replace it; choose another --out")
            shutil.rmtree(target)
        partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def write_json(path: Path, value: object) -> None:
    """Write JSON with a stable layout; infinities and NaN are refused, for no reader shares their spelling."""
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")


def manifest(identity: RunId, *, command: list[str], started_at: str, wall_s: float, samples: int) -> dict[str, Any]:
    """Return what one needs to know to run the same thing again."""
    return {
        "run": str(identity),
        "command": command,
        "started_at": started_at,
        "wall_s": wall_s,
        "seed": identity.seed,
        "samples": samples,
        "git": git_state(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: found for name in PACKAGES if (found := _installed(name))},
    }


def _installed(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def git_state() -> str:
    """Return the commit of the checkout this code runs from, `-dirty` with local changes; empty outside a checkout."""
    folder = Path(__file__).resolve().parent.parent
    if not (folder / ".git").exists():
        return ""
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"],  # noqa: S607  (whichever git the user has)
            cwd=folder,
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return described.stdout.strip()


def find_run(name: str, store: Path) -> Path:
    """Return the folder of a run given by path, id, or unique beginning of its id.

    Raises:
        RunError: there is no such run, or several.

    """
    for candidate in (Path(name), store / name):
        if (candidate / "summary.json").is_file():
            return candidate
    matches = [folder for folder in list_runs(store) if folder.name.startswith(name)]
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise RunError(f"'{name}' may be {', '.join(folder.name for folder in matches)}; write more of it")
    raise RunError(f"there is no run '{name}' here or in {store}; `orionbed ls` lists the runs")


def list_runs(store: Path) -> list[Path]:
    """Return the folders of all finished runs of a store, by name."""
    if not store.is_dir():
        return []
    return sorted(
        folder for folder in store.iterdir() if not folder.name.startswith(".") and (folder / "summary.json").is_file()
    )


def leftovers(store: Path) -> list[Path]:
    """Return folders of runs that were never finished and whose process is gone."""
    if not store.is_dir():
        return []
    return sorted(folder for folder in store.glob(".*.partial-*") if not _alive(folder.name.rpartition("-")[2]))


def _alive(pid: str) -> bool:
    if not pid.isdigit():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def read_summary(folder: Path) -> dict[str, Any]:
    """Read a run's summary.

    Raises:
        RunError: it is missing or no JSON object.

    """
    path = folder / "summary.json"
    try:
        summary = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read: {error}") from None
    if not isinstance(summary, dict):
        raise RunError(f"{path} is no summary")
    return summary


def command_line() -> list[str]:
    """Return the command as typed, with the program's bare name."""
    return ["orionbed", *sys.argv[1:]]
