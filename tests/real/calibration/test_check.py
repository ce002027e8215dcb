"""The self-check: predicted against measured stages, with times that are made up."""

from pathlib import Path

import pytest

from orionbed.backends import BackendError
from orionbed.scenario import Scenario, apply
from orionbed.training.shape import parameters_of
from real.calibration import api, check, profile_file
from real.calibration.measure import Effort, Times, measure
from real.calibration.whole import ALL, PLAIN, STEP, WholeStage, one_microbatch, recompute_factor

LAYER_S, ENCODER_S, DECODER_S, STEP_S = 10e-3, 2e-3, 1e-3, 1e-8
"""Of the findings that are made up."""


class Injected:
    """A clock that says what it is told of forward, backward, forward, halves, recompute and step."""

    def __init__(self, *laps: float) -> None:
        self.told = list(laps)
        self.num_marks = 0

    def mark(self) -> None:
        self.num_marks += 1

    def laps(self) -> list[float]:
        assert self.num_marks == len(self.told) + 1
        self.num_marks = 0
        return self.told


def stage_times(target: api.Target, chunk: int, *laps: float) -> Times:
    stage = WholeStage(target.shape, chunk, "cpu")
    return measure([stage.timed("stage")], Injected(*laps), Effort(3, warm_up=1))["stage"]


def middle(target: api.Target, factor: float = 1.0) -> Times:
    forward = 2 * LAYER_S + ENCODER_S + DECODER_S
    step = STEP_S * parameters_of(target.shape, 1)
    laps = (forward, 1.5 * forward, forward, forward, forward / 2, forward, 2.5 * forward, step)
    return stage_times(target, 1, *(factor * each for each in laps))


def test_a_stage_that_takes_what_was_predicted(target: api.Target, findings: profile_file.Findings) -> None:
    profile = profile_file.build(findings)
    rows = check.compare(profile, target.scenario, target.shape, {1: middle(target)})
    assert [row.what for row in rows] == [
        "forward", "backward", "input_gradient", "weight_gradient", "backward_with_recompute", "step", "whole",
    ]  # fmt: skip
    for row in rows:
        assert row.predicted_s == pytest.approx(row.measured_s, rel=1e-4), row
        assert row.passed
    assert rows[0].measured_s == pytest.approx(23e-3)


@pytest.mark.parametrize(("factor", "passed"), [(0.96, True), (1.049, True), (1.06, False), (0.94, False)])
def test_five_percent_are_allowed(
    target: api.Target, findings: profile_file.Findings, factor: float, passed: bool
) -> None:
    profile = profile_file.build(findings)
    rows = check.compare(profile, target.scenario, target.shape, {1: middle(target, factor)})
    found = api.outcome(rows, target, ["before"], {})
    assert found.passed is passed
    assert found.plain["passed"] is passed
    assert found.lines[0] == "before"
    assert found.lines[-1].startswith("ok" if passed else "FAILED")
    held = [row for row in rows if not row.passed]
    assert {row.what for row in held} == (set() if passed else set(check.HELD))


def test_first_and_last_stage_have_their_own_ends(target: api.Target, findings: profile_file.Findings) -> None:
    profile = profile_file.build(findings)
    first, last = (check.predicted(profile, target.scenario, target.shape, chunk) for chunk in (0, 2))
    assert first["forward"] == pytest.approx(2 * 10e-3 + 1e-3 + 2e-3)
    assert last["forward"] == pytest.approx(2 * 10e-3 + 4e-3 + 1e-3)
    assert last["backward_with_recompute"] == pytest.approx(last["forward"] + last["backward"])
    assert check.describe(target.shape, 0) == "embedding, 2 layers, encoder"
    assert check.describe(target.shape, 2) == "decoder, 2 layers, head"


def test_what_recompute_adds_and_what_a_microbatch_takes(target: api.Target) -> None:
    times = stage_times(target, 1, 1.0, 2.0, 1.0, 1.0, 1.0, 1.0, 2.9, 0.5)
    assert recompute_factor(times) == pytest.approx([0.9] * 3)
    assert one_microbatch(times) == [3.5] * 3
    assert api.recompute_of({1: times}) == pytest.approx(0.9)
    assert api.recompute_of({1: {"forward": [1.0], "backward": [1.0]}}) is None


def test_passes_of_a_stage_can_be_left_out(target: api.Target) -> None:
    stage = WholeStage(target.shape, 1, "cpu")
    assert stage.timed("x", (STEP,)).sections == (*PLAIN, *STEP)
    assert len(stage.timed("x").sections) == sum(map(len, ALL))
    weights = stage.worker.weights()
    found = measure([stage.timed("x", (STEP,))], Injected(1.0, 1.0, 1.0), Effort(1, warm_up=0))
    assert set(found["x"]) == {"forward", "backward", "step"}
    moved = (stage.worker.weights() - weights).abs().max()
    assert 0.0 < moved < 1e-4


def test_stages_that_are_checked_are_first_middle_and_last(scenario: Scenario) -> None:
    def chunks(stage: int | None) -> tuple[int, ...]:
        return api.target_of(scenario, "cpu", stage, lambda _: None).chunks

    assert chunks(None) == (0, 1, 2)
    assert chunks(1) == (1,)
    with pytest.raises(BackendError, match=r"--stage 3: minimal has stages 0 to 2"):
        chunks(3)


def test_the_number_format_is_the_devices(scenario: Scenario) -> None:
    said: list[str] = []
    found = api.target_of(apply(scenario, {"model.dtype": "bf16"}), "cpu", None, said.append)
    assert found.scenario.model.dtype == "fp32"
    assert found.shape.dtype == "float32"
    assert "--set model.dtype=fp32" in said[0]
    with pytest.raises(BackendError, match="float64 has no place in a profile"):
        api.target_of(apply(scenario, {"real.dtype": "float64"}), "cpu", None, said.append)


def test_a_profile_is_checked_only_on_what_it_has_measured(
    target: api.Target, findings: profile_file.Findings, tmp_path: Path
) -> None:
    profile = profile_file.build(findings)
    api.refuse_uncovered(profile, target, tmp_path)
    del findings.pieces["head"]
    with pytest.raises(BackendError, match="no measurement of head at hidden 32"):
        api.refuse_uncovered(profile_file.build(findings), target, tmp_path)
    typed = profile.model_copy(update={"measured": ()})
    with pytest.raises(BackendError, match="no measurement of anything"):
        api.refuse_uncovered(typed, target, tmp_path)
