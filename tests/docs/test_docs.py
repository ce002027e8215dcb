"""The documents are tested: commands, files, quoted output, links, cited code, figures, and the generated reference."""

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import chdir
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import typer
from typer.testing import CliRunner

from orionbed import waterfall
from orionbed.advice import schedule_block
from orionbed.bandwidth_trace import read_trace
from orionbed.cli import app
from orionbed.plan import Plan, make_plan
from orionbed.scenario import load
from orionbed.schedule.catalogue import ENTRIES, Wanted
from orionbed.schedule.timing import Hops, equal_times, peak_activations, time_order
from orionbed.sweeps.loading import load_sweep
from orionbed.tracing import CAUSE_LABELS

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted(DOCS.rglob("*.md"))]
TUTORIAL = DOCS / "tutorial.md"
# What makes the tutorial's runs short enough for a test.
SHORT = ("run.duration=6 min", "datacenter.horizon=4 min", "report.uplinks=[]")


class Fence(NamedTuple):
    """A fenced block: its language, its text, and the comment in the line before it."""

    language: str
    text: str
    marker: str


def fences(page: Path) -> list[Fence]:
    found = re.findall(
        r"(?:^<!-- (.*?) -->\n)?^```(\w+)\n(.*?)^```$", page.read_text("utf-8"), re.MULTILINE | re.DOTALL
    )
    return [Fence(language, text, marker) for marker, language, text in found]


def lines(page: Path, marker: str | None = None) -> Iterator[str]:
    for fence in fences(page):
        if fence.language == "sh" and marker in {None, fence.marker}:
            yield from fence.text.splitlines()


def names(value: Path | str) -> str:
    return str(value.relative_to(ROOT)) if isinstance(value, Path) else value


COMMANDS = getattr(typer.main.get_command(app), "commands", {})
TYPED = [(page, line) for page in PAGES for line in lines(page)]
MENTIONED = [
    (page, span) for page in PAGES for span in re.findall(r"`(orionbed [^`]+)`", page.read_text("utf-8"))
]  # fmt: skip
FILES = [
    (page, fence) for page in PAGES for fence in fences(page) if fence.language == "yaml" and fence.text[:2] == "# "
]


def test_every_fence_has_a_language_that_says_what_is_tested() -> None:
    for page in PAGES:
        text = page.read_text("utf-8")
        assert text.count("\n```") == 2 * len(fences(page)), page
        assert {fence.language for fence in fences(page)} <= {"sh", "text", "yaml", "csv"}, page


@pytest.mark.parametrize(("page", "line"), TYPED, ids=names)
def test_every_command_can_be_typed(page: Path, line: str) -> None:
    program, *arguments = shlex.split(line)
    if program == "orionbed":
        name, *arguments = arguments
        assert COMMANDS[name].make_context(name, arguments).params
    elif program == "make":
        targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
        assert set(arguments) <= set(targets)
    elif program == "source":
        assert arguments == [".venv/bin/activate"]
    else:
        assert program in {"python", "pytest"}
        module = arguments[:1] == ["-m"]
        path = arguments[1].replace(".", "/") + ".py" if module else arguments[0]
        assert (ROOT / path).exists()


@pytest.mark.parametrize(("page", "span"), MENTIONED, ids=names)
def test_every_command_in_a_sentence_exists(page: Path, span: str) -> None:
    name, *arguments = shlex.split(span.partition(" > ")[0])[1:]
    known = {option for parameter in COMMANDS[name].params for option in parameter.opts}
    assert {word for word in arguments if word.startswith("--")} <= known


@pytest.mark.parametrize(("page", "fence"), FILES, ids=lambda v: v.text.split("\n")[0] if isinstance(v, Fence) else "")
def test_every_file_loads(page: Path, fence: Fence, tmp_path: Path) -> None:
    for other in fences(page):
        if other.language == "csv":
            (tmp_path / "links.csv").write_text(other.text, "utf-8")
            read_trace(tmp_path / "links.csv")
    path = tmp_path / fence.text.split("\n")[0].removeprefix("# ")
    path.write_text(fence.text, "utf-8")
    if "\nmeasure: " in fence.text:
        assert load_sweep(str(path)).cases
        return
    scenario = load(path)
    assert scenario.name == path.stem or page == TUTORIAL
    assert make_plan(scenario).fits


def test_every_yaml_block_is_a_file() -> None:
    for page in PAGES:
        assert all(fence.text.startswith("# ") for fence in fences(page) if fence.language == "yaml"), page


OUTPUTS = [fence for page in PAGES for fence in fences(page) if fence.marker.startswith("output of: ")]


@pytest.mark.parametrize("fence", OUTPUTS, ids=lambda fence: fence.marker)
def test_quoted_output_is_what_is_printed(fence: Fence) -> None:
    command = [sys.executable, "-m", *shlex.split(fence.marker.removeprefix("output of: "))]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout + done.stderr == fence.text


@pytest.fixture(name="followed", scope="module")
def _followed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which somebody has followed the tutorial, with shorter runs."""
    folder = tmp_path_factory.mktemp("tutorial")
    for page, fence in FILES:
        if page == TUTORIAL:
            (folder / fence.text.split("\n")[0].removeprefix("# ")).write_text(fence.text, "utf-8")
    with chdir(folder):
        for line in lines(TUTORIAL, "run in tests"):
            _, *arguments = shlex.split(line)
            if arguments[0] == "run":
                arguments += [word for value in SHORT for word in ("--set", value)]
            done = CliRunner().invoke(app, arguments)
            assert done.exit_code == 0, f"{line}: {done.output} {done.exception!r}"
    return folder


def test_the_tutorial_can_be_followed(followed: Path) -> None:
    summaries = {path.parent.name: json.loads(path.read_text("utf-8")) for path in followed.glob("runs/*/summary.json")}
    assert set(summaries) == {"first", "slow", "wider"}
    mfu = {name: summary["mfu"]["in_phase"] for name, summary in summaries.items()}
    assert mfu["slow"] < mfu["first"] < mfu["wider"]
    idle = {row["cause"]: row["fraction"] for row in summaries["first"]["waterfall"]}
    wider = {row["cause"]: row["fraction"] for row in summaries["wider"]["waterfall"]}
    assert idle["window"] > 0.1 > wider["window"]
    for name in (
        "report.html",
        "summary.json",
        "resolved.yaml",
        "steps.csv",
        "timeline.csv",
        "stages.csv",
        "peers.csv",
    ):
        assert (followed / "runs/first" / name).is_file()


def keys(value: Any, key: str = "") -> Iterator[str]:
    """Dotted keys of a summary; `[]` stands for the entries of a list."""
    if isinstance(value, Mapping) and value:
        for name, inside in value.items():
            yield from keys(inside, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list) and value:
        for inside in value:
            yield from keys(inside, f"{key}[]")
    elif value not in ([], {}):
        yield key


@pytest.fixture(name="reference")
def _reference(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(DOCS)
    import generate_reference

    return generate_reference


def test_the_reference_is_up_to_date(reference: Any) -> None:
    assert (DOCS / "reference.md").read_text("utf-8") == reference.page(), "run: python docs/generate_reference.py"


def test_the_reference_has_every_key_of_a_summary(reference: Any, followed: Path) -> None:
    described = [key for key, _, _ in reference.words.SUMMARY]
    patterns = [re.compile(re.escape(key).replace(r"\*", ".+")) for key in described]
    summary = json.loads((followed / "runs/first/summary.json").read_text("utf-8"))
    found = set(keys(summary))
    assert [key for key in sorted(found) if not any(p.fullmatch(key) for p in patterns)] == []
    # Not in a short queue-driven run without published figures, samples and curve.
    absent = (
        "schedule.",
        "published[]",
        "contradictions[]",
        "datacenter.published[]",
        "bands",
        "curve_needed[]",
        "faults[]",
        "recovery.drops_by_peer",
    )
    missing = [key for key, p in zip(described, patterns, strict=True) if not any(p.fullmatch(k) for k in found)]
    assert [
        key
        for key in missing
        if not key.startswith((*absent, "microbatches.dropped_by_reason", "churn.departures_by_reason"))
    ] == []


def test_the_reference_has_every_key_of_a_summarys_schedule(reference: Any) -> None:
    block = schedule_block(make_plan(load("minimal", ["pipeline.schedule={kind: 1f1b, microbatches: 4}"])))
    described = [key for key, _, _ in reference.words.SUMMARY if key.startswith("schedule.")]
    patterns = [re.compile(re.escape(key).replace(r"\*", ".+")) for key in described]
    found = set(keys({"schedule": block}))
    assert [key for key in sorted(found) if not any(p.fullmatch(key) for p in patterns)] == []
    assert [key for key, p in zip(described, patterns, strict=True) if not any(map(p.fullmatch, found))] == []


def anchors(page: Path) -> set[str]:
    heads = re.findall(r"^#+ (.*)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES, ids=names)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text("utf-8")):
        if not target.startswith("http"):
            path, _, anchor = target.partition("#")
            to = (page.parent / path).resolve() if path else page
            assert to.exists(), target
            assert not anchor or anchor in anchors(to), target


@pytest.mark.parametrize("page", PAGES, ids=names)
def test_cited_code_exists(page: Path) -> None:
    folders = "orionbed|sim|emulator|real|reports|scenarios|tests|docs|benchmarks"
    for path, name in re.findall(rf"`((?:{folders})/[\w/.-]*)(?::(\w+))?`", page.read_text("utf-8")):
        assert (ROOT / path).exists(), path
        if name:
            defined = rf"^ *(?:def|class) {name}\b|^{name}\b"
            assert re.search(defined, (ROOT / path).read_text("utf-8"), re.MULTILINE), f"{path}:{name}"


@pytest.mark.parametrize("page", [DOCS / "model.md", DOCS / "how-to/read-the-waterfall.md"], ids=names)
def test_every_cause_is_explained(page: Path) -> None:
    text = page.read_text("utf-8")
    assert [cause for cause in CAUSE_LABELS if f"`{cause}`" not in text] == []


def test_the_table_of_schedules_is_what_they_take() -> None:
    text = (DOCS / "how-to/choose-a-schedule.md").read_text("utf-8")
    rows = re.findall(r"^\| `([\w-]+)`(, split backward)? \| ([\d. |]+) \|$", text, re.MULTILINE)
    assert {name for name, _, _ in rows} == set(ENTRIES)
    for name, splits, cells in rows:
        *seconds, held = map(float, cells.split(" | "))
        chunks = ENTRIES[name].chunks or 2
        times = equal_times(8 * chunks, *(1.0 / chunks,) * 3)
        for hop_s, step_s in zip((0.0, 0.1, 0.5, 2.0), seconds, strict=True):
            order = ENTRIES[name].make(Wanted(8, 32, times, Hops(hop_s), splits=bool(splits)))
            assert time_order(order, times, Hops(hop_s)).makespan_s == pytest.approx(step_s, abs=0.051), name
            assert hop_s != 0.5 or max(peak_activations(order)) == pytest.approx(held), name


@pytest.fixture(name="orion", scope="module")
def _orion() -> Plan:
    return make_plan(load("orion-100b"))


def test_figures_of_the_model_are_those_of_the_code(orion: Plan) -> None:
    text = " ".join((DOCS / "model.md").read_text("utf-8").split())
    middle = orion.stages[1]
    forward, backward = middle.costs["F"], middle.costs["B"]
    seconds = forward.duration_s + backward.duration_s
    executed = (forward.executed_flops + backward.executed_flops) / orion.gpu.peak
    overhead_s = 2 * orion.scenario.peers.overhead
    attention = orion.attention_flops_per_microbatch / orion.useful_flops_per_microbatch
    one_stream_bps = orion.scenario.network.transport.window * 8 / (2 * 0.033)
    busy = waterfall.busy_s_per_microbatch(orion)
    for figure in (
        f"{orion.num_parameters:,}",
        f"{orion.boundary_bytes_uncompressed:,}",
        f"{orion.boundary_bytes:,}",
        f"{attention:.2%}".replace("%", " %"),
        f"{middle.memory.states_bytes / 1e9:.1f} GB of states",
        f"{max(s.memory.total_bytes for s in orion.stages) / 1e9:.1f} of {orion.gpu.memory / 1e9:.0f} GB",
        f"busy for {seconds:.2f} s: {forward.duration_s:.2f} s forward, {backward.duration_s:.2f} s backward",
        f"executes {executed / seconds:.1%} of peak, {executed / (seconds - overhead_s):.1%} without".replace(
            "%", " %"
        ),
        f"at most {one_stream_bps / 1e6:.0f} Mbit/s",
        f"stages add up to {sum(stage.microbatch_s for stage in orion.stages):.0f} s",
        f"holds about {sum(stage.microbatch_s for stage in orion.stages) / busy.max():.0f} micro-batches",
        f"W = {middle.weight_bytes / 1e9:.2f} GB",
    ):
        assert figure in text
