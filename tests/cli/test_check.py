"""`orionbed check`: what it says of a scenario that is fine, and of one that does not fit."""

import json

import pytest

from orionbed.estimate import estimate
from orionbed.plan import make_plan
from orionbed.scenario import load


def test_a_scenario_that_is_fine(orionbed) -> None:
    ended = orionbed("check", "tiny.yaml")
    assert (ended.code, ended.err) == (0, "")
    first, *others = ended.out.splitlines()
    assert first == "ok  tiny  2 stages x 2 replicas = 4 peers, a100-80gb, schedule queue"
    assert [line.split()[0] for line in others] == ["model", "boundary", "memory", "compute", "estimate"]
    assert "17,830,400 parameters; layers per stage [2, 2]" in ended.out
    assert "131,072 bytes, 16x narrower than 2,097,152" in ended.out
    assert "5.0 min on 4 GPUs cost $0.42" in ended.out  # 4 x $1.25 / 12


@pytest.mark.parametrize("name", ["minimal", "minimal.yaml", "scenarios/minimal.yaml"])
def test_packaged_scenarios_by_name(orionbed, name: str) -> None:
    ended = orionbed("check", name)
    assert ended.code == 0
    assert ended.out.startswith("ok  minimal  4 stages x 2 replicas = 8 peers")


def test_json_is_the_estimate_and_nothing_else(orionbed) -> None:
    ended = orionbed("check", "tiny.yaml", "--json")
    assert ended.code == 0
    assert json.loads(ended.out) == estimate(make_plan(load("tiny.yaml")))


TOO_LARGE = ("--set", "model.layers=200", "--set", "model.hidden=8192", "--set", "model.ffn=32768")


def test_what_does_not_fit_fails_and_says_what_to_do(orionbed) -> None:
    ended = orionbed("check", "tiny.yaml", *TOO_LARGE)
    assert (ended.code, ended.err) == (1, "")
    assert ended.out.startswith("does not fit  tiny  2 stages x 2 replicas")
    memory = next(line for line in ended.out.splitlines() if line.startswith("memory"))
    assert "GB" in memory
    assert "does not fit; use more stages, " in memory


def test_what_does_not_fit_fails_with_json_too(orionbed) -> None:
    ended = orionbed("check", "tiny.yaml", *TOO_LARGE, "--json")
    assert ended.code == 1
    assert json.loads(ended.out)["fits"] is False


def test_uncompressed_boundaries_are_not_called_narrower(orionbed) -> None:
    ended = orionbed("check", "tiny.yaml", "--set", "pipeline.boundary={kind: none}")
    assert "boundary   2,097,152 bytes\n" in ended.out


def test_check_writes_nothing(orionbed, terminal) -> None:
    orionbed("check", "tiny.yaml")
    assert [path.name for path in terminal.folder.iterdir()] == ["tiny.yaml"]
