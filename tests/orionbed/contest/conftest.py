"""A contest that takes milliseconds, as a file and loaded, and the routers of users."""

from collections.abc import Callable
from pathlib import Path

import pytest

from orionbed.contest.load import load_contest
from orionbed.contest.results import SeedResult
from orionbed.contest.running import UserRouter, run_user

TINY = """\
kind: routing-contest
name: tiny
miners:
  count: 6
  layers: {least: 2, most: 2}
  classes: {steady: {share: 100 %, drop: 0, join: 1}}
  forward: {dist: lognormal, median: 1 s, sigma: 0.5}
  backward: 2
network: {activation: 1 MB, bandwidth: 100 Mbps, latency: 10 ms}
epochs: {count: 2, activations: 60, in_flight: 8, drift: 0.1}
router: {route_timeout: 5 s}
provenance:
  miners: "assumed: small"
"""


@pytest.fixture(name="tiny")
def _tiny(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY, encoding="utf-8")
    return path


@pytest.fixture(name="run")
def _run(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., SeedResult]:
    """Run a router given as the text of its file; `run(text, "key=value", ...)`."""
    monkeypatch.chdir(tmp_path)

    def run(text: str, *sets: str, seed: int = 0) -> SeedResult:
        (tmp_path / "mine.py").write_text(text, encoding="utf-8")
        return run_user(load_contest(tiny, sets), UserRouter("mine.py", "Mine"), seed)

    return run
