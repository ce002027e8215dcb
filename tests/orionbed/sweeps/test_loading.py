"""Reading sweeps: cases, axes, and everything that can be wrong with them before anything runs."""

from pathlib import Path

import pytest

from orionbed.scenario import ScenarioError
from orionbed.sweeps.loading import Loaded, load_sweep, names

GOOD = """\
scenario: minimal
set: {run.duration: 1 min, merge: none}
vary:
  pipeline.schedule.window: [8, 2]
  network.uplink.median: [50 Mbps, 1 Gbps]
seeds: 2
measure: [mfu.in_phase, waterfall.window]
"""


@pytest.fixture
def read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)

    def load(text: str, *sets: str, seeds: int | None = None) -> Loaded:
        (tmp_path / "mine.yaml").write_text(text)
        return load_sweep("mine", sets, seeds)

    return load


def refused(read, text: str, *sets: str) -> list[str]:
    with pytest.raises(ScenarioError) as caught:
        read(text, *sets)
    return str(caught.value).splitlines()


def test_two_keys_give_every_combination(read) -> None:
    sweep = read(GOOD)
    assert [case.labels for case in sweep.cases] == [
        ("8", "50 Mbps"), ("8", "1 Gbps"), ("2", "50 Mbps"), ("2", "1 Gbps"),
    ]  # fmt: skip
    last = sweep.cases[-1].scenario
    assert (last.pipeline.schedule.window, last.network.uplink.median, last.run.duration) == (2, 1e9, 60.0)
    assert [axis.numbers for axis in sweep.axes] == [(8.0, 2.0), (5e7, 1e9)]
    assert (sweep.name, sweep.scenario, sweep.seeds) == ("mine", "minimal", (0, 1))
    assert sweep.measures == ("mfu.in_phase", "waterfall.window")


def test_cases_change_several_keys_at_once(read) -> None:
    text = """\
scenario: minimal
axis: replicas
cases:
  2: {pipeline.replicas: 2, peers.sites: {virginia: 4, oregon: 4}}
  3: {pipeline.replicas: 3, peers.sites: {virginia: 6, oregon: 6}}
vary: {pipeline.schedule.router: [swarm, replica]}
measure: [mfu.in_phase]
"""
    sweep = read(text)
    assert [case.labels for case in sweep.cases] == [("2", "swarm"), ("2", "replica"), ("3", "swarm"), ("3", "replica")]
    assert [case.scenario.pipeline.replicas for case in sweep.cases] == [2, 2, 3, 3]
    assert [(axis.name, axis.numbers) for axis in sweep.axes] == [
        ("replicas", (2.0, 3.0)), ("pipeline.schedule.router", None),
    ]  # fmt: skip
    assert len(sweep.seeds) == 3


def test_the_command_line_comes_last(read) -> None:
    sweep = read(GOOD, "run.duration=2 min", "cost.gpu_hour=$3/h", seeds=4)
    assert {case.scenario.run.duration for case in sweep.cases} == {120.0}
    assert sweep.cases[0].scenario.cost.gpu_hour == 3.0
    assert sweep.seeds == (0, 1, 2, 3)


def test_a_sweep_finds_its_scenario_beside_itself(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text("extends: minimal\nname: own\nbatch: {sequences: 4}\n")
    (tmp_path / "mine.yaml").write_text(GOOD.replace("scenario: minimal", "scenario: own"))
    assert load_sweep(str(tmp_path / "mine.yaml")).scenario == "own"


@pytest.mark.parametrize("name", names())
def test_every_packaged_sweep_loads_and_fits(name: str) -> None:
    sweep = load_sweep(name)
    assert sweep.title
    assert not any(case.misfit for case in sweep.cases)
    assert not sweep.baseline
    assert len(sweep.seeds) >= 3
    assert all(case.scenario.run.tokens is None for case in sweep.cases)


def test_a_wrong_key_is_named_with_its_line(read) -> None:
    lines = refused(read, GOOD.replace("schedule.window", "schedule.windw"))
    assert lines == ["mine.yaml:4:3: vary.pipeline.schedule.windw: unknown key; did you mean window?"]


def test_a_wrong_value_is_named_with_its_place(read) -> None:
    lines = refused(read, GOOD.replace("[8, 2]", "[8, 0]").replace("50 Mbps", "50"))
    assert lines[0].startswith("mine.yaml:4:33: vary.pipeline.schedule.window.1: must be greater than 0, not 0")
    assert lines[1].startswith("mine.yaml:5:27: vary.network.uplink.median.0: 50 has no unit")
    assert len(lines) == 2


def test_what_does_not_go_together_is_named_at_the_case(read) -> None:
    text = "scenario: minimal\nvary:\n  pipeline.replicas: [2, 3]\nmeasure: [mfu.in_phase]\n"
    (line,) = refused(read, text)
    assert line.startswith("mine.yaml:3:26: vary.pipeline.replicas.1: would make peers.sites wrong: add up to 8 peers")


def test_what_the_command_line_sets_wrongly_is_named(read) -> None:
    (line,) = refused(read, GOOD, "run.durations=1 min")
    assert line == "--set run.durations=1 min: set.run.durations: unknown key; did you mean duration?"
    assert refused(read, GOOD, "nothing") == [
        "--set nothing: write --set key=value, like --set 'run.duration=1 h'"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (("mfu.in_phase", "mfu.in_phas"), "7:11: measure.0: no number of a run is called mfu.in_phas; did you mean"),
        (("mfu.in_phase", "scenario"), "7:11: measure.0: no number of a run is called scenario"),
        (("waterfall.window", "mfu.in_phase"), "7:25: measure.1: mfu.in_phase is there twice"),
        (("seeds: 2", "seeds: 0"), "6:8: seeds: must be greater than 0"),
        (("seeds: 2", "sedes: 2"), "6:1: sedes: unknown key; did you mean seeds?"),
        (("[8, 2]", "[8, 8]"), "4:33: vary.pipeline.schedule.window.1: 8 is there twice; remove one"),
        (("[8, 2]", "[]"), "4:29: vary.pipeline.schedule.window: must not be empty"),
        (("run.duration: 1 min", "run.seed: 1"), "2:7: set.run.seed: cannot be changed here: every case gets the same"),
        (("merge: none", "network.uplink.median: 1 Gbps"), "2:28: set.network.uplink.median: is varied too"),
        (("seeds: 2", "axis: x"), "6:7: axis: says what `cases` are called, and there are none"),
        (("scenario: minimal", "scenario: minimle"), "1:11: scenario: minimle: no such file, nor a packaged"),
    ],
)  # fmt: skip
def test_what_can_be_wrong(read, change: tuple[str, str], line: str) -> None:
    assert any(found.startswith(f"mine.yaml:{line}") for found in refused(read, GOOD.replace(*change)))


def test_something_must_vary(read) -> None:
    text = "scenario: minimal\nmeasure: [mfu.in_phase]\n"
    assert refused(read, text) == [
        "mine.yaml:1:1: vary: is missing; say what to vary, `vary: {key: [values]}`, or name `cases`"
    ]
    three = GOOD.replace("vary:\n", "vary:\n  merge.every: [1 h, 2 h]\n")
    assert refused(read, three)[0].startswith("mine.yaml:3:1: vary: has 3 keys; vary at most 2, and name")


def test_an_unknown_sweep_is_named() -> None:
    with pytest.raises(
        ScenarioError, match="orion-windw: no such file, nor a packaged sweep; did you mean orion-window"
    ):
        load_sweep("orion-windw")


def test_a_case_that_does_not_fit_says_why(read) -> None:
    sweep = read(GOOD.replace("pipeline.schedule.window: [8, 2]", "batch.sequences: [16, 4096]"))
    fits, too_large = sweep.cases[0].misfit, sweep.cases[-1].misfit
    assert fits == ""
    assert too_large.startswith("stage ")
    assert "of the 80 GB of a100-80gb" in too_large


def test_the_datacenter_is_simulated_only_when_a_measure_needs_it(read) -> None:
    assert not read(GOOD).baseline
    assert read(GOOD.replace("waterfall.window", "datacenter.relative_speed")).baseline
