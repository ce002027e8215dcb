"""Calibrated profiles: what may stand in them, where the cost model takes their seconds, and when a run warns."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from orionbed.compute import CostModel
from orionbed.measured import times_of, uncovered
from orionbed.plan import Plan, make_plan
from orionbed.runs import run_id
from orionbed.scenario import GpuProfile, ScenarioError, apply, assumptions, gpu_profile, load
from orionbed.warn import about_profile

SHAPE = {
    "hidden": 2048, "ffn": 8192, "heads": 16, "kv_heads": 4, "vocab": 128256, "sequence": 1024, "sequences": 16,
    "boundary": 32, "dtype": "bf16",
}  # fmt: skip
PIECES = {"layer": 10, "embedding": 1, "head": 5, "encoder": 0.5, "decoder": 0.25}
"""Milliseconds of the forward; the input half takes twice and the weight half three times as long."""


def spread(milliseconds: float) -> dict[str, str]:
    return {name: f"{milliseconds * factor} ms" for name, factor in (("median", 1), ("p5", 0.9), ("p95", 1.2))}


def passes(milliseconds: float) -> dict[str, Any]:
    return {
        "forward": spread(milliseconds),
        "input_gradient": spread(2 * milliseconds),
        "weight_gradient": spread(3 * milliseconds),
    }


def entry(**shape: Any) -> dict[str, Any]:
    step = {"median": "0.01 ns", "p5": "0.009 ns", "p95": "0.02 ns"}
    slower = {"median": "0.03 ns", "p5": "0.03 ns", "p95": "0.03 ns"}
    return {
        "shape": SHAPE | shape,
        "pieces": {name: passes(each) for name, each in PIECES.items()},
        "optimizer": [
            {"parameters": 10**6, "per_parameter": step},
            {"parameters": 10**8, "per_parameter": slower},
        ],
    }


def written(path: Path, *entries: dict[str, Any], **others: Any) -> Path:
    plain = yaml.safe_load(Path("scenarios/gpus/a100-80gb.yaml").read_text())
    plain |= {"name": "here", "device": "cuda", "measured": list(entries) or [entry()]} | others
    plain["provenance"] = plain["provenance"] | {"measured": "derived: measured by a test"}
    path.write_text(yaml.safe_dump(plain))
    return path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return written(tmp_path / "here.yaml")


def plan_of(file: Path, *sets: str) -> Plan:
    return make_plan(load("minimal", sets, profile=file))


def changed(gpu: GpuProfile, **changes: Any) -> GpuProfile:
    shape = gpu.measured[0].shape.model_copy(update=changes)
    return gpu.model_copy(update={"measured": (gpu.measured[0].model_copy(update={"shape": shape}),)})


def test_a_stage_is_put_together_from_what_was_measured(file: Path) -> None:
    plan = plan_of(file, "pipeline.schedule={kind: gpipe, microbatches: 4, recompute: none}", "merge=none")
    assert plan.layers_per_stage == [2, 6, 6, 2]
    first, middle, _, last = plan.chunk_costs
    assert first["F"].model_s == pytest.approx(2 * 10e-3 + 1e-3)
    assert first["F"].boundary_s == pytest.approx(0.5e-3)
    assert middle["F"].model_s == pytest.approx(6 * 10e-3)
    assert middle["F"].boundary_s == pytest.approx(0.5e-3 + 0.25e-3)
    assert middle["B"].model_s == pytest.approx(6 * 50e-3)
    assert middle["B"].boundary_s == pytest.approx(5 * 0.75e-3)
    assert last["F"].model_s == pytest.approx(2 * 10e-3 + 5e-3)
    assert last["F"].boundary_s == pytest.approx(0.25e-3)


def test_flops_stay_counted(file: Path) -> None:
    costs, model = CostModel(gpu_profile(str(file))), load("minimal").model
    by_shape = CostModel(gpu_profile("a100-80gb"))
    tokens = 16 * 1024
    assert costs.layer(model, tokens, 1024).forward_flops == by_shape.layer(model, tokens, 1024).forward_flops
    assert costs.head(model, tokens).backward_flops == by_shape.head(model, tokens).backward_flops
    assert costs.encoder(model, tokens, 32).forward_flops == by_shape.narrowing(model, tokens, 32).forward_flops


def test_an_optimizer_step_goes_by_the_parameters_and_their_number(file: Path) -> None:
    costs, model = CostModel(gpu_profile(str(file))), load("minimal").model
    for parameters, each_s in ((10**5, 1e-11), (10**6, 1e-11), (10**7, 2e-11), (10**8, 3e-11), (10**9, 3e-11)):
        assert costs.optimizer_step_s(parameters, "bf16", 8, model=model) == pytest.approx(parameters * each_s)
    by_shape = CostModel(gpu_profile("a100-80gb")).optimizer_step_s(10**7, "bf16", 8)
    assert costs.optimizer_step_s(10**7, "bf16", 8) == by_shape
    plan = plan_of(file)
    assert plan.stages[1].costs["STEP"].optimizer_s == pytest.approx(plan.stages[1].parameters * 3e-11)


def test_kernel_scale_applies_to_what_was_measured(file: Path) -> None:
    gpu, model = gpu_profile(str(file)), load("minimal").model
    twice = CostModel(gpu, kernel_scale=2.0)
    assert twice.layer(model, 16 * 1024, 1024).forward_s == pytest.approx(5e-3)
    assert twice.optimizer_step_s(10**6, "bf16", 8, model=model) == pytest.approx(0.5e-5)


def test_an_efficiency_or_times_of_the_scenario_go_before_measurements(file: Path) -> None:
    gpu, model = gpu_profile(str(file)), load("minimal").model
    flat = CostModel(gpu, 0.5).layer(model, 16 * 1024, 1024)
    assert flat.forward_s == pytest.approx(flat.forward_flops / (0.5 * gpu.peak))
    given = "peers.measured={forward: 1 s, input_gradient: 2 s, weight_gradient: 3 s}"
    assert plan_of(file, given).chunk_costs[1]["F"].model_s == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("change", "still_there"),
    [
        ({"hidden": 1024}, set()),
        ({"dtype": "fp32"}, set()),
        ({"sequences": 8}, set()),
        ({"ffn": 4096}, {"embedding", "head", "encoder", "decoder"}),
        ({"heads": 8}, {"embedding", "head", "encoder", "decoder"}),
        ({"kv_heads": 8}, {"embedding", "head", "encoder", "decoder"}),
        ({"vocab": 1000}, {"layer", "encoder", "decoder"}),
        ({"boundary": 64}, {"layer", "embedding", "head"}),
        ({"sequence": 2048, "sequences": 8}, {"embedding", "head", "encoder", "decoder"}),
    ],
)
def test_a_piece_counts_where_all_that_its_time_depends_on_is_equal(
    file: Path, change: dict[str, Any], still_there: set[str]
) -> None:
    gpu, model = changed(gpu_profile(str(file)), **change), load("minimal").model
    found = {
        piece
        for piece in PIECES
        if times_of(gpu, piece, model, 16 * 1024, sequence=1024, boundary=32) is not None  # type: ignore[arg-type]
    }
    assert found == still_there


def test_gpt_blocks_and_cut_stages_are_not_what_was_measured(file: Path) -> None:
    gpu, scenario = gpu_profile(str(file)), load("minimal")
    model = scenario.model.model_copy(update={"block": "gpt"})
    assert times_of(gpu, "head", model, 16 * 1024) is None
    cut = CostModel(gpu, gpus=2).layer(scenario.model, 16 * 1024, 1024)
    assert cut.forward_s != pytest.approx(10e-3)
    assert uncovered(gpu, apply(scenario, {"peers.gpus": 2})) == [*PIECES, "optimizer"]


def test_a_scenario_that_is_covered_gives_no_warning(file: Path) -> None:
    assert about_profile(plan_of(file)) == []


def test_a_typed_profile_gives_no_warning() -> None:
    assert about_profile(make_plan(load("minimal"))) == []


def test_a_shape_that_is_not_covered_is_named_with_the_command_that_would_cover_it(file: Path) -> None:
    (found,) = about_profile(plan_of(file, "model.vocab=1000"))
    assert found["code"] == "profile-not-covered"
    assert "no measurement of embedding, head at hidden 2048, ffn 8192, heads 16/4, vocab 1000" in found["message"]
    assert "16 x 1024 tokens, boundary 32, bf16" in found["message"]
    assert found["advice"] == f"measure it: orionbed calibrate minimal --device cuda --out {file.as_posix()}"


def test_another_number_format_is_said_to_be_one(file: Path) -> None:
    (found,) = about_profile(plan_of(file, "model.dtype=fp32"))
    assert "no measurement of layer, embedding, head, encoder, decoder, optimizer at" in found["message"]
    assert found["advice"].startswith("what was measured is bf16: set model.dtype=bf16; or measure it")


@pytest.mark.parametrize("own", ["peers.efficiency=0.5", "peers.gpus=2"])
def test_where_nothing_is_taken_from_measurements_the_advice_is_another(file: Path, own: str) -> None:
    found = about_profile(plan_of(file, "model.vocab=1000", own))
    if own.startswith("peers.gpus"):
        assert "a calibration is of one GPU" in found[0]["advice"]
    else:
        assert found == []


def test_the_narrow_ends_need_no_measurement_where_boundaries_are_wide(tmp_path: Path) -> None:
    without = entry(boundary=None)
    without["pieces"] = {name: without["pieces"][name] for name in ("layer", "embedding", "head")}
    file = written(tmp_path / "wide.yaml", without)
    assert uncovered(gpu_profile(str(file)), load("minimal", ["pipeline.boundary={kind: none}"])) == []
    assert uncovered(gpu_profile(str(file)), load("minimal")) == ["encoder", "decoder"]


def test_several_shapes_may_stand_in_one_profile(tmp_path: Path) -> None:
    file = written(tmp_path / "two.yaml", entry(vocab=1000), entry())
    assert about_profile(plan_of(file)) == []
    assert about_profile(plan_of(file, "model.vocab=1000")) == []


def broken(tmp_path: Path, *entries: dict[str, Any]) -> str:
    with pytest.raises(ScenarioError) as error:
        gpu_profile(str(written(tmp_path / "broken.yaml", *entries)))
    return str(error.value)


def test_mistakes_are_refused_with_their_place(tmp_path: Path) -> None:
    assert "measured.1.shape: the same shape as measured.0; remove one" in broken(tmp_path, entry(), entry())
    assert "measured.0.shape.width: unknown key" in broken(tmp_path, entry(width=3))
    unknown = entry()
    unknown["pieces"]["tail"] = passes(1)
    assert "must be layer, embedding, head, encoder or decoder" in broken(tmp_path, unknown)
    halved = entry()
    del halved["pieces"]["head"]["weight_gradient"]
    assert "measured.0.pieces.head.weight_gradient: is missing" in broken(tmp_path, halved)
    wrong = entry()
    wrong["pieces"]["head"]["forward"]["p5"] = "1 s"
    assert "measured.0.pieces.head.forward.median: must lie between p5 and p95" in broken(tmp_path, wrong)
    bare = entry()
    bare["pieces"]["head"]["forward"]["median"] = 1
    assert "measured.0.pieces.head.forward.median: 1 has no unit" in broken(tmp_path, bare)
    falling = entry()
    falling["optimizer"].reverse()
    assert "measured.0.optimizer.1.parameters: must rise from entry to entry" in broken(tmp_path, falling)
    wide = entry(boundary=None)
    assert "measured.0.pieces.encoder: needs `shape.boundary`" in broken(tmp_path, wide)


def test_a_profile_of_the_command_line_takes_the_place_of_the_scenarios(file: Path) -> None:
    scenario = load("orion-100b", profile=file)
    assert scenario.peers.gpu == file.as_posix()
    assert scenario.provenance["peers.gpu"] == f"derived: measured with orionbed calibrate ({file.as_posix()})"
    rows = {row["key"]: row for row in assumptions(scenario)}
    assert rows["peers.gpu"]["kind"] == "derived"
    row = rows["gpus/here.measured.0.pieces.layer.forward.median"]
    assert (row["value"], row["kind"], row["source"]) == ("10 ms", "derived", "measured by a test")


def test_a_profile_made_by_hand_is_no_measurement() -> None:
    scenario = load("orion-100b", profile=Path("scenarios/gpus/h100-80gb.yaml"))
    assert scenario.provenance["peers.gpu"] == "assumed: set on the command line"
    keys = {row["key"] for row in assumptions(scenario)}
    assert "gpus/h100-80gb.peak" in keys
    assert keys.isdisjoint(f"gpus/h100-80gb.{name}" for name in ("device", "measured", "measurement"))


@pytest.mark.parametrize("name", ["nowhere.yaml", "README.md"])
def test_a_profile_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(ScenarioError, match=rf"^--profile {name}: must be a .yaml file that is there"):
        load("minimal", profile=Path(name))


def test_another_measurement_is_another_run(file: Path) -> None:
    before = run_id(load("minimal", profile=file), "sim", 0)
    text = file.read_text()
    assert "10 ms" in text
    file.write_text(text.replace("10 ms", "10.5 ms"))
    assert run_id(load("minimal", profile=file), "sim", 0).digest != before.digest
