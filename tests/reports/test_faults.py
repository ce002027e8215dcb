"""What a simulation knows of its faults beyond what an emulation does."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from reports import faults
from reports.run_folder import load

Editor = Callable[[Path, Callable[[dict[str, Any]], object]], Path]
FAULTS: list[dict[str, Any]] = [
    {
        "id": "k1", "kind": "crash", "start_s": 5.0, "end_s": 9.0, "who": ["s00r0"], "what": "state lost", "hit": True,
        "destroyed_bytes": 2e6, "recovered_s": 11.5, "dropped": 3, "remark": "",
    },
    {
        "id": "c1", "kind": "corrupt", "start_s": 5.0, "end_s": 9.0, "who": ["s00r0 -> all others"], "hit": True,
        "what": "per chunk 0.01", "destroyed_bytes": 65536.0, "recovered_s": 9.5, "dropped": 0, "corrupted_chunks": 2,
    },
    {
        "id": "t1", "kind": "clock", "start_s": 5.0, "end_s": 9.0, "who": ["s00r0"], "what": "offset 1 s", "hit": False,
        "destroyed_bytes": 0.0, "recovered_s": None, "dropped": 0, "remark": "nobody looked at it",
    },
]  # fmt: skip


def test_micro_batches_chunks_and_remarks_are_told(maker: Callable[..., Path], editor: Editor, tmp_path: Path) -> None:
    run = load(editor(maker(tmp_path / "run"), lambda summary: summary.update(faults=FAULTS)))
    rows = faults.rows(run)
    assert [row.destroyed.replace("\u00a0", " ") for row in rows] == [
        "2.00 MB, 3 micro-batches", "65.5 kB, 2 chunks sent again", "0 B",
    ]  # fmt: skip
    assert rows[2].what == "offset 1 s; nobody looked at it"
    assert faults.sentence(run).endswith("3 micro-batches were dropped at once.")
