"""What is said about scenarios that are wrong: where, which key, and what to do."""

import copy
import functools
import json
import operator
import random
import re

import pytest

from orionbed.scenario import Problem, ScenarioError, gpu_profile, load
from orionbed.scenario.packaged import gpu_file
from orionbed.scenario.yaml_file import read_text

GOOD = """\
name: base
model:
  layers: 24
  hidden: 1024
  ffn: 4096
  heads: 16
  kv_heads: 4
  vocab: 32000
batch: {sequence: 512, sequences: 4}
pipeline:
  stages: 4
  replicas: 2
  split: [6, 6, 6, 6]
  boundary: {kind: resbm, width: 64}
  schedule: {kind: queue, window: 8}
peers:
  gpu: a100-80gb
  sites: {ohio: 4, oregon: 4}
network:
  uplink: {dist: lognormal, median: 856 Mbps, sigma: 0.35}
  downlink: 1322 Mbps
  delay: 20 ms
  jitter: none
merge: {every: 57 min}
churn: none
datacenter: {link: 25 GB/s, delay: 5 us}
cost: {gpu_hour: $1.25, egress_per_gb: $0.09}
run: {duration: 1 h}
published:
  - {quantity: mfu.in_phase, value: 0.3, source: a report}
provenance:
  network.uplink: "assumed: a guess"
uncertain:
  merge.every: {dist: uniform, low: 30 min, high: 90 min}
"""

# What of GOOD is replaced, by what, and the problems then found: place, key, and a part of what is said.
WRONG: list[tuple[str, ...]] = [
    ("layers: 24", "layer: 24", "3:3: model.layer: did you mean layers?"),
    ("hidden: 1024", "hidden: 1000", "6:10: model.heads: choose a divisor of 1000"),
    ("kv_heads: 4", "kv_heads: 3", "7:13: model.kv_heads: choose a divisor of 16"),
    ("hidden: 1024", 'hidden: "1024"', "4:11: model.hidden: remove the quotes"),
    ("hidden: 1024", "hidden: 1024.0", "4:11: model.hidden: must be a whole number, not 1024.0"),
    ("hidden: 1024", "hidden: true", "4:11: model.hidden: must be a whole number, not true"),
    ("hidden: 1024", "hidden: 0", "4:11: model.hidden: must be greater than 0, not 0"),
    ("hidden: 1024", "hidden: null", "4:11: model.hidden: must be a whole number, not null"),
    ("hidden: 1024", "hidden: 1_024", "4:11: model.hidden: write the digits without separators"),
    ("  ffn: 4096\n", "", "2:1: model.ffn: add `ffn` (inner width of the feed-forward network (SwiGLU,"),
    ("vocab: 32000", "vocab: 32000\n  tied_embeddings: yes", "9:20: model.tied_embeddings: write true"),
    ("vocab: 32000", "vocab: 32000\n  dtype: bf61", "9:10: model.dtype: did you mean bf16?"),
    ("vocab: 32000", "vocab: 32000\n  vocab: 3", "9:3: model.vocab: remove one"),
    (
        "batch: {sequence: 512, sequences: 4}",
        "batch: 2048",
        "9:8: batch: must be a mapping of `key: value` with the keys sequence,",
    ),
    (
        "batch: {sequence: 512, sequences: 4}",
        "batch: [512, 4]",
        "9:8: batch: must be a mapping of `key: value` with the keys sequence,",
    ),
    ("batch: {sequence: 512, sequences: 4}\n", "", "1:1: batch: add `batch` (one micro-batch)"),
    (
        "[6, 6, 6, 6]",
        "[6, 6, 6]",
        "13:10: pipeline.split: give one number of layers per stage",
        "13:10: pipeline.split: add 6",
    ),
    ("[6, 6, 6, 6]", "[6, 6, 6, 7]", "13:10: pipeline.split: remove 1"),
    ("[6, 6, 6, 6]", "[6, 6, 6, six]", "13:20: pipeline.split.3: must be a whole number, not 'six'"),
    ("[6, 6, 6, 6]", "[12, 6, 6, 0]", "13:21: pipeline.split.3: must be greater than 0, not 0"),
    ("[6, 6, 6, 6]", "balancd", "13:10: pipeline.split: did you mean balanced?"),
    ("width: 64", "width: 1024", "14:34: pipeline.boundary.width: or use kind none"),
    ("kind: resbm, width: 64", "kind: topk, keep: 4096", "14:32: pipeline.boundary.keep: or use kind none"),
    ("kind: resbm, width: 64", "kind: quantize, bits: 64", "14:36: pipeline.boundary.bits: must be at most 32, not 64"),
    ("kind: resbm, width: 64", "kind: quantize, bits: 16", "14:36: pipeline.boundary.bits: or use kind none"),
    ("kind: resbm, width: 64", "kind: resmb, width: 64", "14:20: pipeline.boundary.kind: did you mean resbm?"),
    (
        "kind: resbm, width: 64",
        "width: 64",
        "14:3: pipeline.boundary.kind: add `kind` (none, resbm, bottleneck, subspace, quantize or",
    ),
    ("kind: resbm, width: 64", "kind: resbm", "14:3: pipeline.boundary.width: less than `model.hidden`)"),
    (
        "{kind: resbm, width: 64}",
        "none",
        "14:13: pipeline.boundary: must be a mapping of `key: value` with the keys kind,",
    ),
    (
        "window: 8",
        "window: 8, microbatches: 4",
        "15:38: pipeline.schedule.microbatches: it belongs to kind gpipe, 1f1b, zb-h1, zb-h2, zb-1p, zb-2p, zb-v,",
    ),
    ("window: 8", "windw: 8", "15:27: pipeline.schedule.windw: did you mean window?"),
    ("window: 8", "window: 8, router: swam", "15:46: pipeline.schedule.router: did you mean swarm?"),
    (
        "window: 8",
        "window: 8, status_every: 5",
        "15:52: pipeline.schedule.status_every: write one of ns, us, ms, s, min, h, d after it, like 20 ms",
    ),
    (
        "kind: queue, window: 8",
        "kind: 1f1b, microbatches: 8, window: 4",
        "15:43: pipeline.schedule.window: it belongs to kind queue, remove it or change the kind",
    ),
    (
        "kind: queue, window: 8",
        "kind: zb-h1, microbatches: 8, chunks: 2",
        "15:44: pipeline.schedule.chunks: it belongs to kind interleaved-1f1b, remove it or change the kind",
    ),
    (
        "kind: queue, window: 8",
        "kind: zbh1, microbatches: 8",
        "15:20: pipeline.schedule.kind: did you mean zb-h1?",
    ),
    (
        "kind: queue, window: 8",
        "kind: interleaved-1f1b, microbatches: 8, chunks: 2",
        "13:10: pipeline.split: has 4 entries for 8 pieces (2 on each of 4 stages); give one number of layers",
    ),
    (
        "split: [6, 6, 6, 6]\n  boundary: {kind: resbm, width: 64}\n  schedule: {kind: queue, window: 8}",
        "schedule: {kind: interleaved-1f1b, microbatches: 8, chunks: 7}",
        "11:11: pipeline.stages: 28 pieces (7 on each of 4 stages) for 24 layers; give every piece a layer",
    ),
    (
        "kind: queue, window: 8",
        "kind: csv, file: nothere.csv",
        "15:31: pipeline.schedule.file: cannot be read: No such file or directory; give the path of a CSV",
    ),
    ("gpu: a100-80gb", "gpu: a100-80", "17:8: peers.gpu: or a path to a .yaml file)"),
    ("gpu: a100-80gb", "gpu: a100-80gb\n  efficiency: 1.2", "18:15: peers.efficiency: must be at most 1, not 1.2"),
    ("gpu: a100-80gb", "gpu: a100-80gb\n  efficiency: by-sape", "18:15: peers.efficiency: did you mean by-shape?"),
    ("gpu: a100-80gb", "gpu: a100-80gb\n  efficiency: 0", "18:15: peers.efficiency: must be greater than 0, not 0"),
    ("gpu: a100-80gb", "gpu: a100-80gb\n  speed: 0", "18:10: peers.speed: raise its lowest value"),
    ("gpu: a100-80gb", "gpu: a100-80gb\n  gpus: 3", "18:9: peers.gpus: 3 GPUs do not divide 16 attention heads;"),
    ("gpu: a100-80gb", "gpu: a100-80gb\n  rejoin: poorer", "18:11: peers.rejoin: did you mean poorest?"),
    ("gpu: a100-80gb", "gpu: a100-80gb\n  gpu_link: 100 Gb/s", "18:13: peers.gpu_link: did you mean GB/s?"),
    (
        "gpu: a100-80gb",
        "gpu: a100-80gb\n  measured: {forward: [1 s, 2 s], input_gradient: 1 s, weight_gradient: [1 s, 1 s, 1 s, 1 s]}",
        "18:23: peers.measured.forward: has 2 entries for 4 pieces of the model; give one time per stage, or one",
    ),
    (
        "gpu: a100-80gb",
        "gpu: a100-80gb\n  measured: {forward: 1, input_gradient: 1 s}",
        "18:3: peers.measured.weight_gradient: add `weight_gradient` (gradient of the weights, likewise)",
        "18:23: peers.measured.forward: write one of ns, us, ms, s, min, h, d after it, like 20 ms",
    ),
    ("{ohio: 4, oregon: 4}", "{ohio: 4, oregon: 3}", "18:3: peers.sites: add 1 (0 empties an inherited site)"),
    ("{ohio: 4, oregon: 4}", "{ohio: 4, oregon: 5}", "18:3: peers.sites: remove 1 (0 empties an inherited site)"),
    ("{ohio: 4, oregon: 4}", "{ohio: 4, oregon: -4}", "18:28: peers.sites.oregon: must be at least 0, not -4"),
    ("{ohio: 4, oregon: 4}", "{}", "18:3: peers.sites: must not be empty"),
    (
        "median: 856 Mbps",
        "median: 856",
        "20:37: network.uplink.median: write one of bps, kbps, Mbps, Gbps, Tbps, bit/s, kbit/s,",
    ),
    ("median: 856 Mbps", "median: 856 mbps", "20:37: network.uplink.median: did you mean Mbps?"),
    (
        "median: 856 Mbps",
        "median: 856 Mb/s",
        "20:37: network.uplink.median: it could be bits or bytes: write Mbit/s for bits, MB/s for",
    ),
    ("median: 856 Mbps", "median: -856 Mbps", "20:37: network.uplink.median: must be at least 0, not '-856 Mbps'"),
    ("median: 856 Mbps", "median: 0 Mbps", "20:37: network.uplink.median: must be greater than 0, not '0 Mbps'"),
    ("sigma: 0.35", "sigma: 0.35, p90: 1 Gbps", "20:3: network.uplink: give the one you know"),
    (", sigma: 0.35", "", "20:3: network.uplink: give the one you know"),
    ("sigma: 0.35", "p90: 1 Mbps", "20:52: network.uplink.p90: the 90th percentile must be above it"),
    ("sigma: 0.35", "sigma: 0.35 Mbps", "20:54: network.uplink.sigma: write it without a unit"),
    ("sigma: 0.35", "sigma: .inf", "20:54: network.uplink.sigma: must be a finite number, not inf"),
    ("dist: lognormal", "dist: lognorm", "20:18: network.uplink.dist: did you mean lognormal?"),
    ("dist: lognormal, ", "", "20:3: network.uplink.dist: add `dist` (uniform, normal, lognormal, exponential,"),
    ("1322 Mbps", "{dist: uniform, low: 2 Gbps, high: 1 Gbps}", "21:34: network.downlink.low: exchange the two"),
    ("1322 Mbps", "{choice: []}", "21:22: network.downlink.choice: must not be empty"),
    ("1322 Mbps", "{choice: [1 Gbps, 5 s]}", "21:31: network.downlink.choice.1: write something like 856 Mbps"),
    ("1322 Mbps", "0 bps", "21:13: network.downlink: raise its lowest value"),
    ("20 ms", "20 msec", "22:10: network.delay: did you mean ms?"),
    ("20 ms", "20", "22:10: network.delay: must be a delay table like us-metros or a duration like 20"),
    ("20 ms", "us-metro", "22:10: network.delay: did you mean us-metros?"),
    ("20 ms", "20 Mbps", "22:10: network.delay: write something like 20 ms"),
    ("jitter: none", "jitter: non", "23:11: network.jitter: did you mean none?"),
    (
        "jitter: none",
        "jitter: {sd: 1 ms, spike_probability: 1.5}",
        "23:41: network.jitter.spike_probability: must be at most 1, not 1.5",
    ),
    ("jitter: none", "jitter: none\n  variability: cluod", "24:16: network.variability: did you mean cloud?"),
    (
        "jitter: none",
        "jitter: none\n  variability: traces/missing.csv",
        "24:16: network.variability: write constant, shaped, cloud, shared or bad, or the path",
    ),
    (
        "jitter: none",
        "jitter: none\n  transport: {window: 4 Mb}",
        "24:23: network.transport.window: it could be bits or bytes: write Mbit for bits, MB for bytes",
    ),
    ("jitter: none", "jitter: none\n  correlation: 2", "24:16: network.correlation: must be at most 1, not 2"),
    (
        "merge: {every: 57 min}",
        "merge: nothing",
        "24:8: merge: must be none or a mapping of `key: value`, not 'nothing'",
    ),
    ("merge: {every: 57 min}", "merge: null", "24:8: merge: must be none or a mapping of `key: value`, not null"),
    ("merge: {every: 57 min}", "merge: {every: 0 s}", "24:16: merge.every: must be greater than 0, not '0 s'"),
    ("57 min", "57", "24:16: merge.every: write one of ns, us, ms, s, min, h, d after it, like 20 ms"),
    ("57 min", "57 minutes", "24:16: merge.every: did you mean min?"),
    (
        "merge: {every: 57 min}",
        "merge: {every: 57 min}\nsync: {every: 1}",
        "25:1: sync: a queue-driven one averages by `merge`; write sync: none",
    ),
    (
        "merge: {every: 57 min}",
        "merge: {every: 57 min}\nsync: {every: 6, fragments: 4}",
        "25:29: sync.fragments: 4 fragments do not divide every 6; choose a divisor of 6",
    ),
    (
        "merge: {every: 57 min}",
        "merge: {every: 57 min}\nsync: {algorithm: rng}",
        "25:19: sync.algorithm: must be ring, tree, sharded-ps, central-ps or gather, not 'rng'; did you mean ring?",
    ),
    ("churn: none", "churn: {up: 0 s, down: 5 min}", "25:13: churn.up: raise its lowest value"),
    ("$1.25", "1.25", "27:18: cost.gpu_hour: write a price per hour like $1.25/h"),
    ("$1.25", "$1.25/d", "27:18: cost.gpu_hour: write a price per hour in $/h, like $1.25/h"),
    ("$0.09", "9 cents", "27:40: cost.egress_per_gb: write a price per GB in $/GB, like $0.09/GB"),
    (
        "$0.09",
        "$0.09, prices_as_of: June",
        "27:61: cost.prices_as_of: must be a month or a day, like 2026-06 or 2026-06-30, not",
    ),
    ("{duration: 1 h}", "{seed: 1}", "28:1: run: give at least one so that the run ends"),
    ("{duration: 1 h}", "{duration: 1 h, seed: -1}", "28:28: run.seed: must be at least 0, not -1"),
    ("{duration: 1 h}", "{tokens: 1.1e9 tokens}", "28:15: run.tokens: write it without a unit"),
    ("{duration: 1 h}", "{tokens: 1e400}", "28:15: run.tokens: must be a finite number, not inf"),
    ("name: base", "name: My Run", "1:7: name: must be made of small letters, digits, dots, dashes and"),
    ("name: base", "name: 3", "1:7: name: put it into quotes"),
    ("name: base", "name: base\ntitel: x", "2:1: titel: did you mean title?"),
    ("name: base", "name: base\nzzz: x", "2:1: zzz: the keys here are name, title, model, batch, pipeline,"),
    (
        "source: a report}",
        "source: a report}\n  - {quantity: mfu.in_phase, value: 0.4, source: b}",
        "31:16: published.1.quantity: keep one",
    ),
    ("source: a report", "source: ''", "30:50: published.0.source: must not be empty"),
    ("mfu.in_phase", "MFU", "30:16: published.0.quantity: must be a dotted key of summary.json, like mfu.in_phase,"),
    (
        'network.uplink: "assumed',
        'network.uplnk: "assumed',
        "32:3: provenance.network.uplnk: did you mean network.uplink?",
    ),
    (
        'network.uplink: "assumed',
        'netwrk.uplink: "assumed',
        "32:3: provenance.netwrk.uplink: did you mean network.uplink?",
    ),
    (
        "assumed: a guess",
        "guessed: a guess",
        "32:19: provenance.network.uplink: kind must be published, code, derived, assumed or fitted,",
    ),
    ("assumed: a guess", "assumd: a guess", "32:19: provenance.network.uplink: did you mean assumed?"),
    (
        "assumed: a guess",
        "assumed",
        "32:19: provenance.network.uplink: must be `kind: source` with a kind of published, code,",
    ),
    (
        "assumed: a guess",
        "fitted: mfu.in_phse = 0.3; by bisection",
        "32:19: provenance.network.uplink: did you mean mfu.in_phase?",
    ),
    ("assumed: a guess", "fitted: by bisection", "32:19: provenance.network.uplink: how`"),
    ("merge.every: {dist", "merge.evry: {dist", "34:3: uncertain.merge.evry: did you mean merge.every?"),
    (
        "low: 30 min",
        "low: 30",
        "34:37: uncertain.merge.every.low: write one of ns, us, ms, s, min, h, d after it, like 20 ms",
    ),
    ("low: 30 min", "low: 30 Mbps", "34:37: uncertain.merge.every.low: write something like 20 ms"),
    (
        "low: 30 min",
        "low: 0 s",
        "34:37: uncertain.merge.every.low: would make merge.every wrong: must be greater than 0, not 0.0",
    ),
    (
        "{dist: uniform, low: 30 min, high: 90 min}",
        "30 min",
        "34:16: uncertain.merge.every: must be a distribution or {choice: [...]}, not '30 min'",
    ),
    (
        "{dist: uniform, low: 30 min, high: 90 min}",
        "{choice: [30 min, 3]}",
        "34:34: uncertain.merge.every.choice.1: write one of ns, us, ms, s, min, h, d after it, like 20 ms",
    ),
    (
        "merge.every: {dist: uniform, low: 30 min, high: 90 min}",
        "pipeline.schedule.window: {dist: uniform, low: 1, high: 9}",
        "34:3: uncertain.pipeline.schedule.window: write {choice: [...]} with the numbers to draw from",
    ),
    (
        "merge.every: {dist: uniform, low: 30 min, high: 90 min}",
        "pipeline.schedule.router: {choice: [swarm, fast]}",
        "34:46: uncertain.pipeline.schedule.router.choice.1: did you mean fastest?",
    ),
    (
        "merge.every: {dist: uniform, low: 30 min, high: 90 min}",
        "pipeline.stages: {choice: [4, 5]}",
        "34:33: uncertain.pipeline.stages.choice.1: give one number of layers per stage",
        "34:33: uncertain.pipeline.stages.choice.1: add 2 (0 empties an inherited site)",
    ),
    (
        "merge.every: {dist: uniform, low: 30 min, high: 90 min}",
        "provenance: {choice: [4, 5]}",
        "34:3: uncertain.provenance: sections are name, title, model, batch, pipeline, peers,",
    ),
    (
        "  vocab: 32000",
        "  vocab: 32000\n  positions: 512\n  attention: unfused",
        "9:14: model.positions: are learned only in gpt blocks; remove the key, or use block: gpt",
        "10:14: model.attention: is known step by step only for gpt blocks; use flash, or block: gpt",
    ),
    ("  layers: 24", "\tlayers: 24", "3:1: indent with spaces, not tabs"),
    ("[6, 6, 6, 6]", "[6, 6", "14:11: check brackets, quotes and indentation"),
    ("name: base", "name: base: x", "1:11: put text with a colon into quotes, and check the indentation"),
    ("name: base", "name: @base", "1:7: put text that starts with @ into quotes"),
    ("name: base", "name: !!str base", "1:7: name: write the plain value"),
    ("name: base", "name: base\n<<: {a: 1}", "2:1: <<: repeat the keys, or use `extends` for a whole file"),
    ("name: base", "name: *x", "1:7: name: define &x before it"),
    ("name: base", "? [a, b]\n: base", "1:3: a key must be a plain word"),
    ("name: base", "name: base\n---\nname: b", "2:1: one file holds one scenario"),
    ("name: base", "name: base\nextends: nothere", "2:10: extends: packaged are "),
    (
        "name: base",
        "name: base\nextends: [minimal, orion-100b]",
        "2:10: extends: must be the name or path of one scenario, like `extends:",
    ),
    ("name: base", "name: base\nfaults: none", "2:9: faults: must be a list of faults like [{id: k1, ...}],"),
    ("name: base", "name: base\nfaults: [3]", "2:10: faults.0: must be a mapping of `key: value` with the keys id,"),
    ("name: base", "name: base\nemulator: 3", "2:11: emulator: must be a mapping of `key: value` with the keys clock,"),
    (
        "name: base",
        "name: base\nreport: {uplinks: [1 Mbps, 0 Mbps, 3]}",
        "2:28: report.uplinks.1: must be greater than 0, not '0 Mbps'",
        "2:36: report.uplinks.2: write one of bps, kbps, Mbps, Gbps, Tbps, bit/s, kbit/s,",
    ),
    ("oregon: 4}", "oregn: 4}", "18:20: peers.sites.oregn: did you mean oregon?"),
]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "s.yaml"


def problems_of(path, text) -> list[Problem]:
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ScenarioError) as error:
        load(path)
    assert str(error.value) == "\n".join(map(str, error.value.problems))
    return error.value.problems


def test_the_file_that_is_broken_below_is_good(path):
    path.write_text(GOOD, encoding="utf-8")
    assert load(path).name == "base"


@pytest.mark.parametrize(("old", "new", "expected"), [(old, new, expected) for old, new, *expected in WRONG])
def test_problems(path, old, new, expected):
    text = GOOD.replace("20 ms", "us-metros") if "oregn" in new else GOOD
    assert old in text
    found = problems_of(path, text.replace(old, new, 1))
    assert len(found) == len(expected)
    for problem, line in zip(found, expected, strict=True):
        where, said = re.fullmatch(r"(\d+:\d+: (?:[^ ]+: )?)(.*)", line).groups()
        start = f"{path}:{where}"
        assert str(problem).startswith(start)
        assert said in str(problem)[len(start) :]


def test_all_problems_come_at_once_in_the_order_of_the_file(path):
    changes = {
        "hidden: 1024": "hidden: 1000",
        "width: 64": "width: 64, bits: 3",
        "window: 8": "windw: 8",
        "{ohio: 4, oregon: 4}": "{ohio: 4, oregon: 3}",
        "856 Mbps": "856",
        "20 ms": "20 msec",
        "assumed: a guess": "a guess",
        "low: 30 min": "low: 100 min",
    }
    text = GOOD
    for old, new in changes.items():
        text = text.replace(old, new)
    found = problems_of(path, text)
    assert [(problem.place.line, problem.key) for problem in found] == [
        (6, "model.heads"),
        (14, "pipeline.boundary.bits"),
        (15, "pipeline.schedule.windw"),
        (20, "network.uplink.median"),
        (22, "network.delay"),
        (32, "provenance.network.uplink"),
        (34, "uncertain.merge.every.low"),
    ]


def test_a_misspelt_key_is_not_called_missing_as_well(path):
    [problem] = problems_of(path, GOOD.replace("stages: 4", "stags: 4"))
    assert problem.key == "pipeline.stags"
    assert "did you mean stages?" in problem.message


def test_checks_between_sections_run_although_a_third_is_wrong(path):
    found = problems_of(path, GOOD.replace("$1.25", "cheap").replace("oregon: 4}", "oregon: 5}"))
    assert [problem.key for problem in found] == ["peers.sites", "cost.gpu_hour"]


ODD = [None, True, -1, 1.5, "", "none", "5 s", "$3", [], {}, [[]], {"": ""}, {"kind": [1]}, {"dist": None}]
ODD += [{"choice": []}, {"choice": 1}, {"dist": "uniform"}, {"x.y": {"z": 1}}, float("nan"), 10**30, "=none"]


def places_in(data, path=()):
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in items:
        yield (*path, key)
        yield from places_in(value, (*path, key))


@pytest.mark.parametrize("seed", range(8))
def test_whatever_is_written_is_loaded_or_explained(path, seed):
    rng = random.Random(seed)
    good = read_text(GOOD, "good").plain()
    for _ in range(20):
        data = copy.deepcopy(good)
        *above, last = rng.choice(list(places_in(data)))
        inside = functools.reduce(operator.getitem, above, data)
        inside[last] = rng.choice(ODD)
        path.write_text(json.dumps(data).replace("NaN", ".nan"), encoding="utf-8")
        try:
            load(path)
        except ScenarioError as error:
            for problem in error.problems:
                assert problem.place.line == 1
                assert problem.message


@pytest.mark.parametrize("kind", ["gpipe", "1f1b", "zb-h1", "zb-h2", "zb-1p", "zb-2p", "zb-v", "dualpipe-v"])
def test_every_fixed_order_is_a_schedule(path, kind):
    """Also those with two pieces of the model on each stage, if the split says what each piece holds."""
    text = GOOD.replace("kind: queue, window: 8", f"kind: {kind}, microbatches: 8")
    if kind in {"zb-v", "dualpipe-v"}:
        [problem] = problems_of(path, text)
        assert "has 4 entries for 8 pieces (2 on each of 4 stages)" in problem.message
        text = text.replace("[6, 6, 6, 6]", "[3, 3, 3, 3, 3, 3, 3, 3]")
    path.write_text(text, encoding="utf-8")
    assert load(path).pipeline.schedule.kind == kind


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("0F0,0X0\n", "is no schedule: {file}:1: cell 2: '0X0' is no action"),
        ("0F0,0B0\n1F0,1B0\n", "lists 2 stages, but pipeline.stages is 4; make them agree"),
    ],
)
def test_schedule_files_that_do_not_fit(path, tmp_path, content, said):
    file = tmp_path / "order.csv"
    file.write_text(content, encoding="utf-8")
    [problem] = problems_of(path, GOOD.replace("kind: queue, window: 8", f"kind: csv, file: {file}"))
    assert problem.key == "pipeline.schedule.file"
    assert said.format(file=file) in problem.message


def test_several_gpus_need_a_link(path, tmp_path):
    profile = read_text(gpu_file("a100-80gb")[0].read_text(encoding="utf-8"), "a100").plain()
    del profile["link"]
    alone = tmp_path / "alone.yaml"
    alone.write_text(json.dumps(profile), encoding="utf-8")
    text = GOOD.replace("gpu: a100-80gb", f"gpu: {alone}\n  gpus: 2")
    [problem] = problems_of(path, text)
    assert problem.key == "peers.gpus"
    assert problem.message == "2 GPUs, but the profile a100-80gb has no `link` between them; give peers.gpu_link"
    path.write_text(text.replace("gpus: 2", "gpus: 2\n  gpu_link: 10 GB/s"), encoding="utf-8")
    assert load(path).peers.gpu_link == 10e9


def test_a_broken_gpu_profile_hides_nothing_else(path, tmp_path):
    broken = tmp_path / "broken.yaml"
    broken.write_text("name: g\npeak: 312 TFLOPS\n", encoding="utf-8")
    text = GOOD.replace("gpu: a100-80gb", f"gpu: {broken}\n  gpus: 3").replace("oregon: 4}", "oregon: 3}")
    found = problems_of(path, text)
    assert [problem.key for problem in found] == ["peers.gpu", "peers.gpus", "peers.sites"]
    assert f"is a GPU profile with mistakes: {broken}:" in found[0].message


def test_missing_file(tmp_path):
    with pytest.raises(ScenarioError, match=r"orion-10b\.yaml: no such file.*did you mean orion-1"):
        load(tmp_path / "orion-10b.yaml")


def test_directory(tmp_path):
    with pytest.raises(ScenarioError, match="is a directory; name a scenario file in it"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"name: caf\xe9\n", "1:10: byte 0xe9 is not UTF-8; save the file as UTF-8"),
        ("name: x\n".encode("utf-16"), "1:1: byte 0xff is not UTF-8; save the file as UTF-8"),
        (b"name: x\n# \xff\n", "2:3: byte 0xff is not UTF-8; save the file as UTF-8"),
        (b"", "1:1: the file is empty; it must consist of lines `key: value`"),
        (b"# nothing\n", "1:1: the file is empty; it must consist of lines `key: value`"),
        (b"- a\n- b\n", "1:1: the file is not a mapping; it must consist of lines `key: value`"),
        (b"text\n", "1:1: the file is not a mapping; it must consist of lines `key: value`"),
    ],
)
def test_files_that_hold_no_mapping(path, content, line):
    path.write_bytes(content)
    with pytest.raises(ScenarioError) as error:
        load(path)
    assert str(error.value) == f"{path}:{line}"


def test_control_characters_are_a_problem(path):
    path.write_bytes(b"name: a\x07b\n")
    with pytest.raises(ScenarioError, match="not valid YAML"):
        load(path)


def test_gpu_profile_that_does_not_exist():
    with pytest.raises(ScenarioError, match=r"no GPU profile 'a100'; did you mean a100-80gb\?"):
        gpu_profile("a100")


def test_gpu_profile_with_mistakes(path):
    path.write_text("name: g\npeak: 312 TFLOPS\nmemory: 80\n", encoding="utf-8")
    with pytest.raises(ScenarioError) as error:
        gpu_profile(str(path))
    said = str(error.value)
    assert f"{path}:2:7: peak: unknown unit 'TFLOPS'; did you mean TFLOP/s?" in said
    assert f"{path}:3:9: memory: 80 has no unit" in said
    assert f"{path}:1:1: launch: is missing" in said
