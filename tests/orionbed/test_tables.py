"""The tables of a run folder, from a result put together by hand."""

import csv
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orionbed import tables
from orionbed.ledger import Ledger
from orionbed.plan import Plan, make_plan
from orionbed.results import Epoch, Mark, RunResult
from orionbed.scenario import apply, load
from orionbed.schedule.actions import KINDS
from orionbed.tracing import CAUSES

NUM_PEERS, DURATION_S = 8, 1000.0


@pytest.fixture(scope="module")
def plan() -> Plan:
    return make_plan(apply(load("minimal"), {"network.uplink": 8e8, "network.downlink": 4e8}))


@pytest.fixture
def result(plan: Plan) -> RunResult:
    """Peers that were down all the time, but for peer p that started up for p seconds."""
    zeros = np.zeros(NUM_PEERS)
    other_s = np.zeros((NUM_PEERS, len(CAUSES)))
    other_s[:, CAUSES.index("startup")] = np.arange(NUM_PEERS)
    other_s[:, CAUSES.index("down")] = DURATION_S - np.arange(NUM_PEERS)
    nothing: dict[str, Any] = {
        field.name: 0.0 for field in fields(RunResult) if field.default is field.default_factory is MISSING
    }
    return RunResult(
        **nothing
        | {
            "plan": plan,
            "backend": "sim",
            "seed": 0,
            "duration_s": DURATION_S,
            "startup_s": 100.0,
            "applied_s": np.array([]),
            "ledger": Ledger(num_stages=4),
            "epochs": [Epoch(0, 100.0, 500.0, 520.0, 40, 3), Epoch(1, 520.0, 520.0, 600.0, 0, 0)],
            "marks": [Mark(500.0, 520.0, "merge"), Mark(550.0, 560.5, "down", 3, "left, and came back")],
            "work_s": dict.fromkeys(KINDS, zeros),
            "num_done": {kind: np.zeros(NUM_PEERS, dtype=np.int64) for kind in KINDS} | {"B": np.arange(NUM_PEERS)},
            "thrown_s": dict.fromkeys(KINDS, zeros),
            "unfinished_s": dict.fromkeys(KINDS, zeros),
            "other_s": other_s,
            "bytes_up": np.full(NUM_PEERS, 1e10),
            "bytes_down": np.full(NUM_PEERS, 2e10),
        }
    )


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_csv_is_plain_and_keeps_every_bit(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    rows = [{"b": 0.1 + 0.2, "a": 1}, {"b": None, "a": 'x, "y"\nz'}, {"b": np.float64(1e-300), "a": "ü"}]
    tables.write_csv(path, rows, ("a", "b"))
    assert path.read_bytes().decode() == 'a,b\n1,0.30000000000000004\n"x, ""y""\nz",\nü,1e-300\n'
    assert float(read(path)[0]["b"]) == 0.1 + 0.2


def test_csv_without_rows_is_its_header(tmp_path: Path) -> None:
    tables.write_csv(tmp_path / "table.csv", [], ("a", "b"))
    assert (tmp_path / "table.csv").read_text() == "a,b\n"


def test_a_column_nobody_asked_for_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="fields not in fieldnames"):
        tables.write_csv(tmp_path / "table.csv", [{"a": 1, "c": 2}], ("a",))


def test_steps(result: RunResult, plan: Plan) -> None:
    first, second = tables.steps(result)
    per_microbatch = plan.useful_flops_per_microbatch / (312e12 * NUM_PEERS)
    assert first == {
        "epoch": 0,
        "start_s": 100.0,
        "training_end_s": 500.0,
        "end_s": 520.0,
        "applied": 40,
        "dropped": 3,
        "tokens": 40 * plan.tokens_per_microbatch,
        "mfu_in_phase": pytest.approx(40 / 400 * per_microbatch),
        "merge_s": 20.0,
    }
    assert second["mfu_in_phase"] == 0.0  # a phase of no length


def test_marks(result: RunResult) -> None:
    assert tables.marks(result) == [
        {"t_s": 500.0, "end_s": 520.0, "kind": "merge", "peer": -1, "detail": ""},
        {"t_s": 550.0, "end_s": 560.5, "kind": "down", "peer": 3, "detail": "left, and came back"},
    ]


def test_stages_have_all_gpu_seconds_by_cause(result: RunResult, plan: Plan) -> None:
    rows = tables.stages(result)
    assert [row["stage"] for row in rows] == [0, 1, 2, 3]
    assert [row["layers"] for row in rows] == list(plan.split)
    assert sum(int(str(row["parameters"])) for row in rows) == plan.num_parameters
    assert [row["memory_bytes"] for row in rows] == [stage.memory.states_bytes for stage in plan.stages]
    assert [row["peak_memory_bytes"] for row in rows] == [stage.memory.total_bytes for stage in plan.stages]
    # Two peers a stage: 0 and 1, 2 and 3, ...
    assert [row["startup"] for row in rows] == [1.0, 5.0, 9.0, 13.0]
    for row in rows:
        assert sum(float(str(row[cause])) for cause in CAUSES[1:]) == pytest.approx(2 * DURATION_S)


def test_peers(result: RunResult, plan: Plan) -> None:
    rows = tables.peers(result)
    assert [row["peer"] for row in rows] == [peer.name for peer in plan.peers]
    assert rows[3] == {
        "peer": "s01r1",
        "stage": 1,
        "replica": 1,
        "site": plan.peers[3].site,
        "uplink_bps": 8e8,
        "downlink_bps": 4e8,
        "speed": 1.0,
        "busy_s": 0.0,
        "microbatches": 3,
        "bytes_up": 1e10,
        "bytes_down": 2e10,
        "utilisation_up": pytest.approx(0.1),  # 80 Gbit in 1000 s over 0.8 Gbit/s
        "down_s": 997.0,
        "mfu": 0.0,
        "group": "",
        "gpu": "a100-80gb",
        "natted": 0,
    }


def test_all_tables_are_written_with_their_columns(result: RunResult, tmp_path: Path) -> None:
    tables.write_tables(result, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *("marks.csv", "peers.csv", "stages.csv", "steps.csv", "timeline.csv")
    ]
    assert len(read(tmp_path / "timeline.csv")) == 17  # one row per minute begun
    assert list(read(tmp_path / "stages.csv")[0]) == [*tables.STAGE_COLUMNS, *CAUSES[1:]]
    assert list(read(tmp_path / "peers.csv")[0]) == list(tables.PEER_COLUMNS)
    assert list(read(tmp_path / "steps.csv")[0]) == list(tables.STEP_COLUMNS)
    assert [row["phase"] for row in read(tmp_path / "timeline.csv")][:3] == ["startup", "startup", "training"]


def test_a_run_of_no_length_divides_by_nothing(result: RunResult, tmp_path: Path) -> None:
    result.duration_s = 0.0
    result.other_s = np.zeros_like(result.other_s)
    tables.write_tables(result, tmp_path)
    assert len(read(tmp_path / "peers.csv")) == NUM_PEERS
