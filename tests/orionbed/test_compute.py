"""The cost model: shapes, flat efficiency, and what an Orion stage takes."""

from itertools import pairwise

import pytest

from orionbed.compute import Cost, CostModel
from orionbed.plan import make_plan
from orionbed.scenario import gpu_profile, load

GPU = gpu_profile("a100-80gb")


def test_efficiency_meets_the_measured_points_and_lies_between_them() -> None:
    costs = CostModel(GPU)
    for point in GPU.matmul:
        assert costs.matmul_efficiency(point.smallest_dimension, "forward") == pytest.approx(point.forward)
    for low, high in pairwise(GPU.matmul):
        middle = costs.matmul_efficiency((low.smallest_dimension + high.smallest_dimension) // 2, "weight_gradient")
        bounds = sorted((low.weight_gradient, high.weight_gradient))
        assert bounds[0] <= middle <= bounds[1]


def test_efficiency_outside_the_measured_range() -> None:
    costs = CostModel(GPU)
    first, last = GPU.matmul[0], GPU.matmul[-1]
    assert costs.matmul_efficiency(10 * last.smallest_dimension, "forward") == last.forward
    half = costs.matmul_efficiency(first.smallest_dimension // 2, "forward")
    assert half == pytest.approx(first.forward / 2)


def test_kernel_scale_multiplies_every_share() -> None:
    plain, scaled = CostModel(GPU), CostModel(GPU, kernel_scale=0.5)
    assert scaled.matmul_efficiency(3000, "forward") == pytest.approx(plain.matmul_efficiency(3000, "forward") / 2)


def test_a_matmul_is_its_flops_over_what_the_gpu_reaches() -> None:
    work = CostModel(GPU).matmul(8192, 8192, 8192)
    flops = 2.0 * 8192**3
    last = GPU.matmul[-1]
    assert work.forward_flops == flops
    assert work.backward_flops == 2 * flops
    assert work.forward_s == pytest.approx(flops / (GPU.peak * last.forward) + GPU.launch)
    gradients_s = flops / GPU.peak * (1 / last.input_gradient + 1 / last.weight_gradient)
    assert work.backward_s == pytest.approx(gradients_s + 2 * GPU.launch)


def test_one_number_for_efficiency_covers_everything() -> None:
    costs = CostModel(GPU, 0.5)
    scenario = load("orion-100b")
    layer = costs.layer(scenario.model, 8000, 800)
    assert layer.forward_s == pytest.approx(layer.forward_flops / (GPU.peak * 0.5))
    assert costs.optimizer_step_s(10**9, "bf16") == 0.0


def test_an_orion_stage_at_0_528_of_peak_takes_2_52_s() -> None:
    plan = make_plan(load("orion-100b", ["peers.efficiency=0.528", "peers.overhead=0 s"]))
    stage = plan.stages[5]
    recompute_and_backward = stage.costs["B"].duration_s
    assert stage.microbatch_s == pytest.approx(2.52, abs=0.02)
    assert recompute_and_backward == pytest.approx(3 * stage.costs["F"].duration_s)
    # 8 units of compute for a middle stage, 6 for the last, which forwards and backwards in one go.
    assert set(plan.stages[-1].costs) == {"B", "STEP"}


def test_recompute_policies_order_as_expected() -> None:
    def backward_s(policy: str) -> float:
        return make_plan(load("orion-100b", [f"pipeline.schedule.recompute={policy}"])).stages[3].costs["B"].duration_s

    assert backward_s("none") < backward_s("selective") < 1.05 * backward_s("none") < backward_s("full")


def test_measured_kernels_put_an_orion_stage_near_two_thirds_of_peak() -> None:
    plan = make_plan(load("orion-100b", ["peers.overhead=0 s"]))
    stage = plan.stages[3]
    flops = sum(stage.costs[kind].executed_flops for kind in ("F", "B"))
    assert 0.66 < flops / (plan.gpu.peak * stage.microbatch_s) < 0.69


def test_costs_add_up() -> None:
    total = Cost(model_s=1.0, recompute_flops=2.0) + Cost(model_s=2.0, optimizer_s=0.5, model_flops=4.0)
    assert total == Cost(model_s=3.0, optimizer_s=0.5, model_flops=4.0, recompute_flops=2.0)
    assert total.duration_s == 3.5
    assert total.executed_flops == 6.0
