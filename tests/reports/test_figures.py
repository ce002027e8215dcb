import csv
import io
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from orionbed.schedule.catalogue import ENTRIES, Wanted
from orionbed.schedule.timing import Hops, equal_times, time_order
from orionbed.tracing import CAUSE_LABELS, Trace
from reports import gantt
from reports.figures import bands, bandwidth, links, stages, timeline, waterfall
from reports.figures import gantt as gantt_figure
from reports.figures import order as order_figure
from reports.figures.drawing import Plot
from reports.palette import (
    CAUSE_COLOURS,
    FAMILIES,
    ORDER_COLOURS,
    ORDER_INKS,
    WORK_COLOURS,
    WORK_LABELS,
    cause_colour,
    cause_label,
)
from reports.run_folder import Run, load

Editor = Callable[[Path, Callable[[dict[str, Any]], object]], Path]
FIGURES = (waterfall, timeline, stages, bandwidth, bands, links)


@pytest.fixture
def run(run_folder: Path) -> Run:
    return load(run_folder)


def drawn(module: ModuleType, run: Run) -> Plot:
    plot = module.draw(run)
    assert isinstance(plot, Plot)
    return plot


def data(plot: Plot) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(plot.csv())))


@pytest.mark.parametrize("module", FIGURES)
def test_every_figure_has_a_sentence_data_and_sound_files(module: ModuleType, run: Run) -> None:
    plot = drawn(module, run)
    assert plot.reading.endswith(".")
    assert 40 < len(plot.reading) < 400
    assert data(plot)
    root = ET.fromstring(plot.svg())
    assert root.attrib["role"] == "img"
    assert root.attrib["aria-label"] == f"{plot.title}. {plot.reading}"
    assert plot.png().startswith(b"\x89PNG")
    assert "matplotlib.org" not in plot.svg()
    assert not re.search(r"\d{4}-\d\d-\d\dT", plot.svg())
    inline = plot.inline("p-")
    ids = re.findall(r'\bid="([^"]*)"', inline)
    assert len(ids) == len(set(ids))
    assert all(name.startswith(f"p-{plot.name}-") for name in ids)
    assert set(re.findall(r'(?:url\(#|href="#)([^")]*)', inline)) <= set(ids)


@pytest.mark.parametrize("module", FIGURES)
def test_every_figure_is_the_same_each_time(module: ModuleType, run: Run) -> None:
    first, second = drawn(module, run), drawn(module, run)
    assert (first.svg(), first.png(), first.csv()) == (second.svg(), second.png(), second.csv())


@pytest.mark.parametrize("module", [timeline, stages, bandwidth, bands, links])
def test_a_figure_without_data_is_left_out(module: ModuleType, bare_folder: Path) -> None:
    assert module.draw(load(bare_folder)) is None


def test_the_waterfall_leaves_nothing_out(run: Run) -> None:
    bars = waterfall.bars(run)
    assert sum(bar.fraction for bar in bars) == pytest.approx(1.0, abs=1e-12)
    assert [bar.cause for bar in bars][-1] == "useful"
    assert bars[0].left + bars[0].fraction == pytest.approx(1.0, abs=1e-12)
    for above, below in pairwise(bars[:-1]):
        assert below.left + below.fraction == pytest.approx(above.left, abs=1e-12)
    assert bars[-2].left == pytest.approx(bars[-1].fraction, abs=1e-12)
    rows = data(drawn(waterfall, run))
    assert sum(float(row["fraction"]) for row in rows) == pytest.approx(1.0, abs=1e-12)
    assert {row["cause"] for row in rows} == set(CAUSE_LABELS)
    largest, outside = waterfall.largest_losses(run)
    assert largest is not None
    assert outside is not None
    assert (largest.cause, outside.cause) == ("kernel", "merge_transfer")


def test_the_waterfalls_sentence_follows_the_numbers(run_folder: Path, editor: Editor) -> None:
    def swap(summary: dict[str, Any]) -> None:
        entries = {entry["cause"]: entry for entry in summary["waterfall"]}
        kernel, down = entries["kernel"], entries["down"]
        kernel["fraction"], down["fraction"] = down["fraction"], kernel["fraction"]

    text = waterfall.reading(load(editor(run_folder, swap)))
    assert "the largest is peers being down (23.5\u00a0%)." in text


def test_a_run_of_losses_alone_still_draws(run_folder: Path, editor: Editor) -> None:
    editor(run_folder, lambda s: s.update(waterfall=[{"cause": "startup", "fraction": 1.0, "gpu_s": 5.0}]))
    assert "0\u00a0% useful work" in drawn(waterfall, load(run_folder)).reading


def test_rolling_mean_is_the_mean_of_the_neighbours_there_are() -> None:
    values = np.array([0.0, 1.0, 2.0, np.nan, 4.0])
    np.testing.assert_allclose(timeline.rolling_mean(values, 3), [0.5, 1.0, 1.5, 3.0, 4.0])
    np.testing.assert_allclose(timeline.rolling_mean(values, 1), values)
    np.testing.assert_allclose(timeline.rolling_mean(values, 99)[2], 1.75)


def test_the_timelines_data_are_the_runs_minutes(run: Run) -> None:
    plot = drawn(timeline, run)
    rows = data(plot)
    table = run.table("timeline")
    assert table is not None
    assert len(rows) == len(table) == 180
    tokens = sum(float(row["tokens_per_s"]) * 60 for row in rows)
    assert tokens == pytest.approx(float(table.numbers("tokens").sum()))
    assert "peers went away 9 times" in plot.reading


def test_a_short_run_and_one_without_marks_draw(maker: Callable[..., Path], tmp_path: Path) -> None:
    folder = maker(tmp_path / "short", hours=1 / 12)
    (folder / "marks.csv").unlink()
    plot = drawn(timeline, load(folder))
    assert "mean over 60\u00a0s" in plot.reading
    assert "merges" not in plot.reading.replace("merges included", "")
    long = drawn(timeline, load(maker(tmp_path / "long", hours=200.0)))
    assert len(long.svg()) < 500_000


def test_a_run_of_minutes_is_drawn_in_minutes_and_one_of_few_not_at_all(
    maker: Callable[..., Path], tmp_path: Path
) -> None:
    some = drawn(timeline, load(maker(tmp_path / "some", hours=0.5)))
    assert "minutes since the start" in some.svg()
    assert "near minute" in some.reading
    assert "hours since the start" in drawn(timeline, load(maker(tmp_path / "many", hours=1.1))).svg()
    assert timeline.draw(load(maker(tmp_path / "few", hours=4 / 60))) is None


def test_a_bar_too_narrow_for_its_label_has_none(run_folder: Path) -> None:
    path = run_folder / "stages.csv"
    columns, *rows = (line.split(",") for line in path.read_text().splitlines())
    place = columns.index("useful")
    for row in rows[:1]:
        row[place] = str(0.02 * sum(map(float, row[place:])))
    path.write_text("\n".join(",".join(row) for row in [columns, *rows]) + "\n")
    labels = re.findall(r">(\d+)\u00a0%<", drawn(stages, load(run_folder)).svg())
    assert len(labels) == len(rows) - 1


def test_each_stages_shares_sum_to_one(run: Run) -> None:
    found = stages.shares(run)
    assert found is not None
    names, causes, share = found
    assert names == ["0", "1", "2", "3"]
    assert causes[0] == "useful"
    np.testing.assert_allclose(share.sum(axis=0), 1.0)
    assert "stage 0 the least" in drawn(stages, run).reading


def test_stages_that_do_the_same_are_said_to(run_folder: Path) -> None:
    (run_folder / "stages.csv").write_text("stage,layers,useful,down\n0,5,4,6\n1,5,8,12\n")
    assert "about the same useful work (40.0\u00a0%)" in drawn(stages, load(run_folder)).reading


def test_the_bandwidth_sentence_names_what_each_boundary_needs(run_folder: Path, editor: Editor) -> None:
    assert "for 75\u00a0% ResBM boundaries need 375\u00a0Mbit/s" in drawn(bandwidth, load(run_folder)).reading

    def unreachable(summary: dict[str, Any]) -> None:
        for entry in summary["curve_needed"]:
            if entry["boundary"] == "none":
                entry["uplink_bps"] = None

    text = drawn(bandwidth, load(editor(run_folder, unreachable))).reading
    assert "uncompressed ones do not get there in this range" in text
    editor(run_folder, lambda summary: summary.pop("curve_needed"))
    assert "the most reached here is 7" in drawn(bandwidth, load(run_folder)).reading
    lines = (run_folder / "curve.csv").read_text().splitlines()
    (run_folder / "curve.csv").write_text("\n".join(line for line in lines if ",none," not in line) + "\n")
    assert "uncompressed" not in drawn(bandwidth, load(run_folder)).reading


def test_influence_is_the_rank_correlation_of_drawn_numbers(run: Run) -> None:
    found = dict(bands.influences(run))
    assert list(found) == ["peers.kernel_scale", "merge.every"]
    assert found["peers.kernel_scale"] > 0.9
    assert "peers.kernel_scale moves it most" in drawn(bands, run).reading
    band = bands.for_quantity(run, "datacenter.relative_speed")
    assert band is not None
    assert band[0] < band[1] < band[2]
    assert bands.for_quantity(run, "cost.total_usd") is None


def test_few_draws_say_nothing_about_influence(run_folder: Path) -> None:
    lines = (run_folder / "bands.csv").read_text().splitlines()
    (run_folder / "bands.csv").write_text("\n".join(lines[:6]) + "\n")
    run = load(run_folder)
    assert bands.influences(run) == []
    assert "moves it most" not in drawn(bands, run).reading


def test_the_links_sentence_compares_slow_and_fast(run: Run) -> None:
    assert re.search(r"slowest quarter reaches \d\d\.\d\u00a0%, the fastest \d\d\.\d", drawn(links, run).reading)


def test_names_that_look_like_mathematics_or_markup_do_no_harm(run_folder: Path) -> None:
    path = run_folder / "peers.csv"
    path.write_text(path.read_text().replace("virginia", r"$\frac{1}$<b>&").replace("ohio", "東京"))
    root = ET.fromstring(drawn(links, load(run_folder)).svg())
    assert r"$\frac{1}$<b>&" in "".join(root.itertext())


def test_the_gantts_still_picture_shows_the_window(run: Run) -> None:
    assert run.trace is not None
    window = gantt.window(run.trace)
    assert window is not None
    plot = gantt_figure.draw(window)
    assert plot.raster
    rows = data(plot)
    assert {row["what"] for row in rows} >= {"forward", "backward", "sending"}
    assert re.search(r"at work \d\d\u00a0% of the time", plot.reading)
    assert len(rows) == len(window.row)


def test_one_colour_per_cause_everywhere() -> None:
    assert set(CAUSE_COLOURS) == set(CAUSE_LABELS)
    assert len(set(CAUSE_COLOURS.values())) == len(CAUSE_COLOURS)
    assert sorted(cause for family in FAMILIES.values() for cause in family) == sorted(CAUSE_LABELS)
    assert set(WORK_COLOURS) | {"idle"} == set(WORK_LABELS)
    assert cause_colour("something new").startswith("#")
    assert cause_label("something_new") == "something new"


def test_an_unknown_cause_is_drawn_under_its_own_name(run_folder: Path, editor: Editor) -> None:
    def add(summary: dict[str, Any]) -> None:
        summary["waterfall"][1]["fraction"] -= 0.05
        summary["waterfall"].append({"cause": "moon_phase", "fraction": 0.05, "gpu_s": 1.0})

    assert "moon phase" in drawn(waterfall, load(editor(run_folder, add))).svg()


def test_windows_are_cut_to_their_times(run_folder: Path) -> None:
    trace = Trace.load(run_folder / "trace.npz")
    window = gantt.window(trace, max_spans=100)
    assert window is not None
    assert (window.start_s >= window.from_s).all()
    assert (window.end_s <= window.until_s).all()
    half = window.until((window.from_s + window.until_s) / 2)
    assert (half.end_s <= half.until_s).all()
    assert 0 < len(half.row) < len(window.row)


def order_plot(name: str, stages: int, microbatches: int, unit_s: float = 1.0) -> Plot:
    chunks = ENTRIES[name].chunks or 2
    times = equal_times(stages * chunks, unit_s / chunks, unit_s / chunks, unit_s / chunks)
    order = ENTRIES[name].make(Wanted(stages, microbatches, times))
    return order_figure.draw(time_order(order, times, Hops(0.1 * unit_s)), name)


@pytest.mark.parametrize(("name", "stages", "microbatches"), [("1f1b", 4, 8), ("dualpipe-v", 4, 8), ("zb-2p", 20, 40)])
def test_an_orders_boxes_are_its_operations(name: str, stages: int, microbatches: int) -> None:
    plot = order_plot(name, stages, microbatches)
    rows = data(plot)
    assert {int(row["stage"]) for row in rows} == set(range(stages))
    for kind in ("F",) if name == "dualpipe-v" else {row["kind"] for row in rows}:
        assert sum(row["kind"] == kind for row in rows) == stages * microbatches * (2 if name == "dualpipe-v" else 1)
    for stage in range(stages):
        mine = [row for row in rows if int(row["stage"]) == stage]
        for before, after in pairwise(mine):
            assert float(after["start_s"]) >= float(before["end_s"]) - 1e-9
    assert plot.png() == order_plot(name, stages, microbatches).png()
    assert f"a step of {microbatches} micro-batches" in plot.reading


def test_later_pieces_of_the_model_are_marked() -> None:
    assert {row["piece"] for row in data(order_plot("interleaved-1f1b", 2, 4))} == {"0", "1"}
    assert {row["piece"] for row in data(order_plot("gpipe", 2, 4))} == {"0"}
    ET.fromstring(order_plot("zb-v", 2, 4, unit_s=1e-3).svg())


def test_operations_of_an_order_are_told_apart() -> None:
    assert len(set(ORDER_COLOURS.values())) == len(ORDER_COLOURS) == 4
    assert ORDER_COLOURS.keys() == ORDER_INKS.keys() <= WORK_LABELS.keys()
