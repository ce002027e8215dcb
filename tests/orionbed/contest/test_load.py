"""Contest files: the packaged one, mistakes with their places, and files of the other kind."""

import pickle
import re

import pytest

from orionbed.contest.load import load_contest
from orionbed.contest.schema import Contest
from orionbed.scenario import ScenarioError, load
from orionbed.scenario.keys import all_keys
from orionbed.scenario.packaged import CONTESTS, FOLDER, names, scenarios
from orionbed.scenario.tree import prefixes


def refused(call, *args) -> str:
    with pytest.raises(ScenarioError) as error:
        call(*args)
    return str(error.value)


@pytest.mark.parametrize("name", CONTESTS)
def test_every_packaged_contest_loads_and_gives_its_sources(name: str) -> None:
    contest = load_contest(name)
    assert contest == load_contest(FOLDER / f"{name}.yaml") == load_contest(f"scenarios/{name}.yaml")
    assert contest.name == name
    assert name in names()
    assert name not in scenarios()
    for key in all_keys(contest):
        if key.startswith(("miners.", "network.", "epochs.", "router.")) and not list(all_keys_below(contest, key)):
            assert not {*prefixes(key)}.isdisjoint(contest.provenance), key


def all_keys_below(contest: Contest, key: str):
    return (other for other in all_keys(contest) if other.startswith(f"{key}."))


def test_the_packaged_contest_has_the_published_layout() -> None:
    contest = load_contest("apex-routing")
    assert (contest.miners.count, contest.miners.layers.least, contest.miners.layers.most) == (96, 3, 8)
    assert {name: kind.share for name, kind in contest.miners.classes.items()} == {
        "reliable": 0.75, "semi": 0.15, "unreliable": 0.1
    }  # fmt: skip
    assert contest.miners.cache == 5
    assert (contest.epochs.count, contest.epochs.activations) == (5, 500)
    assert (contest.epochs.merge, contest.epochs.staleness, contest.router.route_timeout) == (30.0, 60.0, 0.5)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("count: 6", "count: 1", "tiny.yaml:4:10: miners.count: 1 miners cannot serve 2 layers; give at least as many"),
        ("share: 100 %", "share: 90 %", "tiny.yaml:6:3: miners.classes: the shares add up to 0.9, not to 1"),
        ("least: 2", "least: 3", "tiny.yaml:5:19: miners.layers.least: is above `most`; exchange the two"),
        ("activation: 1 MB", "activation: 1e6", "network.activation: 1000000.0 has no unit"),
        ("backward: 2", "backwrd: 2", "tiny.yaml:8:3: miners.backwrd: unknown key; did you mean backward?"),
        ("join: 1}", "join: 0}", "miners.classes.steady.join: must be greater than 0, not 0"),
        ("bandwidth: 100 Mbps", "bandwidth: 0 Mbps", "network.bandwidth: may be 0; nothing would ever arrive"),
        ("dist: lognormal, median: 1 s, sigma: 0.5", "dist: uniform, low: 0 s, high: 1 s", "miners.forward: may be 0"),
        ("in_flight: 8", "notice: 10 ms, in_flight: 8", "epochs.notice: must be at least 1, not '10 ms'"),
        ("kind: routing-contest", "kind: race", "tiny.yaml:1:7: kind: must be routing-contest, not 'race'"),
        ("kind: routing-contest\n", "", "tiny.yaml:1:1: kind: is missing; add `kind`"),
        ("miners: \"assumed", "minrs: \"assumed", "provenance.minrs: the contest has no key minrs; did you mean "),
        ("assumed: small", "guess: small", "provenance.miners: must be `kind: source` with a kind of published, "),
    ],
)  # fmt: skip
def test_mistakes_are_told_with_their_place(tiny, old: str, new: str, said: str) -> None:
    text = tiny.read_text("utf-8")
    assert old in text
    tiny.write_text(text.replace(old, new), encoding="utf-8")
    found = refused(load_contest, tiny)
    assert said in found
    assert all(re.match(r".*tiny\.yaml:\d+:\d+: ", line) for line in found.splitlines())


def test_set_and_extends_work_as_for_scenarios(tiny) -> None:
    contest = load_contest(tiny, ["epochs.in_flight=5", "miners.forward=2 s"])
    assert (contest.epochs.in_flight, contest.miners.forward.median) == (5, 2.0)
    assert contest.provenance["epochs.in_flight"] == "assumed: set on the command line"
    child = tiny.with_name("child.yaml")
    child.write_text("extends: tiny.yaml\nname: child\nminers: {cache: 3}\n", encoding="utf-8")
    assert (load_contest(child).miners.cache, load_contest(child).miners.count) == (3, 6)
    assert "--set epochs.in_flight=x: epochs.in_flight: must be a whole number" in refused(
        load_contest, tiny, ["epochs.in_flight=x"]
    )


def test_the_wrong_command_says_which_is_right(tiny) -> None:
    said = refused(load, tiny)
    assert said == f"{tiny}:1:1: is a routing contest and no scenario; run it with `orionbed contest {tiny}`"
    assert refused(load, "apex-routing").endswith("run it with `orionbed contest apex-routing`")
    said = refused(load_contest, "minimal")
    assert said.startswith("scenarios/minimal.yaml:")
    assert said.endswith("is a scenario and no contest; run it with `orionbed run minimal`")
    assert refused(load_contest, "orion-15b").endswith("run it with `orionbed run orion-15b`")
    assert "did you mean apex-routing?" in refused(load_contest, "apex-ruting")


def test_a_contest_travels_between_processes(tiny) -> None:
    contest = load_contest(tiny)
    assert pickle.loads(pickle.dumps(contest)) == contest
