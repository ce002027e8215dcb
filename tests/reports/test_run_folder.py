import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orionbed.tracing import TraceError
from reports.run_folder import ReportError, load, load_all, lookup

Editor = Callable[[Path, Callable[[dict[str, Any]], object]], Path]


def test_a_whole_folder_is_read(run_folder: Path) -> None:
    run = load(run_folder)
    assert run.name == "orion-test-sim-abc123-s3"
    assert run.number("mfu.peak_sustained") == 0.383
    assert run.trace is not None
    assert sorted(run.tables) == sorted(("steps", "timeline", "marks", "stages", "peers", "curve", "bands"))
    peers = run.table("peers")
    assert peers is not None
    assert peers.text("peer")[0] == "s00r0"
    assert peers.numbers("uplink_bps").min() > 1e8
    assert math.isnan(peers.numbers("site")[0])
    assert math.isnan(peers.numbers("absent")[0])
    assert "peers.csv" in run.files()


def test_only_the_summary_is_needed(bare_folder: Path) -> None:
    run = load(bare_folder)
    assert run.trace is None
    assert run.table("peers") is None
    assert run.files() == ["summary.json"]
    assert run.name == bare_folder.name


def test_lookup_reaches_lists_causes_and_the_share_of_micro_batches(run_folder: Path) -> None:
    summary = load(run_folder).summary
    assert lookup(summary, "datacenter.published.0.mfu") == 0.421
    assert lookup(summary, "waterfall.down") == 0.021
    assert lookup(summary, "waterfall.nonsense") is None
    assert lookup(summary, "mfu.nonsense.deeper") is None
    assert 0.9 < lookup(summary, "microbatches.applied_share") < 1
    assert lookup({}, "microbatches.applied_share") is None


def test_what_is_no_finished_run_is_refused_with_the_reason(tmp_path: Path, bare_folder: Path, editor: Editor) -> None:
    with pytest.raises(ReportError, match=r"not a finished run: it has no summary\.json"):
        load(tmp_path)
    with pytest.raises(ReportError, match="at least one run"):
        load_all([])
    editor(bare_folder, lambda summary: summary.update(schema_version=2))
    with pytest.raises(ReportError, match=r"schema_version is 2, this program reads 1: run the scenario again"):
        load(bare_folder)
    (bare_folder / "summary.json").write_text("{")
    with pytest.raises(ReportError, match="not JSON"):
        load(bare_folder)
    (bare_folder / "summary.json").write_text(json.dumps([1]))
    with pytest.raises(ReportError, match="not a JSON object"):
        load(bare_folder)


def test_a_broken_table_or_trace_is_refused(run_folder: Path) -> None:
    (run_folder / "marks.csv").write_text("t_s,kind\n1,merge\n2\n")
    with pytest.raises(ReportError, match=r"marks\.csv:3: 1 cells under 2 headings"):
        load(run_folder)
    (run_folder / "marks.csv").unlink()
    (run_folder / "trace.npz").write_bytes(b"")
    with pytest.raises(TraceError, match="not a trace"):
        load(run_folder)
