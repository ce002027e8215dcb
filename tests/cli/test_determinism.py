"""The same seed gives the same run to the byte, in whatever process; another seed gives another."""

import json
from pathlib import Path

WALL_CLOCK = {"started_at", "wall_s", "git"}
TABLES = ("steps.csv", "timeline.csv", "marks.csv", "stages.csv", "peers.csv", "resolved.yaml", "warnings.json")
CHURN = "churn={up: {dist: exponential, mean: 5 min}, down: 20 s}"  # more chance to differ
ARGUMENTS = ("run", "tiny.yaml", "--set", CHURN, "--set", "network.variability=cloud", "--set", "run.trace=full")


def timeless(folder: Path) -> str:
    """The text of summary.json without what the wall clock and the checkout put into it."""
    summary = json.loads((folder / "summary.json").read_text())
    for key in WALL_CLOCK:
        del summary[key]
    del summary["engine"]["events_per_s"]
    return json.dumps(summary, indent=2)


def test_the_same_seed_gives_the_same_bytes(orionbed, terminal) -> None:
    other = terminal.start(*ARGUMENTS, "--out", "other", "--jobs", "1")
    assert orionbed(*ARGUMENTS, "--out", "one", "--jobs", "2").code == 0
    assert orionbed(*ARGUMENTS, "--out", "two").code == 0
    _, err = other.communicate(timeout=60)
    assert (other.returncode, err) == (0, "")
    one, two, third = (terminal.folder / name for name in ("one", "two", "other"))
    assert timeless(one) == timeless(two) == timeless(third)
    for name in (*TABLES, "trace.npz"):
        assert (one / name).read_bytes() == (two / name).read_bytes() == (third / name).read_bytes(), name
    # What is left out does differ or may; everything else is compared.
    names = {path.name for path in one.iterdir()}
    assert names == {
        *TABLES,
        "trace.npz",
        "summary.json",
        "manifest.json",
        "log.txt",
        "scenario.yaml",
        "report.html",
    } - {"report.html" if not (one / "report.html").exists() else ""}


def test_another_seed_gives_another_run(orionbed, terminal) -> None:
    summaries = []
    for seed in (0, 1):
        assert orionbed(*ARGUMENTS, "--seed", seed, "--out", f"seed{seed}").code == 0
        summaries.append(json.loads((terminal.folder / f"seed{seed}" / "summary.json").read_text()))
    assert [summary["seed"] for summary in summaries] == [0, 1]
    assert summaries[0]["tokens"] != summaries[1]["tokens"]
    assert summaries[0]["waterfall"] != summaries[1]["waterfall"]


def test_the_seed_of_the_scenario_and_of_the_option_are_one(orionbed, terminal) -> None:
    orionbed("run", "tiny.yaml", "--seed", "7", "--out", "option")
    orionbed("run", "tiny.yaml", "--set", "run.seed=7", "--out", "key")
    option, key = (json.loads((terminal.folder / name / "summary.json").read_text()) for name in ("option", "key"))
    assert option["seed"] == key["seed"] == 7
    assert option["tokens"] == key["tokens"]
    assert option["waterfall"] == key["waterfall"]
