"""The run store: one folder per finished run, named by what went into it, never changed afterwards."""

import hashlib
import json
import os
import platform
import re
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
from orionbed.scenario.training import NAMED_TEXTS, HubData, SyntheticData

PACKAGES = ("orionbed", "simpy", "numpy", "pydantic", "matplotlib", "torch")

# What orionbed writes into a run's folder. Replacing and removing runs touch these and nothing else.
RUN_FILES = (
    *("scenario.yaml", "resolved.yaml", "manifest.json", "summary.json", "warnings.json", "log.txt", "report.html"),
    *("steps.csv", "timeline.csv", "marks.csv", "stages.csv", "peers.csv", "curve.csv", "bands.csv"),
    *("trace.npz", "trace.json.gz", "journal.json"),
    *("loss.csv", "held_out.csv", "samples.txt"),
)
FIGURES, FIGURE_ENDINGS = "figures", (".svg", ".png", ".csv")
CHECKPOINTS = ".checkpoints"
"""The checkpoints of a training lie in a hidden folder beside the run's, with this at the end of its name."""
_PARTIAL = re.compile(r"\.(?:.+\.)?partial-(\d+)")


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


def run_id(scenario: Scenario, backend: str, samples: int) -> RunId:
    """Return the id of a run; runs that differ only in their seed share the digest."""
    return RunId(scenario.name, backend, digest_of(scenario, backend, samples)[:6], scenario.run.seed)


def digest_of(scenario: Scenario, backend: str, samples: int) -> str:
    """Return a digest of what a run does besides its seed, in hexadecimal digits.

    It covers the resolved scenario, the files it names, the backend, the version and the number of samples. Files of
    Parquet, which may be huge, count by name and size, all others by content.
    """
    digest = hashlib.sha256()
    for part in (to_yaml(with_seed(scenario, 0)), backend, version(), str(samples)):
        digest.update(part.encode() + b"\0")
    schedule = scenario.pipeline.schedule
    order = schedule.file if schedule.kind == "csv" else ""
    named = [*map(Path, (*scenario.peers.gpu_names, scenario.network.variability, order)), *_texts(scenario)]
    for path in named:
        if path.suffix.lower() == ".parquet" and path.is_file():
            digest.update(f"{path.name} {path.stat().st_size}\n".encode())
        elif path.is_file():
            digest.update(path.read_bytes())
    return digest.hexdigest()


def _texts(scenario: Scenario) -> list[Path]:
    """Return the files of what is learned from, but not of what comes with orionbed, and of its tokenizer."""
    data = scenario.training.data
    if isinstance(data, SyntheticData):
        return []
    files: list[Path] = []
    if not isinstance(data, HubData) and data.path not in NAMED_TEXTS:
        from orionbed.training.text.documents import ENDINGS

        path = Path(data.path)
        inside = sorted(path.iterdir()) if path.is_dir() else []
        files = [file for file in inside if file.suffix.lower() in ENDINGS[data.kind]] if inside else [path]
    return [*files, Path(data.tokenizer)]


def with_seed(scenario: Scenario, seed: int) -> Scenario:
    """Return `scenario` with another seed; a seed claims nothing about the world, so no source is lost."""
    return scenario.model_copy(update={"run": scenario.run.model_copy(update={"seed": seed})})


def version() -> str:
    """Return the installed version of orionbed."""
    return metadata.version("orionbed")


def is_done(target: Path, identity: RunId, scenario: Scenario) -> bool:
    """Whether `target` holds this very run, finished.

    Raises:
        RunError: it holds a run of the same id, but of another scenario (the id has a short digest).

    """
    if not (target / "summary.json").is_file() or held_run(target) != str(identity):
        return False
    try:
        resolved = (target / "resolved.yaml").read_text(encoding="utf-8")
    except OSError:
        return False
    if resolved != to_yaml(scenario):
        raise RunError(f"{target} holds a run of the same id but of another scenario; choose another folder with --out")
    return True


def held_run(folder: Path) -> str | None:
    """Return the id of the run that a folder holds, `None` when it is no run's folder."""
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    # Other programs have a manifest.json too.
    found = manifest.get("run") if isinstance(manifest, dict) else None
    return found if isinstance(found, str) and "packages" in manifest else None


@contextmanager
def unfinished(target: Path, *, force: bool) -> Iterator[Path]:
    """Give a folder to write into whose files become those of `target` only when the block ends well.

    Otherwise nothing is left behind. `force` replaces the files of a run that is in `target`, and no others.

    Raises:
        RunError: `target` is in use, or cannot be written.

    """
    final = target.resolve()
    _refuse(target, force=force)
    in_place = final.is_dir()
    partial = final / f".partial-{os.getpid()}" if in_place else final.parent / f".{final.name}.partial-{os.getpid()}"
    made: list[Path] = []
    finished = False
    # Interrupts come at any moment: from the first folder on everything is within the `try`.
    try:
        _make(partial, made, target)
        yield partial
        _refuse(target, force=force)
        if in_place:
            _move_into(partial, final)
        else:
            _rename(partial, final)
        finished = True
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        if not finished:
            _remove_empty(made)


def _make(partial: Path, made: list[Path], target: Path) -> None:
    """Make the folder to write into; `made` gets the folders above it that were not there, the innermost first."""
    try:
        made += [folder for folder in partial.parents if not folder.exists()]
        partial.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(partial, ignore_errors=True)  # left by a process that had our number before us
        partial.mkdir()
    except OSError as error:
        raise RunError(
            f"{target} cannot be written: {error.strerror or error}; choose another folder with --out or --runs"
        ) from None


def _refuse(target: Path, *, force: bool) -> None:
    """Raise RunError unless `target` is free, or holds a run that may be replaced."""
    try:
        if target.exists() and not target.is_dir():
            raise RunError(f"{target} is a file; choose a folder with --out or --runs")
        used = target.is_dir() and any(not _PARTIAL.fullmatch(entry.name) for entry in target.iterdir())
    except OSError as error:
        raise RunError(
            f"{target} cannot be read: {error.strerror or error}; choose another folder with --out or --runs"
        ) from None
    if not used:
        return
    held = held_run(target)
    if held is None:
        raise RunError(f"{target} is not empty and holds no run; nothing is overwritten, choose another --out")
    if not force:
        raise RunError(f"{target} holds the run {held}; use --force to replace it, or choose another --out")


def _move_into(partial: Path, final: Path) -> None:
    """Replace the run files of an existing folder, which may be a mount point or somebody's working directory."""
    (final / "summary.json").unlink(missing_ok=True)  # from here to the end it is no finished run
    stale = set(run_files(final))
    new = sorted(path.relative_to(partial) for path in partial.rglob("*") if path.is_file())
    for path in sorted(new, key=lambda path: path.name == "summary.json"):
        (final / path).parent.mkdir(exist_ok=True)
        (partial / path).replace(final / path)
    for path in stale - {final / path for path in new}:
        path.unlink()


def _rename(partial: Path, final: Path) -> None:
    try:
        partial.rename(final)
    except OSError:
        if final.exists():
            raise RunError(f"{final} was made by another process meanwhile; nothing was overwritten") from None
        raise


def _remove_empty(folders: list[Path]) -> None:
    for folder in folders:
        try:
            folder.rmdir()
        except OSError:
            return


def run_files(folder: Path) -> list[Path]:
    """Return the files in a run's folder that orionbed wrote; whatever else lies there is somebody's own."""
    figures = [path for path in folder.glob(f"{FIGURES}/*") if path.suffix in FIGURE_ENDINGS]
    return [path for path in (*(folder / name for name in RUN_FILES), *sorted(figures)) if path.is_file()]


def remove_run(folder: Path) -> bool:
    """Remove a run's files and its folder; return False when the folder stays because other files are in it."""
    for path in run_files(folder):
        path.unlink()
    _remove_empty([folder / FIGURES])
    _remove_empty([folder])
    return not folder.exists()


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
    if Path(name).is_dir():
        raise RunError(f"{name} is not the folder of a finished run: it has no summary.json")
    if not store.is_dir():
        raise RunError(f"there is no run '{name}', and no folder {store} with runs; say where with --runs")
    raise RunError(f"there is no run '{name}' here or in {store}; `orionbed ls` lists the runs")


def list_runs(store: Path) -> list[Path]:
    """Return the folders of all finished runs of a store, by name."""
    if not store.is_dir():
        return []
    return sorted(
        folder for folder in store.iterdir() if not folder.name.startswith(".") and (folder / "summary.json").is_file()
    )


def leftovers(store: Path) -> list[Path]:
    """Return folders of runs that were never finished and whose process is gone, in a store or in its runs."""
    found = []
    for folder in (*store.glob(".*partial-*"), *store.glob("*/.partial-*")):
        match = _PARTIAL.fullmatch(folder.name)
        if match and folder.is_dir() and not folder.is_symlink() and not _alive(int(match[1])):
            found.append(folder)
    return sorted(found)


def checkpoints_of(target: Path) -> Path:
    """Return where the training whose folder is `target` keeps its checkpoints while it is under way."""
    whole = target.absolute()
    return whole.with_name(f".{whole.name}{CHECKPOINTS}")


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def read_summary(folder: Path) -> dict[str, Any]:
    """Read a run's summary.

    Raises:
        RunError: it is missing, no JSON object, or of another schema version.

    """
    from orionbed.summary import SCHEMA_VERSION

    path = folder / "summary.json"
    try:
        summary = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror or error}") from None
    except ValueError as error:
        raise RunError(f"{path} is no JSON: {error}; run the scenario again with --force") from None
    if not isinstance(summary, dict) or "schema_version" not in summary:
        raise RunError(f"{path} is no summary of a run")
    if summary["schema_version"] != SCHEMA_VERSION:
        raise RunError(
            f"{path} has schema_version {summary['schema_version']!r}, this orionbed reads {SCHEMA_VERSION}; "
            "run the scenario again"
        )
    return summary


def command_line() -> list[str]:
    """Return the command as typed, with the program's bare name."""
    return ["orionbed", *sys.argv[1:]]
