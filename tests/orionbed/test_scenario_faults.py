"""The `faults` section: what can be written, what is said about what cannot, and that it comes back as it was."""

import pickle
import re

import jsonschema
import pytest

from orionbed.scenario import ScenarioError, apply, assumptions, json_schema, load, to_yaml
from orionbed.scenario.fault_fields import Change, Instant, peer_name
from orionbed.scenario.faults import Faults, Restart
from orionbed.scenario.keys import all_keys, look_up
from orionbed.scenario.packaged import FOLDER
from orionbed.scenario.yaml_file import read_file, read_text

ALL = """\
extends: minimal
name: faulty
faults:
  seed: 7
  list:
    - {id: k1, at: 120s, kind: crash, target: "peer:s03r1", restart: {after: 45s, state: disk}}
    - {id: k2, at: 2 min, kind: crash, target: "*"}
    - {id: p1, at: 200s, for: 20s, kind: pause, target: {pick: one, of: "stage:2"}}
    - {id: p2, at: 200s, kind: pause, target: {pick: 3, of: "replica:0"}}
    - {id: p3, at: 200s, kind: pause, target: {pick: 29%, of: "site:oregon"}}
    - {id: p4, at: 200s, kind: pause, target: {pick: all, of: "*"}}
    - {id: s1, at: 300s, for: 5min, kind: slow, target: "peer:s02r0", compute_factor: 3.0}
    - {id: l1, at: 400s, for: 2min, kind: link, from: "site:oregon", to: "site:virginia", capacity: 0.1x, owd: +20ms,
       jitter_sd: 2ms, loss: 1e-3}
    - {id: l2, at: 400s, for: 2min, kind: link, from: "stage:0", to: "*", capacity: 5 Mbps, owd: 80 ms}
    - {id: n1, at: 600s, for: 30s, kind: partition, groups: [["site:oregon"], ["*"]], direction: to, mode: reset}
    - {id: n2, at: 600s, kind: partition, groups: [["peer:s00r0", "peer:s01r0"], ["replica:1"], ["*"]]}
    - {id: c1, at: 700s, for: 1min, kind: corrupt, from: "peer:s02r0", to: "*", per_chunk: 1e-4}
    - {id: t1, at: 800s, for: 1min, kind: clock, target: "peer:s01r1", offset: -500ms, drift_ppm: -50}
    - {id: f1, at: 900s, for: 1min, kind: flap, from: "peer:s01r0", to: "*", period: 2s, duty: 0.5}
    - {id: u1, from: 0s, to: 4h, kind: churn, rate_per_peer_hour: 0.1,
       restart: {after: {dist: lognormal, median: 60s, sigma: 1}}, max_down: 3}
    - {id: u2, to: 1h, kind: churn, rate_per_peer_hour: 2}
  heal_at: end-60s
"""


def scenario_with(tmp_path, text):
    path = tmp_path / "s.yaml"
    path.write_text(text, encoding="utf-8")
    return load(path)


@pytest.fixture(name="faulty")
def _faulty(tmp_path):
    return scenario_with(tmp_path, ALL)


def problems_of(tmp_path, faults):
    """Problems of one list item per line, from line 4 on."""
    lines = faults if isinstance(faults, str) else "faults:\n" + "".join(f"  - {{{line}}}\n" for line in faults)
    path = tmp_path / "s.yaml"
    path.write_text(f"extends: minimal\nname: wrong\n{lines}", encoding="utf-8")
    with pytest.raises(ScenarioError) as error:
        load(path)
    return [str(problem).removeprefix(f"{path}:") for problem in error.value.problems]


def test_every_kind_is_read(faulty):
    found = {fault.id: fault for fault in faulty.faults.list}
    assert faulty.faults.seed == 7
    assert faulty.faults.heal_at == Instant(60.0, before_end=True)
    assert found["k1"].restart.after.median == 45.0
    assert found["k1"].restart.state == "disk"
    assert found["k2"].restart == "none"
    assert [found[name].target.pick for name in ("p1", "p2", "p3", "p4")] == ["one", 3, 0.29, "all"]
    assert found["p2"].lasts is None
    assert found["s1"].lasts == 300.0
    assert (found["l1"].capacity, found["l1"].owd) == (Change("times", 0.1), Change("plus", 0.020))
    assert (found["l2"].capacity, found["l2"].owd) == (Change("set", 5e6), Change("set", 0.080))
    assert (found["l1"].senders, found["l1"].receivers) == ("site:oregon", "site:virginia")
    assert found["n2"].groups == (("peer:s00r0", "peer:s01r0"), ("replica:1",), ("*",))
    assert (found["n2"].direction, found["n2"].mode) == ("both", "blackhole")
    assert (found["t1"].offset, found["t1"].drift_ppm) == (-0.5, -50.0)
    assert (found["u1"].begins, found["u1"].ends, found["u1"].max_down) == (0.0, 4 * 3600.0, 3)


def test_a_scenario_with_faults_comes_back_as_it_was(faulty, tmp_path):
    assert scenario_with(tmp_path, to_yaml(faulty)) == faulty
    assert pickle.loads(pickle.dumps(faulty)) == faulty
    assert apply(faulty, {"run.seed": 3}).faults == faulty.faults


@pytest.mark.parametrize("text", [ALL, ALL.replace("heal_at: end-60s", "heal_at: 90 min"), "faults: []"])
def test_what_is_written_follows_the_json_schema(faulty, tmp_path, text):
    validator = jsonschema.Draft202012Validator(json_schema())
    text = text if "extends" in text else f"extends: minimal\n{text}\n"
    validator.validate(read_text(text, "s").plain())
    validator.validate(read_text(to_yaml(scenario_with(tmp_path, text)), "s").plain())


@pytest.mark.parametrize("wrong", [{"id": "k1"}, "none", {"list": [{"id": "x", "kind": "crash", "at": "1 s"}]}])
def test_wrong_faults_do_not_follow_it(wrong):
    validator = jsonschema.Draft202012Validator(json_schema())
    minimal = read_file(FOLDER / "minimal.yaml").plain()
    assert validator.is_valid(minimal)
    assert not validator.is_valid({**minimal, "faults": wrong})


def test_a_list_is_the_block_with_only_a_list(tmp_path):
    line = '{id: k1, at: 1 s, kind: crash, target: "*"}'
    listed = scenario_with(tmp_path, f"extends: minimal\nfaults: [{line}]\n")
    block = scenario_with(tmp_path, f"extends: minimal\nfaults: {{list: [{line}]}}\n")
    assert listed.faults == block.faults
    assert (listed.faults.seed, listed.faults.heal_at) == (None, None)


def test_no_faults_are_the_default(tmp_path):
    assert load("minimal").faults == Faults() == scenario_with(tmp_path, "extends: minimal\nfaults: []\n").faults


@pytest.mark.parametrize(
    ("written", "instant", "printed"),
    [
        ("end", Instant(0.0, before_end=True), "end"),
        ("end - 1 min", Instant(60.0, before_end=True), "end-1 min"),
        ("2 h", Instant(7200.0), "2 h"),
        ("0 s", Instant(0.0), "0 s"),
    ],
)
def test_times_of_healing(tmp_path, written, instant, printed):
    scenario = scenario_with(tmp_path, f"extends: minimal\nfaults: {{heal_at: {written}}}\n")
    assert scenario.faults.heal_at == instant
    assert scenario.model_dump(mode="json")["faults"]["heal_at"] == printed


def test_keys_are_those_of_the_file(faulty):
    keys = [key for key in all_keys(faulty) if key.startswith("faults.list.7.")]
    assert {"faults.list.7.from", "faults.list.7.to", "faults.list.7.for"} <= set(keys)
    assert look_up(faulty, "faults.list.7.from")[0] == "site:oregon"
    with pytest.raises(KeyError, match="senders"):
        look_up(faulty, "faults.list.7.senders")


def test_figures_of_faults_may_be_set_and_drawn(tmp_path):
    text = f"{ALL}uncertain:\n  faults.list.6.compute_factor: {{dist: uniform, low: 2, high: 4}}\n"
    faulty = scenario_with(tmp_path, text)
    assert load(tmp_path / "s.yaml", ["faults.list.6.at=10 s"]).faults.list[6].at == 10.0
    assert apply(faulty, {"faults.list.6.compute_factor": 2.5}).faults.list[6].compute_factor == 2.5


def test_faults_are_among_the_assumptions(faulty):
    rows = {row["key"]: row["value"] for row in assumptions(faulty)}
    assert rows["faults.list.7.from"] == "site:oregon"
    assert rows["faults.heal_at"] == "end-1 min"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("id: K 1, at: 1 s, kind: crash, target: '*'", "4:10: faults.0.id: must be made of small letters"),
        ("id: k, at: 1, kind: crash, target: '*'", "4:17: faults.0.at: 1 has no unit; write one of ns,"),
        ("id: k, at: 5m, kind: crash, target: '*'", "4:17: faults.0.at: unknown unit 'm'; write min for minutes"),
        ("id: k, at: 1 s, kind: crsh, target: '*'", "4:28: faults.0.kind: did you mean crash?"),
        ("id: k, at: 1 s, target: '*'", "4:5: faults.0.kind: is missing; add `kind` (crash, pause,"),
        ("id: k, at: 1 s, kind: crash", "4:5: faults.0.target: is missing; add `target` (whom it hits"),
        ("id: k, at: 1 s, kind: pause, fro: 1 s, target: '*'", "4:35: faults.0.fro: unknown key; did you mean for?"),
        ("id: k, at: 1 s, kind: crash, for: 1 s, target: '*'", "4:35: faults.0.for: unknown key"),
        ("id: k, at: 1 s, kind: crash, target: '*', duty: 1", "it belongs to kind flap, remove it or change the kind"),
        ("id: k, at: 1 s, kind: pause, for: 0 s, target: '*'", "4:40: faults.0.for: must be greater than 0"),
        (
            "id: k, at: 1 s, kind: crash, target: 'peer:s04r0'",
            "4:43: faults.0.target: there is no peer s04r0; there are",
        ),
        ("id: k, at: 1 s, kind: crash, target: 'stage:4'", "selects nobody: there is no stage 4; there are 0, 1, 2, 3"),
        ("id: k, at: 1 s, kind: crash, target: 'replica:2'", "selects nobody: there is no replica 2; there are 0, 1"),
        ("id: k, at: 1 s, kind: crash, target: 'site:orgon'", "there is no site orgon; did you mean oregon?"),
        ("id: k, at: 1 s, kind: crash, target: 'tag:fast'", "4:43: faults.0.target: scenarios have no tags"),
        ("id: k, at: 1 s, kind: crash, target: s00r0", "4:43: faults.0.target: must select peers, like peer:s03r1,"),
        ("id: k, at: 1 s, kind: crash, target: 3", "4:43: faults.0.target: must select peers, like peer:s03r1,"),
        ("id: k, at: 1 s, kind: crash, target: 'per:s00r0'", "4:43: faults.0.target: did you mean peer?"),
        ("id: k, at: 1 s, kind: crash, target: {of: '*'}", "4:35: faults.0.target.pick: is missing; add `pick`"),
        ("id: k, at: 1 s, kind: crash, target: {pick: 0, of: '*'}", "4:50: faults.0.target.pick: must be one, all,"),
        ("id: k, at: 1 s, kind: crash, target: {pick: 120 %, of: '*'}", "4:50: faults.0.target.pick: must be one,"),
        ("id: k, at: 1 s, kind: crash, target: {pick: 9, of: '*'}", "9 are more than the 8 peers of *; pick fewer"),
        ("id: k, at: 1 s, kind: crash, target: {pick: 1, of: 'stage:8'}", "4:57: faults.0.target.of: no stage 8;"),
        ("id: k, at: 1 s, kind: crash, target: '*', restart: 3 s", "4:57: faults.0.restart: must be none or a mapping"),
        ("id: k, at: 1 s, kind: crash, target: '*', restart: {after: 3}", "faults.0.restart.after: 3 has no unit"),
        ("id: k, at: 1 s, kind: slow, target: '*', compute_factor: 0", "faults.0.compute_factor: must be greater than"),
        ("id: k, at: 1 s, kind: link, from: '*', to: '*'", "4:5: faults.0: changes nothing; give capacity, owd,"),
        (
            "id: k, at: 1 s, kind: link, from: '*', capacity: 1x",
            "4:5: faults.0.to: is missing; add `to` (on the way to",
        ),
        ("id: k, at: 1 s, kind: link, from: '*', to: '*', capacity: 0x", "use kind partition to cut a link"),
        (
            "id: k, at: 1 s, kind: link, from: '*', to: '*', capacity: 3",
            "must be a data rate like 856 Mbps, or a factor",
        ),
        ("id: k, at: 1 s, kind: link, from: '*', to: '*', owd: 0.1x", "unknown unit 'x'"),
        ("id: k, at: 1 s, kind: link, from: '*', to: '*', owd: -1 ms", "faults.0.owd: must be at least 0, not '-1 ms'"),
        ("id: k, at: 1 s, kind: link, from: '*', to: '*', loss: 2", "faults.0.loss: must be at most 1, not 2"),
        (
            "id: k, at: 1 s, kind: link, from: 'peer:s00r0', to: 'peer:s00r0', capacity: 1x",
            "4:58: faults.0.to: is the peer of `from` itself",
        ),
        (
            "id: k, at: 1 s, kind: partition, groups: [['*']]",
            "4:47: faults.0.groups: is one group only; add the others",
        ),
        ("id: k, at: 1 s, kind: partition, groups: [[], ['*']]", "4:48: faults.0.groups.0: must not be empty"),
        ("id: k, at: 1 s, kind: partition, groups: [['site:x'], ['*']]", "4:49: faults.0.groups.0.0: selects nobody:"),
        (
            "id: k, at: 1 s, kind: partition, groups: ['*', ['*']]",
            "4:48: faults.0.groups.0: must be a list like [a, b]",
        ),
        (
            "id: k, at: 1 s, kind: partition, groups: [['stage:0'], ['*']], direction: up",
            "4:80: faults.0.direction: must be to, from or both, not 'up'",
        ),
        ("id: k, at: 1 s, kind: corrupt, from: '*', to: '*', per_chunk: 0", "must be greater than 0, not 0"),
        ("id: k, at: 1 s, kind: clock, target: '*'", "4:5: faults.0: changes nothing; give offset or drift_ppm"),
        ("id: k, at: 1 s, kind: clock, target: '*', offset: 1", "4:56: faults.0.offset: 1 has no unit"),
        (
            "id: k, at: 1 s, kind: flap, from: '*', to: '*', period: 1 s, duty: 0.5",
            "faults.0.for: is missing; add `for`",
        ),
        (
            "id: k, at: 1 s, for: 1 s, kind: flap, from: '*', to: '*', period: 1 s, duty: 1",
            "must be less than 1, not 1",
        ),
        ("id: k, from: 2 h, to: 1 h, kind: churn, rate_per_peer_hour: 1", "4:28: faults.0.to: is not after `from`"),
        ("id: k, to: 1 h, kind: churn, rate_per_peer_hour: 0", "faults.0.rate_per_peer_hour: must be greater than 0"),
        ("id: k, to: '*', kind: churn, rate_per_peer_hour: 1", "4:17: faults.0.to: '*' is not a duration"),
        ("id: k, at: 1 s, to: 1 h, kind: churn, rate_per_peer_hour: 1", "4:13: faults.0.at: unknown key"),
        ("id: k, at: 3 h, kind: crash, target: '*', restart: {after: lognormal}", "'lognormal' is not a duration"),
    ],
)
def test_problems_have_their_place(tmp_path, line, expected):
    [problem] = problems_of(tmp_path, [line])
    where, said = re.fullmatch(r"((?:\d+:\d+: faults[^ ]*: )?)(.*)", expected).groups()
    assert problem.startswith(where)
    assert said in problem


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("faults: none", "3:9: faults: must be a list of faults like [{id: k1, ...}], or a block, not 'none'"),
        ("faults: {seed: -1}", "3:16: faults.seed: must be at least 0, not -1"),
        ("faults: {sed: 1}", "3:10: faults.sed: unknown key; did you mean seed?"),
        ("faults: {list: 3}", "3:16: faults.list: must be a list like [a, b], not 3"),
        ("faults: {heal_at: 60}", "3:19: faults.heal_at: must be a time of the run like 2 h, or end-60s, not 60"),
        ("faults: {heal_at: end-60}", "3:19: faults.heal_at: 60 has no unit"),
        ("faults: {heal_at: end--1 s}", "3:19: faults.heal_at: must be at least 0, not 'end--1 s'"),
    ],
)
def test_problems_of_the_block(tmp_path, text, expected):
    [problem] = problems_of(tmp_path, text)
    assert problem.startswith(expected)


def test_everything_that_is_wrong_comes_at_once(tmp_path):
    found = problems_of(
        tmp_path,
        [
            "id: k1, at: 1 s, kind: crash, target: 'peer:s09r0', restart: {aftr: 1 s}",
            "id: k1, at: 1 s, kind: pause, fr: 3 s, target: {pick: 3, of: 'stage:1'}",
            "id: l1, at: 1 s, kind: link, from: 'site:ohio', to: 'replica:7', loss: 3",
            "id: l1, at: 1 s, kind: link, from: 'stage:0', to: 'stage:1'",
        ],
    )
    assert [problem.partition(": ")[0] + problem.partition(": ")[2].partition(":")[0] for problem in found] == [
        "4:44faults.0.target",
        "4:68faults.0.restart.aftr",
        "5:10faults.1.id",
        "5:36faults.1.fr",
        "5:60faults.1.target.pick",
        "6:41faults.2.from",
        "6:58faults.2.to",
        "6:77faults.2.loss",
        "7:5faults.3",
        "7:10faults.3.id",
    ]


@pytest.mark.parametrize(
    "name", ["s00r2", "s0r0", "s000r0", "s00r00", "s04r0", "sxr0", "s00r0 ", "s99999999999999999999r0"]
)
def test_names_that_are_no_peers(tmp_path, name):
    [problem] = problems_of(tmp_path, [f"id: k, at: 1 s, kind: crash, target: 'peer:{name}'"])
    assert f"selects nobody: there is no peer {name}; there are s00r0, s00r1," in problem


@pytest.mark.parametrize(
    ("selector", "said"),
    [
        ("stage:16", "there is no stage 16; they go from 0 to 15"),
        ("stage:01", "there is no stage 01; they go from 0 to 15"),
        ("peer:s16r0", "there is no peer s16r0; they go from s00r0 to s15r2"),
        ("replica:3", "there is no replica 3; there are 0, 1, 2"),
    ],
)
def test_of_many_only_the_first_and_the_last_are_named(tmp_path, selector, said):
    path = tmp_path / "s.yaml"
    path.write_text(
        f"extends: orion-100b\nname: x\nfaults: [{{id: k, at: 1 s, kind: crash, target: '{selector}'}}]\n",
        encoding="utf-8",
    )
    with pytest.raises(ScenarioError, match=said):
        load(path)


def test_a_pipeline_of_absurd_length_is_still_refused_at_once(tmp_path):
    path = tmp_path / "s.yaml"
    path.write_text(
        "extends: minimal\nname: x\npipeline: {stages: 1000000000000000}\n"
        "faults: [{id: k, at: 1 s, kind: crash, target: 'peer:x'}]\n",
        encoding="utf-8",
    )
    with pytest.raises(ScenarioError, match="they go from s00r0 to s999999999999999r1"):
        load(path)


def test_faults_that_begin_when_all_is_healed(tmp_path):
    text = (
        "faults:\n  heal_at: 1 h\n  list:\n"
        "    - {id: k, at: 1 h, kind: crash, target: '*'}\n"
        "    - {id: l, at: 59 min, kind: crash, target: '*'}\n"
        "    - {id: u, from: 61 min, to: 2 h, kind: churn, rate_per_peer_hour: 1}\n"
    )
    found = problems_of(tmp_path, text)
    assert found[0].startswith("6:19: faults.list.0.at: is not before faults.heal_at")
    assert found[1].startswith("8:21: faults.list.2.from: is not before faults.heal_at")
    assert len(found) == 2


def test_code_builds_faults_with_si_numbers():
    assert Restart(after=45.0).after.median == 45.0
    one = {"id": "l", "at": 1.0, "kind": "link", "from": "*", "to": "*", "capacity": 1e6, "for": 2.0}
    [fault] = Faults.model_validate({"list": [one], "heal_at": 60.0}).list
    assert (fault.capacity, fault.lasts) == (Change("set", 1e6), 2.0)


def test_peers_are_called_as_in_the_plan():
    from orionbed.plan import make_plan

    assert [peer.name for peer in make_plan(load("minimal")).peers][:3] == [
        peer_name(0, 0), peer_name(0, 1), peer_name(1, 0),
    ]  # fmt: skip
