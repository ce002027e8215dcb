import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from orionbed.tracing import Trace, TraceRecorder
from reports import build, verdict
from reports.run_folder import load

Editor = Callable[[Path, Callable[[dict[str, Any]], object]], Path]
ROOT = Path(__file__).resolve().parents[2]
SECTIONS = (
    *("verdict", "trust", "waterfall", "timeline", "gantt", "stages", "bandwidth", "bands", "peers", "ledger", "cost"),
    *("assumptions", "reproduce"),
)
VOID = {"meta", "link", "img", "br", "input", "path", "use", "rect", "hr"}


class Page(HTMLParser):
    """Keeps what a test asks about: tags in balance, ids, addresses to load, and the text that a reader sees."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.addresses: list[str] = []
        self.handlers: list[str] = []
        self.tags: dict[str, int] = {}
        self.text = ""
        self.feed(html)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] = self.tags.get(tag, 0) + 1
        for name, value in attrs:
            if name == "id":
                self.ids.append(str(value))
            if name in ("src", "href", "xlink:href", "data", "srcset", "action", "poster"):
                self.addresses.append(str(value))
            if name.startswith("on"):
                self.handlers.append(name)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if tag in VOID:
            return
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "script" not in self.open and "style" not in self.open:
            self.text += data


@pytest.fixture(scope="module")
def page(maker: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("page")
    return build([maker(folder / "orion-test-sim-abc123-s3")], folder / "out").read_text()


def test_every_section_is_there_in_order(page: str) -> None:
    parsed = Page(page)
    sections = [name for name in parsed.ids if name in SECTIONS]
    assert sections == list(SECTIONS)
    assert len(parsed.ids) == len(set(parsed.ids))
    for link in parsed.addresses:
        assert not link.startswith("#") or link[1:] in parsed.ids


def test_nothing_is_loaded_from_anywhere(page: str) -> None:
    parsed = Page(page)
    assert all(address.startswith(("#", "data:")) for address in parsed.addresses), parsed.addresses
    assert "@import" not in page
    assert not re.search(r"url\((?!#|['\"]?data:)", page)
    assert not re.search(r"\b(fetch|XMLHttpRequest|import)\s*\(", page)
    assert len(page.encode()) < 3_000_000


def test_the_first_screen_has_the_numbers_with_what_is_published_about_them(page: str) -> None:
    text = Page(page).text.replace("\u00a0", " ")
    screen = text[: text.index("Can these numbers be trusted?", text.index("Reproduce"))]
    assert "On 8 A100-80GB peers joined by the internet this model trains at 31.4 % MFU" in screen
    assert "64 % of the speed of the same layout in a datacenter" in screen
    assert "kernel inefficiency (23.5 % of the peak)" in screen
    assert "merge transfer (9.2 %)" in screen
    assert "1 warning: check it before trusting the numbers." in screen
    for words in ("average MFU", "peak MFU", "tokens per second", "share of datacenter speed", "run time", "HFU"):
        assert words in screen
    assert "per million tokens" in screen
    assert "micro-batches applied" in screen
    assert page.count('class="tile"') == 8
    assert re.search(r"published 30\.8 %\s*error \+1\.9 % predicted", screen)
    assert re.search(r"published 9,000 tok/s \(in training phases; here [\d,]+ tok/s\)\s*error \S+ % fitted", screen)
    assert re.search(r"27\.\d % to 33\.\d % in 90 % of draws", screen)


def test_tables_say_what_the_summary_says(page: str) -> None:
    text = re.sub(r"\s+", " ", Page(page).text.replace("\u00a0", " "))
    assert "6.1% of all GPU-seconds wait for the window windowraise the window" in text
    assert "The public figures do not agree" in text
    assert "about 9000 tokens/s9,000 tok/s35.9 %34.0summary" in text
    assert "The account balances: applied + dropped + rejected + in flight" in text
    assert "A token costs 3 % less here than in a datacenter" in text
    assert "orionbed run scenarios/orion-100b.yaml --set 'a=b c'" in text
    assert "packages.simpy4.1.1" in text
    assert "not reached" in text


def test_assumptions_stand_in_the_order_of_doubt(page: str) -> None:
    assert re.findall(r'<tr data-kind="(\w+)"', page) == ["fitted", "assumed", "derived", "code", "published"]
    assert page.count('<span class="badge fitted">fitted</span>') >= 2


def test_the_gantts_data_are_json_and_its_still_picture_needs_no_script(page: str) -> None:
    source = re.search(r'<script type="application/json" id="gantt-data">(.*?)</script>', page, re.DOTALL)
    assert source is not None
    data = json.loads(source.group(1))
    assert len(data["rows"]) == 8
    assert '<div class="live" hidden>' in page
    assert re.search(r'<div class="still scroll"><img src="data:image/png;base64,', page)
    assert '<div class="filter" hidden>' in page


def test_files_lie_beside_the_page(run_folder: Path, tmp_path: Path) -> None:
    path = build([run_folder], tmp_path / "out")
    assert path == tmp_path / "out" / "report.html"
    names = {file.name for file in (tmp_path / "out" / "figures").iterdir()}
    figures = ("waterfall", "timeline", "gantt", "stages", "bandwidth", "bands", "links")
    assert names == {f"{name}.{suffix}" for name in figures for suffix in ("svg", "png", "csv")}
    assert (tmp_path / "out" / "trace.json.gz").stat().st_size > 1000


def test_the_page_may_be_named_and_the_run_folder_itself_be_the_place(run_folder: Path) -> None:
    path = build([run_folder], run_folder / "page.html")
    assert path == run_folder / "page.html"
    assert (run_folder / "figures" / "waterfall.svg").is_file()


def test_missing_parts_are_left_out(bare_folder: Path, tmp_path: Path) -> None:
    page = build([bare_folder], tmp_path / "out").read_text()
    parsed = Page(page)
    sections = [name for name in parsed.ids if name in SECTIONS]
    assert sections == ["verdict", "trust", "waterfall", "peers", "ledger", "cost", "assumptions", "reproduce"]
    assert "gantt-data" not in parsed.ids
    assert not (tmp_path / "out" / "trace.json.gz").exists()


def test_a_summary_with_next_to_nothing_still_makes_a_page(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "summary.json").write_text('{"schema_version": 1}')
    parsed = Page(build([tmp_path / "run"], tmp_path / "out").read_text())
    assert "In this run this model trains at – MFU." in parsed.text
    assert "No warnings" in parsed.text
    assert [name for name in parsed.ids if name in SECTIONS] == ["verdict", "trust", "reproduce"]


def test_no_warnings_says_so(bare_folder: Path, tmp_path: Path, editor: Editor) -> None:
    editor(bare_folder, lambda summary: summary.update(warnings=[]))
    text = Page(build([bare_folder], tmp_path / "out").read_text()).text
    assert "No warnings: nothing in this run asks to be checked first." in text


def test_an_account_that_does_not_balance_is_shouted(bare_folder: Path, tmp_path: Path, editor: Editor) -> None:
    editor(bare_folder, lambda summary: summary["microbatches"].update(created=10**6))
    text = Page(build([bare_folder], tmp_path / "out").read_text()).text
    assert "THE ACCOUNT DOES NOT BALANCE" in text
    assert "but 1,000,000 were created" in text


HOSTILE = '"><script>alert(1)</script><img src=x onerror=alert(2)>{{ 7*7 }}$\\frac</style></svg>]]>&amp;'


def test_hostile_text_is_text(page: str, run_folder: Path, tmp_path: Path, editor: Editor) -> None:
    def poison(summary: dict[str, Any]) -> None:
        summary.update(title=HOSTILE, backend=HOSTILE, git=HOSTILE)
        summary["layout"]["gpu"] = summary["datacenter"]["definition"] = summary["cost"]["currency_date"] = HOSTILE
        for name in ("warnings", "published", "contradictions", "assumptions"):
            for entry in summary[name]:
                entry |= {key: HOSTILE for key, value in entry.items() if isinstance(value, str) and key != "quantity"}
        summary["published"][0]["quantity"] = summary["waterfall"][1]["cause"] = HOSTILE
        summary["waterfall"][1]["label"] = summary["waterfall"][2]["label"] = HOSTILE
        summary["microbatches"]["dropped_by_reason"] = {HOSTILE: 3}
        summary["datacenter"]["published"][0] |= {"name": HOSTILE, "source": HOSTILE}
        summary["curve_needed"][0]["boundary"] = HOSTILE

    editor(run_folder, poison)
    manifest = {"command": [HOSTILE], HOSTILE: {HOSTILE: HOSTILE}}
    (run_folder / "manifest.json").write_text(json.dumps(manifest))
    quoted = '"' + HOSTILE.replace('"', '""') + '"'
    for name, harmless_name in (("peers", "virginia"), ("peers", "s00r0"), ("curve", "resbm"), ("stages", "0,4,")):
        path = run_folder / f"{name}.csv"
        text = path.read_text()
        path.write_text(text.replace(harmless_name, f"{quoted},4," if name == "stages" else quoted, 1))
    path = run_folder / "bands.csv"
    path.write_text(path.read_text().replace("peers.kernel_scale", quoted, 1))
    recorder = TraceRecorder([HOSTILE])
    recorder.add(0, -1, -1, 0, 0, 0, 1, 0, 0.0, 1.0, 0.0, 0)
    columns = recorder.table()
    Trace(columns, peers=[HOSTILE], kinds=[HOSTILE], causes=[HOSTILE]).save(run_folder / "trace.npz")

    harmless, page = Page(page), build([run_folder], tmp_path / "out").read_text()
    parsed = Page(page)
    assert parsed.tags["script"] == harmless.tags["script"]
    assert parsed.tags["style"] == harmless.tags["style"]
    assert parsed.tags["img"] == harmless.tags["img"] == 1
    assert not parsed.handlers
    assert "<script>alert" not in page
    assert "49" not in parsed.text[parsed.text.index("alert(2)") :][:40]
    assert parsed.text.count(HOSTILE) > 20


def test_the_same_run_is_the_same_page_also_from_another_process(run_folder: Path, tmp_path: Path) -> None:
    build([run_folder], tmp_path / "a")
    code = "import sys, reports; reports.build([sys.argv[1]], sys.argv[2])"
    environment = {**os.environ, "PYTHONHASHSEED": "77", "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", code, run_folder, tmp_path / "b"], check=True, env=environment, cwd=tmp_path)
    first = {path.relative_to(tmp_path / "a"): path for path in (tmp_path / "a").rglob("*") if path.is_file()}
    assert len(first) > 20
    for name, path in first.items():
        assert path.read_bytes() == (tmp_path / "b" / name).read_bytes(), name


def test_importing_reports_loads_nothing_heavy() -> None:
    code = "import sys, reports; print([m for m in ('matplotlib', 'pandas', 'torch', 'jinja2') if m in sys.modules])"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], check=True, env=environment, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


def test_the_verdict_leaves_out_what_is_not_known(run_folder: Path, editor: Editor) -> None:
    editor(run_folder, lambda summary: summary["datacenter"].update(relative_speed=None))
    assert "datacenter" not in verdict.sentence(load(run_folder))
    editor(run_folder, lambda summary: summary.update(waterfall=[]))
    assert verdict.sentence(load(run_folder)).endswith("31.4\u00a0% MFU.")


def test_a_published_number_without_ours_is_shown_without_error(run_folder: Path, editor: Editor) -> None:
    editor(run_folder, lambda summary: summary["published"][0].update(ours=None, error=None))
    row = verdict.published_rows(load(run_folder))[0]
    assert (row["ours"], row["error"], row["published"]) == ("–", "–", "30.8\u00a0%")


def add_schedule(summary: dict[str, Any]) -> None:
    def row(name: str, step_s: float | None, **more: Any) -> dict[str, Any]:
        known = {"bubble": 0.25, "peak_memory_bytes": 40e9, "fits": True, "hops": None, "reason": None, "own": False}
        gain = None if step_s is None else 1.0 - step_s / 20.0
        return {"name": name, "settings": {"kind": name}, "step_s": step_s, "gain": gain, **known, **more}

    summary["schedule"] = {
        "name": "1f1b", "num_microbatches": 16, "step_s_without_contention": 20.0, "hop_s": 0.04,
        "advice": [
            row("gpipe", 18.0, hops=6, fits=False),
            row("1f1b", 20.0, hops=28, own=True),
            row("zb-v", None, fits=None, bubble=None, peak_memory_bytes=None, reason="12 pieces for 8 layers"),
            row("opportunistic", 15.0, settings={"memory_limit": 7, "split_backward": True}),
            row("interleaved-1f1b", 21.0, settings={"chunks": 2}),
        ],
        "best": "opportunistic", "gain": 0.25,
    }  # fmt: skip
    summary["syncs"] = {"count": 12, "mean_s": 3.5, "bytes_per_peer_and_step": 2e9}
    summary["network"]["bytes_sync"] = 48e9


@pytest.fixture
def scheduled(run_folder: Path, editor: Editor) -> str:
    return build([editor(run_folder, add_schedule)], run_folder / "out").read_text()


def test_a_fixed_batch_has_a_section_on_its_schedule_after_the_waterfall(scheduled: str) -> None:
    parsed = Page(scheduled)
    sections = [name for name in parsed.ids if name in (*SECTIONS, "schedule")]
    assert sections[:4] == ["verdict", "trust", "waterfall", "schedule"]
    text = re.sub(r"\s+", " ", parsed.text.replace("\u00a0", " "))
    assert "A step of 1f1b takes 20 s on this plan’s times and hops; opportunistic with backwards split" in text
    assert "at most 7 held would take 25.0 % less and fits the memory." in text
    assert (
        "A hop takes 40 ms (median of neighbours); in a step gpipe pays 6 hop times and 1f1b pays 28 hop times." in text
    )
    rows = text[text.index("orderstep") if "orderstep" in text else text.index("fullest stage") :]
    names = (
        "opportunistic with backwards split, at most 7 held",
        "gpipe",
        "1f1bthis run",
        "interleaved-1f1b with 2 chunks",
    )
    places = [rows.index(name) for name in names]
    assert places == sorted(places)
    assert "gpipe18 s25.0 %40.0 GBno+10.0 %" in rows
    assert "1f1bthis run20 s25.0 %40.0 GByes" in rows
    assert "interleaved-1f1b with 2 chunks per stage21 s25.0 %40.0 GByes−5.0 %" in rows
    assert "Not timed: zb-v: 12 pieces for 8 layers." in text


def test_syncs_stand_beside_merges(scheduled: str, page: str) -> None:
    text = re.sub(r"\s+", " ", Page(scheduled).text.replace("\u00a0", " "))
    assert "syncs of replicas48.0 GB" in text
    assert "syncs done123.5 s each on average; 2.00 GB per peer and step" in text
    assert "syncs" not in Page(page).text


def test_a_queue_driven_run_has_no_section_on_its_schedule(run_folder: Path, editor: Editor, page: str) -> None:
    assert 'id="schedule"' not in page
    built = build([editor(run_folder, lambda summary: summary.update(schedule=None))], run_folder / "out").read_text()
    assert 'id="schedule"' not in built


def test_an_own_order_that_nothing_beats_is_said_to_be(run_folder: Path, editor: Editor) -> None:
    def change(summary: dict[str, Any]) -> None:
        add_schedule(summary)
        summary["schedule"] |= {"best": None, "gain": 0.0}
        for row in summary["schedule"]["advice"]:
            row |= {"hops": None, "fits": row["own"]}

    text = Page(build([editor(run_folder, change)], run_folder / "out").read_text()).text.replace("\u00a0", " ")
    assert "and no other order that fits the memory is shorter." in text
    assert "hop times" not in text
