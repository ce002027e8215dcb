import csv
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orionbed import tracing
from orionbed.tracing import Trace, TraceError, TraceRecorder

PEERS = ["site-a/0", "site-b/0"]
NAMES_WITHOUT_PEERS = (tracing.LANES, tracing.KINDS, tracing.CAUSES)


def recorded(*rows: tuple[float, ...], peers: list[str] | None = None) -> Trace:
    recorder = TraceRecorder(peers or PEERS)
    for row in rows:
        recorder.add(*row)  # type: ignore[arg-type]
    return recorder.table()


def span(
    peer: int = 0,
    start: float = 0.0,
    end: float = 1.0,
    *,
    lane: int = tracing.LANE_COMPUTE,
    kind: int = tracing.KIND_F,
    num_bytes: float = 0.0,
    cause: int = tracing.CAUSE_NONE,
) -> tuple[float, ...]:
    return (0, 0, 0, peer, lane, kind, 7, 0, start, end, num_bytes, cause)


def test_codes_are_positions_in_the_tables_of_names() -> None:
    for prefix, names in (("LANE", tracing.LANES), ("KIND", tracing.KINDS), ("CAUSE", tracing.CAUSES)):
        codes = {
            name: getattr(tracing, f"{prefix}_{name if prefix == 'KIND' else name.upper()}".upper()) for name in names
        }
        assert list(codes.values()) == list(range(len(names)))
        assert len(set(names)) == len(names) < 128
    assert tracing.CAUSES[1:] == tuple(tracing.CAUSE_LABELS)


def test_columns_keep_values_and_order() -> None:
    trace = recorded((3, 2, 15, 1, 4, 12, 140_000, 5, 1.25, 2.5, 2_304_000.0, 18), span(start=5, end=6))
    assert list(trace) == list(tracing.COLUMNS)
    assert [trace[name][0].item() for name in trace] == [3, 2, 15, 1, 4, 12, 140_000, 5, 1.25, 2.5, 2_304_000.0, 18]
    assert trace.num_spans == 2
    assert trace["start_s"].dtype == np.float64
    assert trace["lane"].dtype == np.int8


def test_more_spans_than_a_chunk_and_recording_goes_on_after_a_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing, "_SPANS_PER_CHUNK", 8)
    recorder = TraceRecorder(PEERS)
    for i in range(20):
        recorder.add(*span(start=i, end=i + 1))  # type: ignore[arg-type]
        assert len(recorder) == i + 1
    first = recorder.table()
    recorder.add(*span(start=20, end=21))  # type: ignore[arg-type]
    assert first.num_spans == 20
    np.testing.assert_array_equal(recorder.table()["start_s"], np.arange(21.0))


def test_a_number_too_large_for_its_column_is_loud() -> None:
    with pytest.raises(struct.error):
        recorded((0, 0, 0, 0, 0, 0, 0, 128, 0.0, 1.0, 0.0, 0))


def test_an_empty_trace_works_everywhere(tmp_path: Path) -> None:
    trace = recorded()
    trace.save(tmp_path / "trace.npz")
    loaded = Trace.load(tmp_path / "trace.npz")
    loaded.to_csv(tmp_path / "trace.csv")
    assert loaded.num_spans == 0
    assert loaded.problems() == []
    assert (tmp_path / "trace.csv").read_text() == ",".join(tracing.COLUMNS) + "\n"


@given(
    st.lists(
        st.tuples(
            *[st.integers(0, 1000), st.integers(-1, 2), st.integers(-1, 15), st.integers(0, 1), st.integers(0, 4)],
            *[st.integers(0, 12), st.integers(-1, 2**31 - 1), st.integers(0, 127)],
            *[st.floats(0, 1e6), st.floats(0, 1e6), st.floats(0, 1e12), st.integers(0, 18)],
        ),
        max_size=30,
    )
)
def test_a_file_gives_back_exactly_what_was_recorded(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[float, ...]]
) -> None:
    path = tmp_path_factory.mktemp("trace") / "without-suffix"
    trace = recorded(*rows)
    trace.save(path)
    loaded = Trace.load(path)
    assert (loaded.peers, loaded.lanes, loaded.kinds, loaded.causes) == (tuple(PEERS), *NAMES_WITHOUT_PEERS)
    for name in trace:
        np.testing.assert_array_equal(trace[name], loaded[name], strict=True)


def test_the_same_trace_is_the_same_file(tmp_path: Path) -> None:
    for name in ("a", "b"):
        recorded(span(), span(1)).save(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_window_keeps_every_span_that_touches_it_uncut() -> None:
    trace = recorded(*[span(start=i, end=i + 1) for i in range(10)])
    assert trace.window(2.5, 4)["start_s"].tolist() == [2, 3]
    assert trace.window(2.5, 4).peers == tuple(PEERS)


def test_csv_has_names_instead_of_codes(tmp_path: Path) -> None:
    idle = span(1, 0.5, 2, kind=tracing.KIND_IDLE, cause=tracing.CAUSE_UPSTREAM)
    recorded(idle).to_csv(tmp_path / "trace.csv")
    with (tmp_path / "trace.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert (row["peer"], row["lane"], row["kind"], row["cause"]) == ("site-b/0", "compute", "idle", "upstream")
    assert (row["microbatch"], row["start_s"]) == ("7", "0.5")


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        ([span(start=2, end=1)], "ends before it starts (first: row 0)"),
        ([span(), span(start=1, end=float("nan"))], "time is not finite (first: row 1)"),
        ([span(num_bytes=-1)], "bytes are negative"),
        ([span(num_bytes=float("nan"))], "bytes are negative or missing"),
        ([span(peer=2)], "peer code has no name"),
        ([span(peer=-1)], "peer code has no name"),
        ([span(lane=5)], "lane code has no name"),
        ([span(kind=13)], "kind code has no name"),
        ([span(cause=len(tracing.CAUSES))], "cause code has no name"),
        ([span(cause=-1)], "cause code has no name"),
        ([span(kind=tracing.KIND_IDLE)], "idle without a cause"),
        ([span(), span(1), span(start=0.5, end=2)], "1 spans overlap on a compute lane (first: rows 0 and 2, site-a/0"),
        ([span(end=9), span(start=1, end=2), span(start=3, end=4)], "overlap on a compute lane"),
    ],
)
def test_problems_are_named_with_their_first_row(rows: list[tuple[float, ...]], problem: str) -> None:
    (found,) = recorded(*rows).problems()
    assert problem in found


def test_a_sound_trace_has_no_problems() -> None:
    up = {"lane": tracing.LANE_UP, "kind": tracing.KIND_SEND, "num_bytes": 9.0}
    trace = recorded(
        span(),
        span(start=1, end=2),
        span(1),
        span(start=2, end=3, kind=tracing.KIND_IDLE, cause=tracing.CAUSE_TRANSFER),
        span(start=0.5, end=2, **up),  # type: ignore[arg-type]
        span(start=0.7, end=1, **up),  # type: ignore[arg-type]
    )
    assert trace.problems() == []


def test_what_is_not_a_trace_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for content in (b"", b"hello", b"PK\x03\x04broken"):
        path.write_bytes(content)
        with pytest.raises(TraceError, match="not a trace"):
            Trace.load(path)
    with path.open("wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(TraceError, match="not a trace"):
        Trace.load(path)
    with path.open("wb") as file:
        np.savez(file, start_s=np.zeros(3))
    with pytest.raises(TraceError, match="no table of peers"):
        Trace.load(path)
    with path.open("wb") as file:
        np.savez(file, start_s=np.zeros(3), **{name: np.array(["x"]) for name in tracing.NAME_TABLES})  # type: ignore[arg-type]
    with pytest.raises(TraceError, match="no column step"):
        Trace.load(path)
    with pytest.raises(FileNotFoundError):
        Trace.load(tmp_path / "absent")


def test_columns_of_different_length_are_refused() -> None:
    columns = dict(recorded(span()))
    columns["end_s"] = np.zeros(2)
    with pytest.raises(TraceError, match="differ in shape"):
        Trace(columns, peers=PEERS)
