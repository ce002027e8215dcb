"""Two runs of the same plan held against one another, with backends that do as the test says."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from orionbed import backends as orionbed_backends
from orionbed import tracing
from orionbed.crosscheck import COMPUTE, TOLERANCES, Agreement, crosscheck, median_error, with_clock
from orionbed.emulation import as_emulated
from orionbed.plan import make_plan
from orionbed.scenario import Scenario, apply, load
from orionbed.tracing import TraceRecorder

Operation = tuple[int, str, int, float]
"""Peer, kind, micro-batch and length in seconds; one after the other."""
ONE_PEER: list[Operation] = [(0, "F", 0, 1.0), (0, "B", 0, 2.0), (0, "F", 1, 1.0), (0, "B", 1, 2.0)]


def scenario_with(clock: str = "virtual", **changes: Any) -> Scenario:
    settings = {key.replace("__", "."): value for key, value in changes.items()}
    return with_clock(apply(load("agreement/base"), settings), clock)


def result_of(operations: list[Operation], applied_s: list[float], **more: Any) -> Any:
    recorder = TraceRecorder(["a", "b"])
    now_s: dict[int, float] = {}
    for peer, kind, microbatch, lasts_s in operations:
        start_s = now_s.get(peer, 0.0)
        now_s[peer] = start_s + lasts_s
        place = (0, 0, peer, peer, tracing.LANE_COMPUTE)
        code = tracing.KINDS.index(kind)
        recorder.add(*place, code, microbatch, 0, start_s, now_s[peer], 0.0, tracing.CAUSE_NONE)
    fields = {
        "trace": recorder.table(), "applied_s": np.array(applied_s), "startup_s": 0.0, "aborted": "",
        "training_s": 10.0, "ledger": SimpleNamespace(applied=len(applied_s)),
    }  # fmt: skip
    return SimpleNamespace(**fields | more)


@pytest.fixture(name="backends")
def _backends(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any, Any], list[tuple[str, dict[str, Any]]]]:
    """Make both backends return given results; what they were called with comes into the list that is returned."""

    def give(simulated: Any, emulated: Any) -> list[tuple[str, dict[str, Any]]]:
        calls: list[tuple[str, dict[str, Any]]] = []

        def load_backend(name: str) -> Any:
            def run(plan: Any, **options: Any) -> Any:
                calls.append((name, options | {"plan": plan}))
                given = simulated if name == "sim" else emulated
                result = given(options["seed"]) if callable(given) else given
                if name != "sim":
                    result.plan = make_plan(as_emulated(plan.scenario), options["seed"])
                    result.has_baseline = True
                return result

            return SimpleNamespace(run=run)

        monkeypatch.setattr("orionbed.backends.load", load_backend)
        return calls

    return give


def test_the_error_is_how_much_faster_the_simulator_says_that_it_is(backends: Any) -> None:
    backends(result_of(ONE_PEER, [3.0, 6.0]), result_of(ONE_PEER, [3.0, 6.6]))
    (found,), _ = crosscheck(scenario_with(), [0])
    assert (found.simulated, found.executed) == (2 / 6.0, 2 / 6.6)
    assert found.error == pytest.approx(0.1)


def test_both_are_measured_up_to_as_many_micro_batches_as_both_have_applied(backends: Any) -> None:
    backends(result_of(ONE_PEER, [3.0, 6.0, 100.0]), result_of(ONE_PEER, [4.0, 7.0], startup_s=1.0))
    (found,), _ = crosscheck(scenario_with(), [0])
    assert found.simulated == found.executed == 2 / 6.0


def test_a_run_that_applied_nothing_agrees_with_nothing(backends: Any) -> None:
    backends(result_of(ONE_PEER, [3.0]), result_of([], [], aborted="void: too late"))
    (found,), _ = crosscheck(scenario_with(), [0])
    assert (found.error, found.void) == (float("inf"), "void: too late")


def test_runs_of_a_length_are_measured_over_their_training_phases(backends: Any) -> None:
    backends(result_of([], [1.0] * 30), result_of([], [1.0] * 20, training_s=8.0))
    (found,), _ = crosscheck(scenario_with(run={"tokens": None, "duration": 60.0}), [0])
    assert (found.simulated, found.executed) == (3.0, 2.5)


def test_both_run_the_same_plan_with_the_same_seed_and_the_same_merges(backends: Any) -> None:
    calls = backends(result_of(ONE_PEER, [3.0]), result_of(ONE_PEER, [3.0]))
    crosscheck(scenario_with(emulator__merges=2), [4, 5])
    assert [(name, options["seed"]) for name, options in calls] == [
        ("emulator", 4), ("sim", 4), ("emulator", 5), ("sim", 5)
    ]  # fmt: skip
    simulated = calls[1][1]["plan"].scenario
    assert simulated == as_emulated(calls[0][1]["plan"].scenario), "what the other backend made of it is simulated"
    assert (calls[1][1]["max_epochs"], calls[1][1]["fetches"]) == (2, False)


@pytest.mark.parametrize(
    ("other", "same"),
    [
        (ONE_PEER, True),
        ([(peer, kind, microbatch, 2.0 * s) for peer, kind, microbatch, s in ONE_PEER], True),
        (ONE_PEER[:3], True),  # as far as both went
        ([ONE_PEER[0], ONE_PEER[2], ONE_PEER[1], ONE_PEER[3]], False),
        ([ONE_PEER[0], (0, "B", 1, 2.0), *ONE_PEER[2:]], False),
        ([ONE_PEER[0], (0, "I", 0, 2.0), *ONE_PEER[2:]], False),
        ([*ONE_PEER, (1, "F", 0, 1.0)], False),
        ([*ONE_PEER[:2], (0, "step", -1, 1.0), (0, "idle", -1, 1.0), *ONE_PEER[2:]], True),
    ],
)
def test_the_order_of_operations_is_that_of_every_peer(backends: Any, other: list[Operation], same: bool) -> None:
    backends(result_of(ONE_PEER, [3.0]), result_of(other, [3.0]))
    (found,), _ = crosscheck(scenario_with(), [0])
    assert found.same_order is same


def test_with_a_queue_there_is_no_order_to_compare(backends: Any) -> None:
    backends(result_of(ONE_PEER, [3.0]), result_of(ONE_PEER[::-1], [3.0]))
    (found,), tolerance = crosscheck(scenario_with("paced", pipeline__schedule={"kind": "queue"}), [0])
    assert found.same_order is None
    assert tolerance == TOLERANCES["queue"]


def test_means_are_compared_where_both_have_any(backends: Any) -> None:
    backends(result_of(ONE_PEER, [3.0]), result_of([*ONE_PEER[:2], (0, "F", 1, 3.0), (0, "I", 9, 1.0)], [3.0]))
    (found,), _ = crosscheck(scenario_with(), [0])
    assert found.mean_s == {"F": (1.0, 2.0), "B": (2.0, 2.0)}
    assert set(COMPUTE) == {"F", "B", "I", "W"}


@pytest.mark.parametrize("clock", ["virtual", "cpu", "paced"])
def test_every_clock_has_its_tolerance(backends: Any, clock: str) -> None:
    backends(result_of(ONE_PEER, [3.0]), result_of(ONE_PEER, [3.0]))
    assert crosscheck(scenario_with(clock), [0])[1] == TOLERANCES[clock]


def test_the_median_over_the_seeds_counts(backends: Any) -> None:
    backends(result_of(ONE_PEER, [3.0]), lambda seed: result_of(ONE_PEER, [3.0 + seed]))
    found, _ = crosscheck(scenario_with(), [0, 1, 30])
    assert [one.seed for one in found] == [0, 1, 30]
    assert median_error(found) == pytest.approx(1.0 / 3.0)


def test_an_emulation_that_did_nothing_is_infinitely_off() -> None:
    assert Agreement(0, 1.0, 0.0, None, {}, "").error == float("inf")


def test_hardware_that_the_profile_is_not_of_has_nothing_to_compare(backends: Any, monkeypatch: Any) -> None:
    backends(result_of(ONE_PEER, [3.0]), result_of(ONE_PEER, [3.0]))
    load_backend = orionbed_backends.load

    def load_other(name: str) -> Any:
        def run(plan: Any, **options: Any) -> Any:
            result = load_backend(name).run(plan, **options)
            result.has_baseline = False
            return result

        return SimpleNamespace(run=run)

    monkeypatch.setattr("orionbed.backends.load", load_other)
    with pytest.raises(orionbed_backends.BackendError, match="is not the device that ran"):
        crosscheck(scenario_with(), [0], backend="real")
