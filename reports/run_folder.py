"""A finished run read back from its folder: `summary.json`, CSV tables, the trace. Only the summary is required."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from orionbed.published import lookup
from orionbed.tracing import Trace

SCHEMA_VERSION: Final = 1
BLOCKS: Final = ("emulator", "real")
TABLES: Final = ("steps", "timeline", "marks", "stages", "peers", "curve", "bands")
EXTRA_FILES: Final = ("scenario.yaml", "resolved.yaml", "log.txt")


class ReportError(ValueError):
    """A folder that is not a finished run, or runs that cannot stand side by side."""


@dataclass(frozen=True)
class Table:
    """A CSV file by columns of text; numbers are read on demand."""

    columns: dict[str, list[str]]

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), []))

    def __contains__(self, name: str) -> bool:
        return name in self.columns

    def text(self, name: str) -> list[str]:
        """Return a column as it stands in the file; a column that is not there is empty strings."""
        return self.columns.get(name, [""] * len(self))

    def numbers(self, name: str) -> NDArray[np.float64]:
        """Return a column as floats; what is no number, and a column that is not there, is NaN."""
        return np.array([_float(text) for text in self.text(name)], dtype=np.float64)

    def rows(self) -> Iterator[tuple[str, ...]]:
        """Yield the lines of the file below its header."""
        return zip(*self.columns.values(), strict=True)


@dataclass(frozen=True)
class Run:
    """A finished run. Tables and the trace are None when the run did not write them."""

    folder: Path
    summary: dict[str, Any]
    manifest: dict[str, Any] = field(default_factory=dict)
    tables: dict[str, Table] = field(default_factory=dict)
    trace: Trace | None = None

    @property
    def name(self) -> str:
        """The run's id; its folder's name when the manifest has none (a folder still being written has another)."""
        return str(self.manifest.get("run") or self.folder.name)

    @property
    def block(self) -> str:
        """The key under which a backend of real processes says how it ran; empty for a simulation."""
        return next((name for name in BLOCKS if isinstance(self.summary.get(name), dict)), "")

    @property
    def is_void(self) -> bool:
        """Whether the run is no result: it was too late for its clock, or its account was found wrong."""
        return bool(self.get(f"{self.block}.void")) or str(self.get("aborted") or "").startswith("void")

    def get(self, key: str) -> Any:
        """Return the summary's value at a dotted key, or None."""
        return lookup(self.summary, key)

    def number(self, key: str) -> float | None:
        """Return the summary's number at a dotted key; None when it is absent or no number."""
        value = self.get(key)
        return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None

    def items(self, key: str) -> list[dict[str, Any]]:
        """Return the summary's list of mappings at a dotted key; empty when it is absent."""
        value = self.get(key)
        return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []

    def table(self, name: str) -> Table | None:
        """Return a table that has at least one line, or None."""
        table = self.tables.get(name)
        return table if table is not None and len(table) else None

    def files(self) -> list[str]:
        """Return the files of the folder that a reader may want, sorted."""
        names = [f"{name}.csv" for name in TABLES]
        names += ["summary.json", "manifest.json", "warnings.json", "trace.npz", *EXTRA_FILES]
        return sorted(name for name in names if (self.folder / name).is_file())


def load(folder: Path | str) -> Run:
    """Read a run folder. Raises ReportError when it is none or of another schema, TraceError for a broken trace."""
    folder = Path(folder)
    path = folder / "summary.json"
    if not path.is_file():
        raise ReportError(f"{folder}: not a finished run: it has no summary.json")
    summary = _json(path)
    version = summary.get("schema_version")
    if version != SCHEMA_VERSION:
        raise ReportError(
            f"{path}: schema_version is {version!r}, this program reads {SCHEMA_VERSION}: run the scenario again"
        )
    manifest = _json(folder / "manifest.json") if (folder / "manifest.json").is_file() else {}
    tables = {name: _table(folder / f"{name}.csv") for name in TABLES if (folder / f"{name}.csv").is_file()}
    trace = Trace.load(folder / "trace.npz") if (folder / "trace.npz").is_file() else None
    return Run(folder, summary, manifest, tables, trace)


def load_all(folders: Sequence[Path | str]) -> list[Run]:
    """Read several run folders. Raises ReportError when there are none."""
    if not folders:
        raise ReportError("a report needs at least one run folder")
    return [load(folder) for folder in folders]


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ReportError(f"{path}: not JSON: {error}") from error
    if not isinstance(content, dict):
        raise ReportError(f"{path}: not a JSON object")
    return content


def _table(path: Path) -> Table:
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.reader(file)
        header = next(reader, [])
        columns: list[list[str]] = [[] for _ in header]
        for line, row in enumerate(reader, start=2):
            if len(row) != len(header):
                raise ReportError(f"{path}:{line}: {len(row)} cells under {len(header)} headings")
            for column, cell in zip(columns, row, strict=True):
                column.append(cell)
    return Table(dict(zip(header, columns, strict=True)))


def _float(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
