import csv
import io
import re
from collections.abc import Callable
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from reports import audits, beside, build, hardware, orders, predicted, sections, verdict
from reports.figures import loss
from reports.figures import operations as figure
from reports.figures.drawing import Plot
from reports.panel import Panel
from reports.run_folder import Run, load

Editor = Callable[[Path, Callable[[dict[str, Any]], object]], Path]
Measured = Callable[..., Run]
PROFILE = "measured-xeon-1-thread"


def operation(chunk: int, kind: str, median_s: float, predicted_s: float | None) -> dict[str, Any]:
    return {
        "chunk": chunk, "kind": kind, "count": 24 if kind == "STEP" else 192, "median_s": median_s,
        "p5_s": 0.9 * median_s, "p95_s": 1.2 * median_s, "predicted_s": predicted_s,
    }  # fmt: skip


def block() -> dict[str, Any]:
    """Return what the block of a run with a fixed batch on a calibrated CPU looks like."""
    points = [[0.15 * (i + 1), 7.6 - 0.1 * i] for i in range(24)]
    return {
        "device_kind": "cpu",
        "transport": "gloo",
        "encrypted": False,
        "dtype": "float32",
        "num_processes": 2,
        "num_nodes": 1,
        "threads": 1,
        "profile": {
            "name": PROFILE,
            "is_of_device": True,
            "peak_flops": 110e9,
            "peak_source": f"measured, in the profile {PROFILE}",
        },
        "device": {"name": "Intel(R) Xeon(R) CPU @ 2.20GHz", "torch": "2.13.0", "memory_bytes": 25e9, "odd": [1]},
        "steps": {"warm_up": 2, "measured": 24, "median_s": 0.148, "p5_s": 0.143, "p95_s": 0.158},
        "operations": [
            operation(0, "F", 0.006, 0.005),
            operation(0, "B", 0.0104, 0.010),
            operation(0, "STEP", 0.003, 0.003),
            operation(1, "F", 0.005, 0.005),
            operation(1, "B", 0.010, 0.010),
            operation(1, "STEP", 0.003, 0.00325),
        ],
        "memory": [
            {"peer": f"s0{i}r0", "peak_bytes": 431e6 + i, "planned_bytes": 118e6, "receive_buffer_bytes": 1e6}
            for i in range(2)
        ],
        "restarts": [],
        "num_steps_done_again": 0,
        "clock_uncertain_s": 0.0,
        "loss": {"first": 7.55, "last": 5.35, "curve": points},
        "reference_difference": 3.1e-7,
        "audit": {
            "ok": True,
            "rules": [{"rule": 1, "text": "Law 1 holds", "checked": 192, "violations": []}],
            "counts": {"applied": 192},
        },
    }


def of_another_device(changed: dict[str, Any]) -> None:
    changed["profile"] |= {"name": "a100-80gb", "is_of_device": False, "peak_source": "measured before this run"}
    for row in changed["operations"]:
        row["predicted_s"] = None


@pytest.fixture
def measured(bare_folder: Path, editor: Editor) -> Measured:
    """Return a maker of runs on hardware: a bare run folder with a block, changed as the test wants."""

    def make(change: Callable[[dict[str, Any]], object] = lambda _: None, **summary: Any) -> Run:
        changed = block()
        change(changed)
        given = {"schedule": {"name": "1f1b", "step_s_without_contention": 0.135, "hop_s": 1e-4}} | summary

        def put(content: dict[str, Any]) -> None:
            content.update(backend="real", real=changed, **given)
            content["layout"] |= {"num_peers": 2, "gpu": PROFILE, "peak_flops": 110e9}

        editor(bare_folder, put)
        return load(bare_folder)

    return make


def the_panel(run: Run) -> Panel:
    panel = hardware.panel(run)
    assert panel is not None
    return panel


def plain(text: str) -> str:
    return text.replace("\u00a0", " ")


def printed(panel: Panel) -> dict[str, str]:
    return {line.label: plain(f"{line.value}: {line.note}") for line in panel.lines}


def text_of(page: str) -> str:
    bare = re.sub(r"<(script|style|svg)\b.*?</\1>", "", page, flags=re.DOTALL)
    return re.sub(r"\s+", " ", plain(unescape(re.sub(r"<[^>]+>", " ", bare))))


def the_section(run: Run) -> dict[str, Any]:
    section = predicted.section(run)
    assert section is not None
    return section


def drawn(run: Run) -> Plot:
    plot = figure.draw(run)
    assert plot is not None
    return plot


def test_a_simulated_run_says_nothing_of_all_this(run_folder: Path, tmp_path: Path) -> None:
    run = load(run_folder)
    assert run.block == ""
    assert (hardware.panel(run), predicted.section(run), figure.draw(run), audits.line(run)) == (None,) * 4
    page = build([run_folder], tmp_path).read_text()
    assert 'id="measured"' not in page
    assert 'id="hardware"' not in page


def test_the_panel_says_what_ran_and_what_its_figures_are_shares_of(measured: Measured) -> None:
    panel = the_panel(measured())
    lines = printed(panel)
    assert (panel.void, panel.stops) == (False, [])
    assert lines == {
        "device": "Intel Xeon @ 2.20GHz: torch 2.13.0, memory 25.0 GB",
        "processes": "2: on one machine, 1 thread each",
        "transport": "gloo: not encrypted",
        "number format": "float32: of weights and activations",
        "peak": f"110 GFLOP/s: of each process, measured, in the profile {PROFILE}; MFU is a share of this",
        "step, median": "148 ms: 5 % to 95 %: 143 ms to 158 ms; 24 measured after 2 to warm up, which count nowhere",
        "restarts": "none: ",
        "difference to the plain model": "3.1e-7: largest of any weight, relative to the largest weight, after the "
        "same micro-batches in one process",
        "audit": "passed: 1 of 1 rules checked",
    }


def test_machines_restarts_and_clocks_are_told(measured: Measured) -> None:
    def change(changed: dict[str, Any]) -> None:
        changed.update(device_kind="cuda", num_nodes=2, transport="tcp", encrypted=True, clock_uncertain_s=0.0013)
        changed.update(restarts=[{"at_s": 1.2, "step": 5}], num_steps_done_again=2, reference_difference=None)
        changed["device"] = {"name": "NVIDIA H100 80GB HBM3"}

    run = measured(change)
    lines = printed(the_panel(run))
    assert lines["processes"] == "2: on 2 machines"
    assert lines["transport"] == "tcp: encrypted"
    assert lines["restarts"] == "1: at 1.2 s, from step 5; 2 steps done again"
    assert lines["clocks"].startswith("±1.3 ms: ")
    assert "difference to the plain model" not in lines
    assert plain(verdict.sentence(run)).startswith("Measured on 2 × NVIDIA H100 80GB HBM3, on 2 machines, this model ")
    run = measured(lambda b: b.update(restarts=[{"peer": "s01r0", "at_s": 3.0, "why": "killed"}]))
    assert printed(the_panel(run))["restarts"] == "1: s01r0 at 3 s"


def test_the_first_sentence_and_the_small_print_name_the_device(measured: Measured) -> None:
    run = measured()
    assert verdict.sentence(run).startswith("Measured with 2 processes on Intel Xeon @ 2.20GHz this model trains at ")
    assert "2 processes on Intel Xeon @ 2.20GHz" in sections.facts(run)
    run = measured(lambda b: b.update(device={}, devices=["A", "B", "A"]))
    assert verdict.device_name(run) == "A and B"
    assert verdict.device_name(measured(lambda b: b.update(device={}))) == "CPU"


@pytest.mark.parametrize("why", ["s01r0 (rank 1) was killed by SIGKILL; its last action was B 3", ""])
def test_a_run_that_ended_early_says_why(measured: Measured, why: str) -> None:
    stops = the_panel(measured(aborted=why or None)).stops
    assert [(stop.label, stop.value) for stop in stops] == ([("Ended early:", f"{why}.")] if why else [])


def test_a_run_whose_audit_failed_is_void_and_says_so_first(measured: Measured, tmp_path: Path) -> None:
    broken = {"rule": 2, "text": "Law 2 holds", "checked": 9, "violations": ["micro-batch 4 was accumulated twice"]}
    why = "void: the ledger breaks rule 2 (Law 2 holds): micro-batch 4 was accumulated twice"
    run = measured(lambda b: b.update(audit={"ok": False, "rules": [broken], "counts": {}}), aborted=why)
    panel = the_panel(run)
    assert panel.void
    assert [stop.label for stop in panel.stops] == ["VOID.", "The audit failed."]
    assert panel.stops[0].value == "The run’s account is wrong. Read no number of this page as a result."
    assert printed(panel)["audit"].startswith("FAILED")
    assert verdict.sentence(run).startswith("VOID, no result: measured with 2 processes")
    page = build([run.folder], tmp_path).read_text()
    assert page.index('id="measured"') < page.index('class="verdict"') < page.index('class="tiles"')
    assert 'class="panel stopped"' in page


def test_operations_stand_beside_what_was_predicted(measured: Measured) -> None:
    section = the_section(measured())
    rows = [tuple(map(plain, row.values())) for row in section["operations"]]
    assert rows[0] == ("chunk 0", "forward", "192", "6.00 ms", "5.40 ms to 7.20 ms", "5.00 ms", "+20.0 %")
    assert [(row[1], row[0], row[-1]) for row in rows] == [
        ("forward", "chunk 0", "+20.0 %"),
        ("forward", "chunk 1", "±0 %"),
        ("backward", "chunk 0", "+4.0 %"),
        ("backward", "chunk 1", "±0 %"),
        ("optimizer step", "chunk 0", "±0 %"),
        ("optimizer step", "chunk 1", "−7.7 %"),
    ]
    extra = (192 * (0.001 + 0.0004) - 24 * 0.00025) / (192 * 0.030 + 24 * 0.00625)
    assert f"All operations together took {100 * extra:.1f} % longer than predicted;" in plain(section["lead"])
    assert plain(section["lead"]).endswith("furthest off is forward of chunk 0, +20.0 %.")
    assert "transfer, upstream and polling in the waterfall" in section["reading"]


def test_the_step_stands_beside_the_order_and_the_optimizer(measured: Measured) -> None:
    lines = {line.label: plain(f"{line.value}: {line.note}") for line in the_section(measured())["step"]}
    assert lines["step, measured"] == "148 ms: median; 5 % to 95 %: 143 ms to 158 ms"
    assert lines["step, predicted"] == (
        "138 ms: 135 ms for the order on the plan’s times and hops, without contention, and 3.25 ms for the optimizer"
    )
    assert lines["difference"] == f"+{100 * (0.148 / 0.13825 - 1):.1f} %: measured against predicted"


def test_a_profile_of_another_device_predicts_nothing_and_says_what_to_do(measured: Measured, tmp_path: Path) -> None:
    advice = [{"name": "1f1b", "own": True, "step_s": 0.01, "settings": {}, "fits": True}]
    schedule = {"name": "1f1b", "step_s_without_contention": 0.01, "hop_s": 1e-4, "advice": advice}
    run = measured(of_another_device, schedule=schedule)
    section = the_section(run)
    assert section["lead"] == (
        "Nothing is predicted here, because the profile a100-80gb is not of the device that ran: measure the device "
        "with orionbed calibrate and run again with --profile."
    )
    assert [line.label for line in section["step"]] == ["step, measured"]
    assert (section["is_predicted"], section["reading"]) == (False, "")
    table = orders.table(run)
    assert table is not None
    assert "on times of a100-80gb, which is not the device that ran" in table["sentence"]
    assert drawn(run).title == "Measured time of operations"
    text = text_of(build([run.folder], tmp_path).read_text())
    assert "operation where done median 5 % to 95 % forward chunk 0 192 6.00 ms" in text


def test_memory_and_connections_have_their_tables(measured: Measured, tmp_path: Path) -> None:
    telemetry = [
        {"peer": "s00r0", "to": "s01r0", "rtt_s": 0.031, "retransmits": 14, "bytes_per_s": 31e6},
        {"peer": "s01r0", "to": "s00r0", "rtt_s": 0.032, "retransmits": 0, "bytes_per_s": None, "more": "x"},
    ]
    section = the_section(measured(lambda b: b.update(telemetry=telemetry)))
    assert [tuple(map(plain, row.values())) for row in section["memory"]["rows"]] == [
        ("s01r0", "431 MB", "118 MB", "1.00 MB", "+312 MB"),
        ("s00r0", "431 MB", "118 MB", "1.00 MB", "+312 MB"),
    ]
    connections = section["connections"]
    assert connections["heads"] == ["connection", "round trip", "sent again", "rate"]
    assert [list(map(plain, row)) for row in connections["rows"]] == [
        ["s01r0 to s00r0", "32.0 ms", "0", "–"],
        ["s00r0 to s01r0", "31.0 ms", "14", "248 Mbit/s"],
    ]
    queued = [{"from": "s00r0", "to": "s01r0", "rtt_s": 1e-4, "retransmitted_segments": 1, "message_s": 2e-3}]
    run = measured(lambda b: b.update(connections=queued))
    assert the_section(run)["connections"]["heads"] == ["connection", "round trip", "sent again", "a message takes"]
    text = text_of(build([run.folder], tmp_path).read_text())
    assert "s00r0 to s01r0 0.10 ms 1 2.00 ms" in text


def test_a_queue_reports_by_stage_and_without_steps(measured: Measured) -> None:
    def change(changed: dict[str, Any]) -> None:
        changed.pop("steps")
        changed["operations"] = [
            {"stage": 1, "kind": "B", "count": 9, "median_s": 0.01, "p95_s": 0.02, "predicted_s": 0.01}
        ]

    section = the_section(measured(change))
    (row,) = section["operations"]
    assert (row["place"], plain(row["spread"]), section["step"]) == ("stage 1", "to 20.0 ms", [])
    assert section["lead"].endswith("took as long as predicted; none is off by 5\u00a0%.")


def test_many_operations_are_cut_to_the_heaviest(measured: Measured) -> None:
    rows = [operation(chunk, kind, 0.001 * (1 + chunk), 0.001) for chunk in range(20) for kind in "FB"]
    run = measured(lambda b: b.update(operations=rows))
    section = the_section(run)
    assert len(section["operations"]) == predicted.MOST_ROWS
    assert section["left_out"].startswith("16 more took less time altogether; figures/operations.csv")
    assert {row["place"] for row in section["operations"]} == {f"chunk {chunk}" for chunk in range(8, 20)}
    assert len(drawn(run).rows) == 40


def test_the_figure_shows_measured_beside_predicted(measured: Measured) -> None:
    plot = drawn(measured())
    rows = list(csv.DictReader(io.StringIO(plot.csv())))
    assert [row["kind"] for row in rows] == ["F", "F", "B", "B", "STEP", "STEP"]
    assert float(rows[0]["difference"]) == pytest.approx(0.2)
    assert plain(plot.reading).endswith("the diamond what the profile predicts; 5 of 6 medians lie within 10 % of it.")
    assert plot.title == "Predicted and measured time of operations"
    assert (plot.svg(), plot.png()) == (drawn(measured()).svg(), drawn(measured()).png())


def test_one_slow_operation_does_not_squeeze_the_figure(measured: Measured) -> None:
    plot = drawn(measured(lambda b: b["operations"][0].update(p95_s=5.0)))
    assert plot.figure.axes[0].get_xlim()[1] < 1e3 * 2 * 0.0104
    assert plot.reading.endswith("Bands that end in an arrow go on beyond the figure.")


def test_the_loss_is_that_of_the_scenarios_own_model(measured: Measured) -> None:
    plot = loss.draw(measured())
    assert plot is not None
    assert plot.title == "The loss of the scenario’s model"
    assert plot.reading == (
        "The loss of the scenario’s model on synthetic text falls (first tenth 7.55 on average, last tenth 5.35): it "
        "shows that training works, not how well it learns from real text."
    )
    assert "each step" in plot.svg()


def test_the_page_has_panel_section_and_links_to_them(measured: Measured, tmp_path: Path) -> None:
    run = measured()
    page = build([run.folder], tmp_path).read_text()
    assert page.index('class="verdict"') < page.index('id="measured"') < page.index('class="tiles"')
    assert page.index('id="waterfall"') < page.index('id="hardware"') < page.index('id="training"')
    assert 'href="#hardware"' in page
    assert (tmp_path / "figures" / "operations.svg").is_file()
    text = text_of(page)
    assert "Measured on hardware Processes trained the scenario’s own model" in text
    assert "Law 1 holds 192 holds" in text
    assert build([run.folder], tmp_path / "again").read_text() == page


@pytest.mark.parametrize("left", [(), ("profile",), ("operations", "device"), ("memory", "steps", "loss")])
def test_a_block_with_parts_missing_makes_a_page(measured: Measured, tmp_path: Path, left: tuple[str, ...]) -> None:
    def change(changed: dict[str, Any]) -> None:
        for key in [key for key in changed if key not in left]:
            changed.pop(key)

    run = measured(change)
    assert the_panel(run).stops == []
    assert 'id="measured"' in build([run.folder], tmp_path).read_text()


@pytest.mark.parametrize("wrong", [None, "x", 3, [None, 1], {}, [{"median_s": "x"}, {}]])
def test_a_block_of_other_forms_makes_a_page(measured: Measured, tmp_path: Path, wrong: Any) -> None:
    run = measured(lambda b: b.update(dict.fromkeys(b, wrong), unknown={"key": wrong}))
    assert 'id="measured"' in build([run.folder], tmp_path).read_text()


def test_beside_a_simulation_of_the_same_profile_only_the_length_is_remarked(
    measured: Measured, maker: Callable[..., Path], editor: Editor, tmp_path: Path
) -> None:
    folder = maker(tmp_path / "simulated")
    editor(folder, lambda content: content["layout"].update(gpu=PROFILE, peak_flops=110e9))
    assert beside.notes([load(folder), measured()]) == []
    short = {"total": 3.6, "training": 3.6, "merging": 0.0, "startup": 0.0}
    (note,) = beside.notes([load(folder), measured(duration_s=short)])
    assert note.startswith("The runs are not cut alike (")
    assert "real.steps" in note
    assert "emulator" not in note


def test_beside_a_simulation_of_another_profile_that_is_said(
    measured: Measured, maker: Callable[..., Path], tmp_path: Path
) -> None:
    simulated = load(maker(tmp_path / "simulated"))
    peaks, profiles = map(plain, beside.notes([simulated, measured()]))
    assert peaks.startswith("MFU and HFU are shares of each run’s own peak (312 TFLOP/s in simulated, 110 GFLOP/s in ")
    assert f"ran with the profile {PROFILE}, but simulated did not:" in profiles
    run = measured(of_another_device, aborted="void: the account does not balance")
    void, _, profiles = beside.notes([simulated, run])
    assert void == f"{run.name} is VOID: its numbers are no result."
    assert "ran on a device that its profile a100-80gb does not describe" in profiles
    page = text_of(build([simulated.folder, run.folder], tmp_path / "out").read_text())
    assert profiles in page
