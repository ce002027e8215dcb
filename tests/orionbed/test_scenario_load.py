"""Loading: packaged scenarios, parents, --set."""

import re

import pytest

from orionbed.scenario import ScenarioError, gpu_profile, load
from orionbed.scenario.packaged import FOLDER, names, scenarios

BASE = """\
name: base
model: {layers: 8, hidden: 512, ffn: 2048, heads: 8, kv_heads: 8, vocab: 1000}
batch: {sequence: 128, sequences: 2}
pipeline:
  stages: 2
  replicas: 2
  split: [4, 4]
  schedule: {kind: queue, window: 8, status_every: 2 s}
peers: {gpu: a100-80gb, sites: {ohio: 2, oregon: 2}}
network:
  uplink: {dist: lognormal, median: 100 Mbps, sigma: 0.3}
  downlink: {dist: lognormal, median: 200 Mbps, sigma: 0.3}
merge: {every: 20 min}
datacenter: {link: 25 GB/s, delay: 5 us}
cost: {gpu_hour: $1, egress_per_gb: $0}
run: {duration: 1 h}
provenance:
  network: "assumed: cable"
  network.uplink.median: "published: a survey"
  pipeline.schedule: "code: a repository"
uncertain:
  network.uplink.median: {dist: uniform, low: 50 Mbps, high: 150 Mbps}
  pipeline.schedule.window: {choice: [4, 8]}
  merge.every: {dist: uniform, low: 10 min, high: 30 min}
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "base.yaml").write_text(BASE, encoding="utf-8")
    return tmp_path


def child(folder, text, sets=()):
    path = folder / "child.yaml"
    path.write_text(f"extends: base.yaml\n{text}", encoding="utf-8")
    return load(path, sets)


def refused(call, *args):
    with pytest.raises(ScenarioError) as error:
        call(*args)
    return str(error.value)


@pytest.mark.parametrize("name", scenarios())
def test_every_packaged_scenario_loads(name):
    assert load(FOLDER / f"{name}.yaml")


@pytest.mark.parametrize("name", ["minimal", "minimal.yaml", "scenarios/minimal", "scenarios/minimal.yaml"])
def test_names_of_packaged_scenarios(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    assert load(name).name == "minimal"


@pytest.mark.parametrize("name", names("peers"))
def test_names_of_packaged_scenarios_of_other_systems(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    for called in (name, f"{name}.yaml", f"peers/{name}", f"scenarios/peers/{name}", f"scenarios/peers/{name}.yaml"):
        assert load(called).name == name
    (tmp_path / "child.yaml").write_text(f"extends: peers/{name}\ntitle: mine\n", encoding="utf-8")
    assert load("child.yaml").title == "mine"


def test_no_name_is_packaged_twice():
    assert not set(names()) & set(names("peers"))


def test_a_file_comes_before_a_packaged_scenario(folder, monkeypatch):
    (folder / "base.yaml").rename(folder / "minimal.yaml")
    monkeypatch.chdir(folder)
    assert load("minimal").name == "base"
    assert load("minimal.yaml").name == "base"


def test_a_folder_does_not_hide_a_packaged_scenario(tmp_path, monkeypatch):
    (tmp_path / "minimal").mkdir()
    monkeypatch.chdir(tmp_path)
    assert load("minimal").name == "minimal"


def test_unknown_names_say_what_there_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "nimal: no such file, nor a packaged scenario; did you mean minimal?" in refused(load, "nimal")
    said = refused(load, "zzz.yaml")
    assert "packaged are emulator-quick, iota-16b-180-gpus, iota-2025, minimal, " in said
    assert said.endswith(", ".join(scenarios()))
    for near in ("intelect-1", "peers/intelect-1.yaml", "scenarios/peers/intellect1"):
        assert refused(load, near).endswith("nor a packaged scenario; did you mean peers/intellect-1?")


@pytest.mark.parametrize("name", names("gpus"))
def test_every_gpu_profile_is_what_its_file_says(name):
    profile = gpu_profile(name)
    assert profile.name == name
    sizes = [point.smallest_dimension for point in profile.matmul]
    assert sizes == sorted(set(sizes))
    for key in ("peak", "memory", "memory_bandwidth", "memory_efficiency", "launch", "matmul", "attention"):
        assert key in profile.provenance


def test_a100():
    profile = gpu_profile("a100-80gb")
    assert (profile.peak, profile.memory, profile.memory_bandwidth) == (312e12, 80e9, 2039e9)
    assert profile.launch == 5e-6


def test_extends_merges_mappings_and_replaces_the_rest(folder):
    scenario = child(
        folder, "name: c\nmodel: {layers: 10}\npipeline: {split: [5, 5]}\nnetwork: {uplink: {sigma: 0.5}}\n"
    )
    assert scenario.name == "c"
    assert scenario.model.layers == 10
    assert scenario.model.hidden == 512
    assert scenario.pipeline.split == (5, 5)
    assert scenario.network.uplink.sigma == 0.5
    assert scenario.network.uplink.median == 100e6


def test_extends_replaces_blocks_of_another_kind_and_distributions(folder):
    uplink = "{dist: uniform, low: 1 bps, high: 2 bps}"
    text = f"pipeline: {{schedule: {{kind: gpipe, microbatches: 4}}}}\nnetwork: {{uplink: {uplink}}}"
    scenario = child(folder, text)
    assert scenario.pipeline.schedule.model_dump() == {"kind": "gpipe", "microbatches": 4, "recompute": "full"}
    assert scenario.network.uplink.kind == "uniform"
    assert child(folder, "merge: none\nnetwork: {uplink: 5 Mbps}").merge == "none"
    assert child(folder, "pipeline: {schedule: {kind: queue, window: 4}}").pipeline.schedule.status_every == 2.0


def test_extends_takes_the_sources_of_what_it_changes(folder):
    scenario = child(folder, "network: {uplink: {median: 1 Gbps}}\nmerge: {every: 1 h}\nbatch: {sequence: 128}\n")
    assert scenario.provenance["network.uplink.median"].startswith("assumed: set in ")
    assert scenario.provenance["network.uplink.median"].endswith("child.yaml without a source")
    assert scenario.provenance["network"] == "assumed: cable"
    assert "batch.sequence" not in scenario.provenance
    assert set(scenario.uncertain) == {"pipeline.schedule.window"}


def test_extends_with_its_own_sources(folder):
    text = (
        "network: {uplink: {median: 1 Gbps}}\nprovenance: {network.uplink: 'published: elsewhere'}\n"
        "uncertain: {network.uplink.median: {choice: [1 Gbps, 2 Gbps]}}"
    )
    scenario = child(folder, text)
    assert scenario.provenance["network.uplink"] == "published: elsewhere"
    assert "network.uplink.median" not in scenario.provenance
    assert scenario.uncertain["network.uplink.median"] == {"choice": ["1 Gbps", "2 Gbps"]}


def test_extends_drops_claims_about_what_is_gone(folder):
    scenario = child(folder, "pipeline: {schedule: {kind: gpipe, microbatches: 4}}\nmerge: none")
    assert set(scenario.uncertain) == {"network.uplink.median"}
    assert scenario.provenance["pipeline.schedule"].startswith("assumed: set in ")


def test_problems_name_the_file_that_they_are_in(folder):
    (folder / "base.yaml").write_text(BASE.replace("hidden: 512", "hidden: 500"), encoding="utf-8")
    said = refused(child, folder, "batch: {sequence: x}\nnetwork: {uplnk: 3}\n")
    assert f"{folder}/base.yaml:2:51: model.heads: 8 heads do not divide hidden 500" in said
    assert f"{folder}/child.yaml:2:19: batch.sequence: must be a whole number, not 'x'" in said
    assert f"{folder}/child.yaml:3:11: network.uplnk: unknown key; did you mean uplink?" in said


def test_extends_a_packaged_scenario_even_of_the_same_name(tmp_path):
    path = tmp_path / "minimal.yaml"
    path.write_text("extends: minimal\nname: mine\n", encoding="utf-8")
    assert load(path).name == "mine"
    assert load(path).model == load(FOLDER / "minimal.yaml").model


def test_extends_over_several_files(folder):
    (folder / "sub").mkdir()
    (folder / "sub" / "a.yaml").write_text("extends: ../base.yaml\nmodel: {vocab: 7}\n", encoding="utf-8")
    (folder / "b.yaml").write_text("extends: sub/a\ntitle: b\n", encoding="utf-8")
    scenario = load(folder / "b")
    assert (scenario.name, scenario.title, scenario.model.vocab) == ("base", "b", 7)


def test_extends_in_a_circle(folder):
    (folder / "a.yaml").write_text("extends: b.yaml\n", encoding="utf-8")
    (folder / "b.yaml").write_text("name: b\nextends: a.yaml\n", encoding="utf-8")
    said = refused(load, folder / "a.yaml")
    assert said == (
        f"{folder}/b.yaml:2:10: extends: goes round in a circle (a.yaml -> b.yaml -> a.yaml); remove one of them"
    )


@pytest.mark.parametrize(
    ("sets", "key", "value"),
    [
        (["run.seed=3"], "run.seed", 3),
        (["run.seed=3", "run.seed=4"], "run.seed", 4),
        (["network.uplink=856 Mbps"], "network.uplink.median", 856e6),
        (["network.uplink.median=856 Mbps"], "network.uplink.median", 856e6),
        (["network.uplink.sigma=1e-3"], "network.uplink.sigma", 0.001),
        (["pipeline.split.0=3", "pipeline.split.1=5"], "pipeline.split", (3, 5)),
        (["pipeline.split=balanced"], "pipeline.split", "balanced"),
        (["pipeline.schedule.kind=gpipe", "pipeline.schedule.microbatches=4"], "pipeline.schedule.microbatches", 4),
        (["pipeline.schedule={kind: gpipe, microbatches: 4}"], "pipeline.schedule.microbatches", 4),
        (["pipeline.schedule.kind=queue"], "pipeline.schedule.window", 8),
        (["peers.sites={iowa: 4}"], "peers.sites", {"iowa": 4}),
        (["merge=none"], "merge", "none"),
        (["network.transport.tls=false"], "network.transport.tls", False),
        (["run.tokens=1e9", "run.duration=null"], "run.tokens", 1e9),
        (["report.uplinks=[]"], "report.uplinks", ()),
        (["cost.gpu_hour=$2"], "cost.gpu_hour", 2.0),
        (["title=a: b"], None, "must be text"),
        (['title="a: b"'], "title", "a: b"),
        (["title=x=y"], "title", "x=y"),
    ],
)
def test_set(folder, sets, key, value):
    if key is None:
        assert value in refused(load, folder / "base.yaml", sets)
        return
    found = load(folder / "base.yaml", sets)
    for name in key.split("."):
        found = getattr(found, name)
    assert found == value


def test_set_takes_the_source_of_what_it_changes(folder):
    scenario = load(folder / "base.yaml", ["network.uplink={dist: normal, mean: 1 Gbps, sd: 1 Mbps}", "run.seed=1"])
    assert scenario.provenance["network.uplink"] == "assumed: set on the command line"
    assert scenario.provenance["run.seed"] == "assumed: set on the command line"
    assert "network.uplink.median" not in scenario.provenance
    assert "network.uplink.median" not in scenario.uncertain


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("pipelin.stages=4", "--set pipelin.stages=4: pipelin: unknown key; did you mean pipeline?"),
        ("pipeline.stags=4", "--set pipeline.stags=4: pipeline.stags: unknown key; did you mean stages?"),
        ("run.seed=x", "--set run.seed=x: run.seed: must be a whole number, not 'x'"),
        ("run.seed", "--set run.seed: write --set key=value, like --set run.seed=1"),
        ("=3", "--set =3: write --set key=value"),
        ("run.seed=", "--set run.seed=: run.seed: must be a whole number, not null"),
        ("run.seed=[1", "--set run.seed=[1: not valid YAML"),
        ("network.uplink.median=5 mbps", "network.uplink.median: unknown unit 'mbps'; did you mean Mbps?"),
        ("pipeline.split.2=6", "pipeline.split.2: must be an index from 0 to 1, not 2"),
        ("pipeline.split.x=6", "pipeline.split.x: must be an index from 0 to 1, not x"),
        ("pipeline.split.1=5", ":7:10: pipeline.split: adds up to 9 layers, but the model has 8; remove 1"),
        (
            "model.layers.x=6",
            "model.layers is 8, which has no keys; set it as a whole, like --set 'model.layers={x: ...}'",
        ),
        ("pipeline.stages=3", ":7:10: pipeline.split: has 2 entries for 3 stages"),
        ("extends=minimal", "extends: can only stand in a file"),
        ("provenance.modl=assumed: x", "the value must be quoted"),
        ("uncertain.merge.evry=1 h", "uncertain.merge.evry: the scenario has no key merge.evry"),
    ],
)
def test_set_refused(folder, text, said):
    found = refused(load, folder / "base.yaml", [text])
    if text.startswith("provenance"):
        assert "provenance.modl: must be text, not a mapping" in found
        return
    assert said in found


def test_all_bad_sets_come_at_once(folder):
    said = refused(load, folder / "base.yaml", ["a", "pipeline.split.9=1", "run.seed=[", "run.seed=1"])
    assert [re.match(r"--set ([^:]*):", line)[1] for line in said.splitlines()] == [
        "a",
        "pipeline.split.9=1",
        "run.seed=[",
    ]


def test_a_gpu_profile_is_found_beside_the_file_that_names_it(folder, monkeypatch):
    text = (FOLDER / "gpus" / "a100-80gb.yaml").read_text(encoding="utf-8").replace("312 TFLOP/s", "1 PFLOP/s")
    (folder / "mine.yaml").write_text(text, encoding="utf-8")
    scenario = child(folder, "peers: {gpu: mine.yaml}")
    assert gpu_profile(scenario.peers.gpu).peak == 1e15


def test_a_trace_is_found_beside_the_file_that_names_it(folder, monkeypatch):
    (folder / "traces").mkdir()
    (folder / "traces" / "t.csv").write_text("t,peer,dir,bps\n", encoding="utf-8")
    (folder / "elsewhere").mkdir()
    monkeypatch.chdir(folder)
    (folder / "c.yaml").write_text("extends: base\nnetwork: {variability: traces/t.csv}\n", encoding="utf-8")
    assert load("c.yaml").network.variability == "traces/t.csv"
    monkeypatch.chdir(folder / "elsewhere")
    assert load("../c.yaml").network.variability == "../traces/t.csv"


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        (["network.transport.synchronous=true"], "is for schedules with a fixed batch per step"),
        (
            ["pipeline.schedule={kind: 1f1b, microbatches: 4}", "peers.rebalance_every=5 min"],
            "is for the queue-driven schedule; write null",
        ),
        (
            ["pipeline.schedule={kind: 1f1b, microbatches: 4}", "peers.rejoin=random"],
            "'random' is for the queue-driven schedule; write own",
        ),
    ],
)
def test_keys_that_the_schedule_has_no_use_for(sets, message):
    with pytest.raises(ScenarioError, match=message):
        load("minimal", sets)
