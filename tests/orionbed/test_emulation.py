"""The plan of an emulation: every key of the `emulator` block changes what is run."""

from typing import Any

import pytest

from emulator.scaling import choose_scales
from orionbed.emulation import Scales, as_emulated, boundary_problem, model_shape
from orionbed.plan import make_plan
from orionbed.scenario import Scenario, ScenarioError, apply, load
from orionbed.scenario.emulation import Emulator

MEASURED = {"F": 0.002, "B": 0.006, "STEP": 0.001}
# Seen elsewhere: what each of these does needs a run.
IN_RUNS = {
    "clock", "reference", "merges", "lateness_limit", "recovery_deadline", "listen",
    "encrypt", "key", "trusted",
    "remote_slots", "join_timeout",
}  # fmt: skip
CHANGES: dict[str, Any] = {
    "layers": 8, "width": 128, "tokens": 32, "sequences": 2, "vocab": 64, "dtype": "float64", "time_dilation": 0.5,
    "payload_scale": 7.0, "training": 30.0,
}  # fmt: skip


def scenario_with(**changes: Any) -> Scenario:
    return apply(load("minimal"), {f"emulator.{key}": value for key, value in changes.items()})


def planned(scenario: Scenario) -> tuple[object, ...]:
    emulated = as_emulated(scenario)
    plan = make_plan(emulated)
    return model_shape(plan), choose_scales(plan, MEASURED), emulated.merge


@pytest.mark.parametrize("key", CHANGES)
def test_every_key_changes_what_is_run(key: str) -> None:
    assert planned(scenario_with(**{key: CHANGES[key]})) != planned(scenario_with())


def test_every_key_is_looked_at() -> None:
    assert set(Emulator.model_fields) == CHANGES.keys() | IN_RUNS


def test_every_even_width_can_be_emulated_and_an_odd_one_is_refused() -> None:
    for width in (8, 34, 128, 200, 330, 1022):
        shape = model_shape(make_plan(scenario_with(width=width)))
        assert shape.head_width % 2 == 0
        assert shape.heads * shape.head_width == width
    with pytest.raises(ScenarioError, match=r"emulator\.width: 33 is odd"):
        scenario_with(width=33)


def test_the_boundary_keeps_its_ratio() -> None:
    shape = model_shape(make_plan(scenario_with(width=256)))
    assert shape.hidden / shape.boundary_width == 2048 / 32
    whole = apply(scenario_with(), {"pipeline.boundary": {"kind": "none"}})
    assert model_shape(make_plan(whole)).boundary is None


@pytest.mark.parametrize(
    ("boundary", "expected"),
    [
        ({"kind": "resbm", "width": 32, "encoder": "mlp", "encoder_width": 64}, {"width": 4, "encoder_width": 8}),
        ({"kind": "bottleneck", "width": 32}, {"width": 4}),
        ({"kind": "subspace", "width": 4}, {"width": 1}),
        ({"kind": "quantize", "bits": 4, "error_feedback": False}, {"bits": 4}),
        ({"kind": "topk", "keep": 64}, {"keep": 8}),
    ],
)
def test_every_boundary_keeps_its_share_of_values_and_its_bits(
    boundary: dict[str, Any], expected: dict[str, int]
) -> None:
    plan = make_plan(apply(scenario_with(width=256), {"pipeline.boundary": boundary}))
    found = model_shape(plan).boundary
    assert found is not None
    assert found.model_dump() == plan.scenario.pipeline.boundary.model_dump() | expected
    assert boundary_problem(plan) is None


def test_what_cannot_be_trained_through_is_said() -> None:
    plan = make_plan(apply(scenario_with(), {"pipeline.boundary": {"kind": "quantize", "bits": 3}}))
    assert boundary_problem(plan) == (
        "pipeline.boundary: boundary bits: values are rounded to 4 or 8 bits, not to 3; use other values, or sim"
    )


def test_every_piece_of_the_model_has_a_layer_at_least() -> None:
    assert model_shape(make_plan(scenario_with(layers=1))).layers_per_chunk == (1, 1, 1, 1)
    assert model_shape(make_plan(scenario_with(layers=6))).layers_per_chunk == (2, 2, 1, 1)


def test_orion_as_it_is_fits_in_ten_minutes() -> None:
    scenario = as_emulated(load("orion-100b"))
    plan = make_plan(scenario)
    scales = choose_scales(plan, MEASURED)
    assert not isinstance(scenario.merge, str)
    merge_s = 13 * 60.0  # what the simulator gives for one
    assert (scenario.merge.every + merge_s) * scales.time_dilation < 420.0
    shape = model_shape(plan)
    assert scales.payload(plan.boundary_bytes) >= shape.boundary_bytes


def test_transfers_keep_their_time() -> None:
    scales = Scales(time_dilation=0.2, payload_scale=1000.0)
    assert scales.payload(2_304_000.0) == 2304
    assert scales.payload(1.0) == 1


def test_without_merges_training_is_the_length_of_the_run() -> None:
    scenario = as_emulated(apply(scenario_with(training=45.0), {"merge": "none"}))
    assert scenario.run.duration == 45.0
    assert scenario.run.startup == 0.0


def test_minutes_of_a_run_are_not_held_against_published_figures_of_days() -> None:
    kinds = {one.kind for one in as_emulated(load("orion-100b")).published}
    assert kinds == {"input"}
    whole = apply(load("orion-100b"), {"emulator.training": None, "emulator.merges": None})
    assert {one.kind for one in as_emulated(whole).published} == {"input", "prediction", "reading"}
