"""`orionbed crosscheck`, with both backends faked: what it says, and how it ends."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from orionbed import tracing
from orionbed.emulation import as_emulated
from orionbed.plan import make_plan
from orionbed.scenario import load as load_scenario
from orionbed.tracing import TraceRecorder

SCENARIO = "agreement/base"


def result_of(applied_s, *, numbers=(0, 1), aborted=""):
    recorder = TraceRecorder(["a"])
    for place, number in enumerate(numbers):
        span_s = (float(place), place + 1.0)
        recorder.add(0, 0, 0, 0, tracing.LANE_COMPUTE, tracing.KIND_F, number, 0, *span_s, 0.0, tracing.CAUSE_NONE)
    return SimpleNamespace(
        trace=recorder.table(), applied_s=np.array(applied_s), startup_s=0.0, aborted=aborted, training_s=10.0,
        has_baseline=True, plan=make_plan(as_emulated(load_scenario(SCENARIO))),
        ledger=SimpleNamespace(applied=len(applied_s)),
    )  # fmt: skip


@pytest.fixture
def backends(monkeypatch):
    """Make the backends return given results; the seeds that they ran come into the list that is returned."""

    def give(simulated, emulated):
        seeds = []

        def load(name):
            def run(plan, *, seed, say=None, **options):
                if name == "emulator":
                    seeds.append(seed)
                    if say is not None:
                        say("processes are up")
                return simulated if name == "sim" else emulated

            return SimpleNamespace(run=run)

        monkeypatch.setattr("orionbed.backends.load", load)
        return seeds

    return give


def test_backends_that_agree_end_with_0(orionbed, backends) -> None:
    backends(result_of([1.0, 2.0]), result_of([1.0, 2.01]))
    run = orionbed("crosscheck", SCENARIO)
    assert run.code == 0, run.err
    lines = run.out.splitlines()
    assert lines[0] == "processes are up"
    assert lines[1] == "seed 0: simulated 1, emulated 0.99502 micro-batches/s, +0.500%, same order of operations"
    assert lines[2].split() == ["F", "1", "s", "simulated,", "1", "s", "emulated", "(+0.00%)"]
    assert lines[-1] == "agree: median error +0.500%, tolerance 3.0%"


def test_outside_the_tolerance_it_ends_with_1(orionbed, backends) -> None:
    backends(result_of([1.0, 2.0]), result_of([1.0, 2.1]))
    run = orionbed("crosscheck", SCENARIO)
    assert run.code == 1
    assert run.out.splitlines()[-1] == "DISAGREE: median error +5.000%, tolerance 3.0%"


def test_another_order_is_a_disagreement_however_fast_it_is(orionbed, backends) -> None:
    backends(result_of([1.0, 2.0]), result_of([1.0, 2.0], numbers=(1, 0)))
    run = orionbed("crosscheck", SCENARIO)
    assert run.code == 1
    assert "ANOTHER ORDER of operations" in run.out


def test_a_void_emulation_ends_with_3(orionbed, backends) -> None:
    backends(result_of([1.0, 2.0]), result_of([1.0, 2.0], aborted="void: it was late"))
    run = orionbed("crosscheck", SCENARIO)
    assert run.code == 3
    assert "  void: it was late" in run.out.splitlines()


@pytest.mark.parametrize(("late_s", "code"), [(2.0, 0), (2.1, 1)])
def test_json_and_nothing_else(orionbed, backends, late_s, code) -> None:
    backends(result_of([1.0, 2.0]), result_of([1.0, late_s]))
    run = orionbed("crosscheck", SCENARIO, "--json")
    assert run.code == code
    found = json.loads(run.out)
    assert found["agrees"] == (code == 0)
    assert found["tolerance"] == 0.03
    assert found["median_error"] == found["runs"][0]["error"] == pytest.approx(late_s / 2.0 - 1.0)
    assert found["runs"][0]["seed"] == 0
    assert (found["runs"][0]["same_order"], found["runs"][0]["void"]) == (True, "")


def test_json_of_an_emulation_that_did_nothing_is_json(orionbed, backends) -> None:
    backends(result_of([1.0, 2.0]), result_of([], numbers=(), aborted="void: nothing happened"))
    run = orionbed("crosscheck", SCENARIO, "--json")
    assert run.code == 3

    def refuse(name):
        raise ValueError(f"{name} is no JSON")

    found = json.loads(run.out, parse_constant=refuse)
    assert found["agrees"] is False
    assert found["median_error"] is found["runs"][0]["error"] is None


def test_seeds_follow_that_of_the_scenario(orionbed, backends) -> None:
    seeds = backends(result_of([1.0, 2.0]), result_of([1.0, 2.0]))
    assert orionbed("crosscheck", SCENARIO, "--set", "run.seed=7").code == 0
    assert orionbed("crosscheck", SCENARIO, "--seeds", "2").code == 0
    assert orionbed("crosscheck", SCENARIO, "--set", "pipeline.schedule={kind: queue}").code == 0
    assert seeds == [7, 0, 1, 0, 1, 2]


def test_a_scenario_that_is_not_there_ends_with_2(orionbed, backends) -> None:
    backends(None, None)
    assert orionbed("crosscheck", "nowhere").code == 2
