import csv
import io
import json
import re
from collections.abc import Callable
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reports import audits, beside, build, compare, emulated, faults, verdict
from reports.figures import loss, timeline
from reports.figures.drawing import Plot
from reports.panel import Panel
from reports.run_folder import Run, load

Editor = Callable[[Path, Callable[[dict[str, Any]], object]], Path]
DOCS = Path(__file__).resolve().parents[2] / "docs"
VOID = "void: one in a hundred operations or messages was later than 95 ms, the limit is 50 ms; raise it"


def curve(count: int = 100) -> list[list[float]]:
    noise = np.random.default_rng(7).normal(0, 0.05, count)
    return [[1.0 + 0.5 * i, 6.0 - 0.8 * i / count + float(noise[i])] for i in range(count)]


def block(clock: str = "paced") -> dict[str, Any]:
    """Return what the emulator's block looks like; without a clock to follow nothing is late."""
    late = {"p50_s": 0.000142, "p99_s": 0.0311, "max_s": 0.505016, "count": 2142}
    none = {"p50_s": 0.0, "p99_s": 0.0, "max_s": 0.0, "count": 0}
    points = curve()
    return {
        "clock": clock,
        "time_dilation": 0.98 if clock == "paced" else 1.0,
        "payload_scale": 19.67298,
        "num_processes": 9,
        "model": {
            "layers_per_chunk": [1, 1, 1, 1],
            "width": 128,
            "tokens": 64,
            "boundary_width": 2,
            "dtype": "float32",
        },
        "lateness": {"operations": late, "messages": late | {"count": 790}}
        if clock == "paced"
        else {"operations": none, "messages": none},
        "encrypted": False,
        "lateness_limit_s": 0.05,
        "void": False,
        "measured_s": {"F": 0.0013, "B": 0.0031, "STEP": 0.0008},
        "memory_bytes_per_peer": [364e6, 372e6, 371e6, 366e6, 0, 368e6, 373e6, 365e6],
        "loss": {
            "first": float(np.mean([value for _, value in points[:10]])),
            "last": float(np.mean([value for _, value in points[-10:]])),
            "curve": points,
        },
    }


def rule(number: int, checked: int, *violations: str) -> dict[str, Any]:
    return {"rule": number, "text": f"Law {number} holds", "checked": checked, "violations": list(violations)}


@pytest.fixture
def emulation(run_folder: Path, editor: Editor) -> Callable[..., Run]:
    """Return a maker of emulated runs: the test's run folder with a block, changed as the test wants."""

    def make(
        clock: str = "paced", *, change: Callable[[dict[str, Any]], object] = lambda _: None, **summary: Any
    ) -> Run:
        changed = block(clock)
        change(changed)
        editor(run_folder, lambda content: content.update(backend="emulator", emulator=changed, **summary))
        return load(run_folder)

    return make


def too_late(changed: dict[str, Any]) -> None:
    changed["void"] = True
    changed["lateness"]["messages"]["p99_s"] = 0.0953


def the_panel(run: Run) -> Panel:
    panel = emulated.panel(run)
    assert panel is not None
    return panel


def printed(panel: Panel) -> dict[str, str]:
    return {line.label: f"{line.value}: {line.note}".replace("\u00a0", " ") for line in panel.lines}


def text_of(page: str) -> str:
    bare = re.sub(r"<(script|style)\b.*?</\1>", "", page, flags=re.DOTALL)
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", bare)).replace("\u00a0", " "))


def test_a_simulated_run_says_nothing_of_all_this(run_folder: Path, tmp_path: Path) -> None:
    run = load(run_folder)
    assert emulated.panel(run) is None
    assert loss.draw(run) is None
    assert emulated.memory(run) is None
    page = build([run_folder], tmp_path).read_text()
    for name in ("emulated", "training", "faults"):
        assert f'id="{name}"' not in page


def test_the_panel_says_what_was_scaled(emulation: Callable[..., Run]) -> None:
    panel = the_panel(emulation())
    lines = printed(panel)
    assert (panel.void, panel.stops) == (False, [])
    assert lines["clock"] == "paced: one second of the run took 0.98 s here"
    assert lines["processes"] == "9: one for each peer and one for the store"
    assert lines["bytes"].startswith("divided by 19.67: ")
    assert lines["scaled-down model"] == (
        "128 wide: 4 chunks of 1 layer, 64 tokens a micro-batch, boundary 2 wide, float32; it stands in for the "
        "scenario’s 99.6 B parameters in 90 layers"
    )
    limits = "limit 50.0 ms; p50 0.14 ms, max 505 ms"
    assert lines["lateness of operations"] == f"p99 31.1 ms: {limits}; 2,142 measured"
    assert lines["lateness of messages"] == f"p99 31.1 ms: {limits}; 790 measured"
    assert "audit" not in lines
    assert "faults" not in lines


@pytest.mark.parametrize("clock", ["virtual", "cpu"])
def test_without_a_clock_to_follow_nothing_is_late(emulation: Callable[..., Run], clock: str) -> None:
    lines = printed(the_panel(emulation(clock)))
    assert lines["clock"].startswith(f"{clock}: ")
    assert "took" not in lines["clock"]
    assert lines["lateness"] == "none: nothing waited for a clock, so nothing could be late"


def test_chunks_of_different_size_are_listed(emulation: Callable[..., Run]) -> None:
    run = emulation(change=lambda b: b["model"].update(layers_per_chunk=[2, 1, 1, 2]))
    assert "chunks of 2, 1, 1, 2 layers" in printed(the_panel(run))["scaled-down model"]


def test_a_void_run_says_so_in_plain_words_before_anything_else(emulation: Callable[..., Run], tmp_path: Path) -> None:
    run = emulation(change=too_late, aborted=VOID)
    panel = the_panel(run)
    assert [stop.label for stop in panel.stops] == ["VOID."]
    why = panel.stops[0].value.replace("\u00a0", " ")
    assert "one in a hundred messages was later than 95.3 ms, and the limit is 50.0 ms" in why
    assert "operations" not in why
    assert "Read no number of this page as a result." in why
    assert printed(panel)["lateness of messages"].startswith("p99 95.3 ms, OVER THE LIMIT: ")
    assert verdict.sentence(run).startswith("VOID, no result: on 8 ")
    page = build([run.folder], tmp_path).read_text()
    assert page.index('id="emulated"') < page.index('class="verdict"') < page.index('class="tiles"')
    assert 'class="panel stopped"' in page


def test_a_run_void_for_another_reason_gives_that(emulation: Callable[..., Run]) -> None:
    run = emulation(change=lambda b: b.update(void=True), aborted="void: the account does not balance")
    assert the_panel(run).stops[0].value.startswith("The account does not balance. Read no number")


def test_a_run_whose_audit_failed_is_void(emulation: Callable[..., Run]) -> None:
    found = {"ok": False, "rules": [rule(2, 99, "micro-batch 4 was accumulated twice")], "counts": {}}
    why = "void: the ledger breaks rule 2 (Law 2 holds): micro-batch 4 was accumulated twice"
    run = emulation(change=lambda b: b.update(audit=found), aborted=why)
    assert run.is_void
    panel = the_panel(run)
    assert panel.void
    assert [stop.label for stop in panel.stops] == ["VOID.", "The audit failed."]
    assert panel.stops[0].value.startswith("The run’s account is wrong.")
    assert verdict.sentence(run).startswith("VOID, no result: on 8 ")


def test_a_run_that_ended_early_says_why(emulation: Callable[..., Run]) -> None:
    stops = the_panel(emulation(aborted="s01r0 was killed by SIGKILL")).stops
    assert [(stop.label, stop.value) for stop in stops] == [("Ended early:", "s01r0 was killed by SIGKILL.")]


def test_the_page_has_panel_training_and_links_to_them(emulation: Callable[..., Run], tmp_path: Path) -> None:
    run = emulation()
    page = build([run.folder], tmp_path).read_text()
    assert page.index('class="verdict"') < page.index('id="emulated"') < page.index('class="tiles"')
    assert page.index('id="stages"') < page.index('id="training"') < page.index('id="bandwidth"')
    assert 'href="#training"' in page
    assert (tmp_path / "figures" / "loss.svg").is_file()
    text = text_of(page)
    assert "peak memory of a peer’s process, median 368 MB 364 MB to 373 MB, 2.58 GB over 7 peers;" in text
    assert "1 did not report" in text


def drawn(run: Run) -> Plot:
    plot = loss.draw(run)
    assert plot is not None
    return plot


def test_the_loss_is_drawn_with_its_mean_and_what_it_does_not_show(emulation: Callable[..., Run]) -> None:
    run = emulation()
    plot = drawn(run)
    rows = list(csv.DictReader(io.StringIO(plot.csv())))
    assert len(rows) == 100
    mean = timeline.rolling_mean(np.array([value for _, value in curve()]), 10)
    np.testing.assert_allclose([float(row["loss_mean_10"]) for row in rows], mean, atol=1e-6)
    first, last = run.get("emulator.loss.first"), run.get("emulator.loss.last")
    assert f"falls (first tenth {first:.2f} on average, last tenth {last:.2f})" in plot.reading
    assert "synthetic text" in plot.reading
    assert plot.reading.endswith("it shows that training works, not how well the scenario’s model learns.")
    assert 40 < len(plot.reading) < 400
    assert (plot.svg(), plot.png()) == (drawn(run).svg(), drawn(run).png())


def test_a_loss_that_does_not_fall_shows_no_training(emulation: Callable[..., Run]) -> None:
    run = emulation(change=lambda b: b.update(loss={"first": 5.0, "last": 5.1, "curve": [[1.0, 5.0], [2.0, 5.1]]}))
    reading = drawn(run).reading
    assert "does not fall" in reading
    assert "shows neither that training works nor how well" in reading


def test_losses_that_are_no_numbers_are_counted(emulation: Callable[..., Run]) -> None:
    points = [[1.0, 6.0], [2.0, float("nan")], [3.0, None], [4.0, 5.0]]
    run = emulation(change=lambda b: b.update(loss={"first": None, "last": None, "curve": points}))
    plot = drawn(run)
    assert len(plot.rows) == 2
    assert "2 losses were no finite numbers and are left out." in plot.reading


@pytest.mark.parametrize("points", [[], [[1.0, 6.0]], None])
def test_too_few_losses_make_no_figure(emulation: Callable[..., Run], points: Any) -> None:
    def change(changed: dict[str, Any]) -> None:
        changed["loss"]["curve"] = points
        changed["memory_bytes_per_peer"] = []

    run = emulation(change=change)
    assert loss.draw(run) is None
    assert 'id="training"' not in build([run.folder], run.folder).read_text()


def test_the_audit_passes_with_what_was_not_checked(emulation: Callable[..., Run], tmp_path: Path) -> None:
    found = {"ok": True, "rules": [rule(1, 99), rule(2, 0)], "counts": {"applied": 12}}
    run = emulation(change=lambda b: b.update(audit=found), microbatches={"created": 12, "applied": 12})
    assert printed(the_panel(run))["audit"] == "passed: 1 of 2 rules checked, not checked: 2"
    assert [row.outcome for row in audits.rows(run)] == ["holds", "not checked"]
    text = text_of(build([run.folder], tmp_path).read_text())
    assert "By its own count 12 micro-batches were applied, as in the account below." in text


def test_an_audit_that_found_something_is_told_first(emulation: Callable[..., Run], tmp_path: Path) -> None:
    broken = rule(2, 99, *(f"micro-batch {n} was accumulated twice" for n in range(8)))
    found = {"ok": False, "rules": [rule(1, 99), broken], "applied": 11}
    run = emulation(change=lambda b: b.update(audit=found), microbatches={"created": 12, "applied": 12})
    panel = the_panel(run)
    assert panel.stops[0].label == "The audit failed."
    assert panel.stops[0].value.startswith("Rule 2, “Law 2 holds” did not hold. Read no number")
    assert printed(panel)["audit"].startswith("FAILED: ")
    row = audits.rows(run)[1]
    assert (row.outcome, row.broken, len(row.violations), row.violations[-1]) == ("broken 8×", True, 6, "and 3 more")
    text = text_of(build([run.folder], tmp_path).read_text())
    assert "used by the end, 11 micro-batches were applied; the account below has 12." in text
    found["applied"] = 13
    run = emulation(change=lambda b: b.update(audit=found), microbatches={"created": 12, "applied": 12})
    assert "BY ITS OWN COUNT 13 micro-batches were applied, MORE THAN THE ACCOUNT HAS, 12." in audits.sentence(run)


def test_an_audit_without_rules_still_tells_its_result(emulation: Callable[..., Run]) -> None:
    assert printed(the_panel(emulation(change=lambda b: b.update(audit={"ok": True}))))["audit"] == "passed: "
    failed = the_panel(emulation(change=lambda b: b.update(audit={"ok": False})))
    assert failed.stops[0].value.startswith("A rule did not hold.")


FAULTS: list[dict[str, Any]] = [
    {
        "id": "cut", "kind": "partition", "start_s": 5.0, "end_s": 9.0, "who": ["s00r0 -> s01r0", "s01r0 -> s00r0"],
        "what": "mode blackhole", "hit": True, "destroyed_bytes": 2.1e6, "recovered_s": 11.5,
    },
    {
        "id": "late", "kind": "crash", "start_s": 190.0, "end_s": None, "who": ["s02r1"], "what": "state lost",
        "hit": False, "destroyed_bytes": 0, "recovered_s": None,
    },
    {"id": "slow", "kind": "slow", "who": [f"p{n}" for n in range(9)], "hit": True, "recovered": False},
    {},
]  # fmt: skip


def test_faults_are_told_one_by_one_and_one_that_hit_nothing_says_so(
    emulation: Callable[..., Run], tmp_path: Path
) -> None:
    run = emulation(faults=FAULTS)
    rows = faults.rows(run)
    assert [row.hit for row in rows] == ["yes", "hit nothing", "yes", "–"]
    assert [row.recovered.replace("\u00a0", " ") for row in rows] == ["at 11.5 s", "–", "NOT BY THE END", "–"]
    assert [row.end.replace("\u00a0", " ") for row in rows] == ["9 s", "the end", "–", "–"]
    assert rows[2].who == "p0; p1; p2; p3; p4; p5; and 3 more"
    assert printed(the_panel(run))["faults"] == "4: 1 hit nothing, 1 not recovered from by the end"
    text = text_of(build([run.folder], tmp_path).read_text())
    assert "4 faults were injected. “late” hit nothing, so this run shows nothing about it." in text
    assert "By its end the run had not recovered from “slow”. 2.10 MB under way were destroyed." in text
    assert "cut partition 5 s 9 s s00r0 -> s01r0; s01r0 -> s00r0 mode blackhole yes 2.10 MB at 11.5 s" in text


def test_a_simulation_compares_with_an_emulation(
    emulation: Callable[..., Run], maker: Callable[..., Path], editor: Editor, tmp_path: Path
) -> None:
    simulated = load(maker(tmp_path / "simulated"))
    short = {"total": 234.0, "training": 30.0, "merging": 204.0, "startup": 0.0}
    run = emulation(change=too_late, aborted=VOID, duration_s=short)
    differences = {row.quantity: row for row in compare(simulated.summary, run.summary)}
    assert differences["mfu.in_phase"].difference == 0.0
    assert differences["duration_s.training"].b == 30.0
    page = build([simulated.folder, run.folder], tmp_path / "out").read_text()
    text = text_of(page)
    assert f"{run.name} is VOID: its numbers are no result." in text
    assert re.search(
        r"The runs are not cut alike \(start-up from 0 s to 43\.2 s; training from 30 s to 2\.56 h\):", text
    )
    assert 'id="run2-emulated"' in page
    assert 'id="run1-emulated"' not in page


def test_runs_cut_alike_and_simulations_compare_without_a_remark(
    emulation: Callable[..., Run], maker: Callable[..., Path], tmp_path: Path
) -> None:
    simulated = load(maker(tmp_path / "simulated"))
    assert beside.notes([simulated, emulation()]) == []
    assert beside.notes([simulated, load(maker(tmp_path / "longer", hours=5.0))]) == []


def test_the_reference_has_every_key_of_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(DOCS)
    import reference_words

    def keys(value: Any, key: str) -> set[str]:
        if isinstance(value, dict):
            return set().union(*(keys(inside, f"{key}.{name}") for name, inside in value.items()))
        if isinstance(value, list):
            return set().union(*(keys(inside, f"{key}[]") for inside in value))
        return {key}

    found = block() | {"audit": {"ok": False, "rules": [rule(1, 9, "x") | {"note": ""}], "counts": {"applied": 9}}}
    described = [key for key, _, _ in reference_words.EMULATOR]
    patterns = [re.compile(re.escape(key).replace(r"\*", ".+")) for key in described]
    have = keys(json.loads(json.dumps(found)), "emulator")
    assert [key for key in sorted(have) if not any(p.fullmatch(key) for p in patterns)] == []
    assert [key for key, p in zip(described, patterns, strict=True) if not any(map(p.fullmatch, have))] == []
