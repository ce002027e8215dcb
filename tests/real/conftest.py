"""Small scenarios for hardware, and a look that no process of a run is left behind."""

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from orionbed.scenario import Scenario, apply, load

TINY: dict[str, Any] = {
    "model": {"layers": 4, "hidden": 32, "ffn": 48, "heads": 2, "kv_heads": 1, "vocab": 64, "dtype": "fp32"},
    "batch": {"sequence": 16, "sequences": 2},
    "pipeline.boundary": {"kind": "resbm", "width": 8},
    "real": {"device": "cpu", "dtype": "float64", "warm_up": 1, "steps": 2, "reference": True, "silence": 10.0},
}


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Let torch compute on one thread: tests side by side would fight for the cores."""
    from orionbed.training.threads import with_threads

    with with_threads(1):
        yield


@pytest.fixture
def tiny() -> Callable[..., Scenario]:
    """Make a tiny scenario for two processes; `real` settings are laid over those of all."""

    def make(real: dict[str, Any] | None = None, **changes: Any) -> Scenario:
        pytest.importorskip("torch")
        settings = {key.replace("__", "."): value for key, value in changes.items()}
        return apply(load("hardware/small"), TINY | {"real": TINY["real"] | (real or {})} | settings)

    return make


def workers(folder: Path) -> set[int]:
    """Return the processes of runs that have this folder for their temporary files."""
    found = set()
    for process in Path("/proc").iterdir():
        if process.name.isdecimal() and process.name != str(os.getpid()):
            try:
                environment = (process / "environ").read_bytes().split(b"\0")
            except OSError:
                continue
            if f"TMPDIR={folder}".encode() in environment:
                found.add(int(process.name))
    return found


@pytest.fixture
def leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], set[int]]]:
    """See that neither processes nor temporary files are left behind; give what tells which processes there are."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    yield lambda: workers(folder)
    assert not workers(folder)
    assert not list(folder.glob("orionbed-*"))


@pytest.fixture
def described(monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, Any]], list[str]]:
    """Give what tells which keys of a summary's `real` block the reference has no words for."""
    monkeypatch.syspath_prepend(Path(__file__).resolve().parents[2] / "docs")
    import reference_words

    patterns = [re.compile(re.escape(key).replace(r"\*", ".+")) for key, _, _ in reference_words.REAL]

    def keys(value: Any, key: str) -> set[str]:
        if isinstance(value, dict):
            return set().union(*(keys(inside, f"{key}.{name}") for name, inside in value.items()))
        if isinstance(value, list | tuple):
            return set().union(*(keys(inside, f"{key}[]") for inside in value))
        return {key}

    def undescribed(block: dict[str, Any]) -> list[str]:
        return sorted(key for key in keys(block, "real") if not any(each.fullmatch(key) for each in patterns))

    return undescribed
