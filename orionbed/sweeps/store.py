"""The folder of a sweep: runs that are done are kept line by line, so that nothing is run twice; results come last."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from orionbed.runs import RunError
from orionbed.sweeps.loading import Loaded
from orionbed.sweeps.running import Record, key_of

RUNS: Final = "runs.jsonl"
RESULT: Final = "sweep.json"
FILES: Final = (
    RUNS,
    RESULT,
    "sweep.csv",
    "sweep.yaml",
    "sweep.png",
    "curves.png",
    "curves.csv",
    "report.html",
    "manifest.json",
)


def identity_of(sweep: Loaded) -> str:
    """Return `<name>-sweep-<hash6>`: sweeps of the same cases share it, however many seeds and whichever measures."""
    digest = hashlib.sha256()
    for case in sweep.cases:
        digest.update("\0".join((*case.labels, key_of(case.scenario, sweep), "")).encode())
    return f"{sweep.name}-sweep-{digest.hexdigest()[:6]}"


class Store:
    """The runs of one sweep that are done, in a file of its folder: a line that names the sweep, then one per run."""

    def __init__(self, folder: Path, identity: str, *, force: bool) -> None:
        """Read what is there.

        Raises:
            RunError: the folder holds something else, or cannot be read or written.

        """
        self.folder = folder
        self._identity = identity
        self.done: dict[tuple[str, int], Record] = {}
        try:
            self._open(force=force)
        except OSError as error:
            raise RunError(
                f"{folder} cannot be used: {error.strerror or error}; choose another folder with --out or --runs"
            ) from None

    def _open(self, *, force: bool) -> None:
        path = self.folder / RUNS
        if self.folder.is_dir() and any(self.folder.iterdir()) and not path.is_file():
            raise RunError(
                f"{self.folder} is not empty and holds no sweep; nothing is overwritten, choose another --out"
            )
        lines = path.read_bytes().split(b"\n") if path.is_file() else []
        held = _named(lines[0]) if lines else self._identity
        if held != self._identity and not force:
            what = f"the sweep {held}" if held else "a file of another origin"
            raise RunError(f"{self.folder} holds {what}; use --force to replace it, or choose another --out")
        if force or not lines:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._remove()
            path.write_bytes(_line({"sweep": self._identity}))
            return
        for line in lines[1:]:
            record = _record(line)
            if record is not None:
                self.done[record.run, record.seed] = record
        if lines[-1]:  # torn, when its writer was killed
            with path.open("ab") as file:
                file.write(b"\n")

    def keep(self, record: Record) -> None:
        """Keep a run that is done."""
        self.done[record.run, record.seed] = record
        with (self.folder / RUNS).open("ab") as file:
            file.write(_line(asdict(record)))

    def give_up(self) -> None:
        """Leave nothing behind, when no run was done; runs that are done stay."""
        if not self.done:
            self._remove()
            if not any(self.folder.iterdir()):
                self.folder.rmdir()

    def _remove(self) -> None:
        for name in FILES:
            (self.folder / name).unlink(missing_ok=True)

    @contextmanager
    def results(self) -> Iterator[Path]:
        """Give a folder whose files become those of the sweep only when the block ends well, sweep.json last."""
        partial = self.folder / f".partial-{os.getpid()}"
        shutil.rmtree(partial, ignore_errors=True)
        try:
            partial.mkdir()
            yield partial
            # The order in which runs ended is no result.
            ordered = [self.done[key] for key in sorted(self.done)]
            lines = [_line({"sweep": self._identity}), *(_line(asdict(record)) for record in ordered)]
            (partial / RUNS).write_bytes(b"".join(lines))
            for path in sorted(partial.iterdir(), key=lambda path: path.name == RESULT):
                path.replace(self.folder / path.name)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def remove_sweeps(store: Path) -> tuple[int, list[Path]]:
    """Remove the sweeps of a store of runs; return how many, and the folders that stay because of other files."""
    removed, kept = 0, []
    for path in sorted(store.glob(f"*/{RUNS}")):
        folder = path.parent
        if folder.is_symlink() or not path.is_file() or _named(path.read_bytes().partition(b"\n")[0]) is None:
            continue
        for name in FILES:
            (folder / name).unlink(missing_ok=True)
        if any(folder.iterdir()):
            kept.append(folder)
        else:
            folder.rmdir()
            removed += 1
    return removed, kept


def _line(value: dict[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, sort_keys=True).encode() + b"\n"


def _named(line: bytes) -> str | None:
    try:
        found = json.loads(line)
    except ValueError:
        return None
    name = found.get("sweep") if isinstance(found, dict) else None
    return name if isinstance(name, str) else None


def _record(line: bytes) -> Record | None:
    """A line as a record; None for one that was torn when its writer was killed."""
    try:
        found = json.loads(line)
        curve = [(tokens, loss) for tokens, loss in found.get("curve", ())]  # older ones have none
        return Record(found["run"], found["seed"], found["aborted"], found["numbers"], curve)
    except (ValueError, TypeError, KeyError):
        return None
