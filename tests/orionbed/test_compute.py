"""The cost model: shapes, flat efficiency, and what an Orion stage takes."""

from dataclasses import replace
from itertools import pairwise

import pytest

from orionbed import traffic
from orionbed.compute import Cost, CostModel, Work, peak_of
from orionbed.model import Transformer
from orionbed.plan import make_plan
from orionbed.scenario import gpu_profile, load

GPU = gpu_profile("a100-80gb")
ORION = load("orion-100b").model
GPT = ORION.model_copy(
    update={"block": "gpt", "attention": "unfused", "ffn": 4 * ORION.hidden, "kv_heads": ORION.heads, "dtype": "fp16"}
)


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


def test_a_multiply_is_never_faster_than_its_operands_arrive() -> None:
    gpu = GPU.model_copy(update={"memory_bandwidth": 100e9})
    work = CostModel(gpu).matmul(4096, 4096, 512)
    bytes_s = 2 * (4096**2 + 2 * 4096 * 512) / (100e9 * gpu.memory_efficiency)
    assert work.forward_s == work.input_gradient_s == pytest.approx(bytes_s + gpu.launch)
    assert work.forward_s > 2 * CostModel(GPU).matmul(4096, 4096, 512).forward_s


def test_fp32_has_a_peak_of_its_own() -> None:
    gpu = GPU.model_copy(update={"peak_fp32": 19.5e12})
    assert peak_of(gpu, "fp32") == 19.5e12
    assert peak_of(gpu, "fp16") == peak_of(gpu.model_copy(update={"peak_fp32": None}), "fp32") == gpu.peak
    costs = CostModel(gpu)
    slow, fast = (costs.matmul(4096, 4096, 4096, dtype).forward_s - gpu.launch for dtype in ("fp32", "bf16"))
    assert slow / fast == pytest.approx(gpu.peak / 19.5e12)


@pytest.mark.parametrize("model", [ORION, GPT])
def test_the_backward_is_its_two_halves(model: Transformer) -> None:
    work = CostModel(GPU, gpus=2).layer(model, 8000, 800)
    assert work.backward_s == work.input_gradient_s + work.weight_gradient_s
    assert work.backward_flops == 2 * work.forward_flops
    attention = CostModel(GPU, gpus=2).attention_core(model, 8000, 800)
    # Weights have no part in attention; every other multiply has one gradient in each half.
    assert attention.weight_gradient_s == attention.weight_gradient_flops == 0.0
    assert work.weight_gradient_flops == work.forward_flops - attention.forward_flops


@pytest.mark.parametrize("model", [ORION, GPT])
def test_cutting_a_layer_changes_no_flops_and_saves_less_than_a_perfect_cut(model: Transformer) -> None:
    one, eight = (CostModel(GPU, gpus=gpus).layer(model, 8000, 800) for gpus in (1, 8))
    assert eight.forward_flops == one.forward_flops
    assert eight.backward_flops == one.backward_flops
    assert one.forward_s / 8 < eight.forward_s < one.forward_s
    cut_further = CostModel(GPU, gpus=8, sequence_parallel=True).layer(model, 8000, 800)
    assert cut_further.forward_s < eight.forward_s


def test_a_ring_moves_every_byte_twice_but_for_the_own_share() -> None:
    costs = CostModel(GPU, gpus=4, link_bytes_per_s=100e9)
    assert costs.all_reduce_s(1e9) == pytest.approx(1.5e9 / (100e9 * GPU.link_efficiency) + GPU.link_delay)
    assert CostModel(GPU).all_reduce_s(1e9) == 0.0


def test_collectives_of_the_backward_hide_behind_weight_gradients_as_far_as_they_fit() -> None:
    def backward_s(*, overlap: bool, link_bytes_per_s: float = 300e9, sequence_parallel: bool = False) -> float:
        costs = CostModel(
            GPU,
            gpus=8,
            link_bytes_per_s=link_bytes_per_s,
            overlap_collectives=overlap,
            sequence_parallel=sequence_parallel,
        )
        return costs.layer(GPT, 8000, 800).backward_s

    def all_reduce_s(link_bytes_per_s: float) -> float:
        return CostModel(GPU, gpus=8, link_bytes_per_s=link_bytes_per_s).all_reduce_s(2.0 * 8000 * GPT.hidden)

    assert backward_s(overlap=False) - backward_s(overlap=True) == pytest.approx(2 * all_reduce_s(300e9))
    # With sequence parallelism the reduce-scatter hides and the all-gather does not.
    halves = backward_s(overlap=False, sequence_parallel=True) - backward_s(overlap=True, sequence_parallel=True)
    assert halves == pytest.approx(all_reduce_s(300e9) + GPU.link_delay)
    # On a slow link only as much hides as there are weight gradients of q, k, v and the first matrix.
    costs = CostModel(GPU, gpus=8)
    hidden_s = sum(
        costs.matmul(8000, GPT.hidden, columns).weight_gradient_s for columns in (3 * GPT.hidden // 8, GPT.ffn // 8)
    )
    slow = backward_s(overlap=False, link_bytes_per_s=1e9) - backward_s(overlap=True, link_bytes_per_s=1e9)
    assert slow == pytest.approx(hidden_s)


def test_unfused_attention_does_the_full_square_and_moves_its_scores() -> None:
    costs = CostModel(GPU)
    unfused, fused = (
        costs.attention_core(GPT.model_copy(update={"attention": kind}), 8192, 2048) for kind in ("unfused", "flash")
    )
    assert unfused.forward_flops == 2 * fused.forward_flops == 4.0 * GPT.hidden * 2048 * 8192
    passes_s = 2.0 * 8192 * 2048 * GPT.heads / (GPU.memory_bandwidth * GPU.memory_efficiency)
    assert unfused.forward_s > 6 * passes_s
    assert unfused.backward_s > 9 * passes_s


def test_embedding_and_head_are_cut_by_vocabulary() -> None:
    one, eight = CostModel(GPU), CostModel(GPU, gpus=8)
    assert eight.head(GPT, 8192).forward_s < one.head(GPT, 8192).forward_s / 4
    assert eight.head(GPT, 8192).forward_flops == one.head(GPT, 8192).forward_flops
    stream_s = eight.all_reduce_s(2.0 * 8192 * GPT.hidden)
    assert eight.embedding(GPT, 8192).forward_s == pytest.approx(one.embedding(GPT, 8192).forward_s + stream_s)
    assert one.embedding(GPT, 8192).input_gradient_s == 0.0
    with_positions = GPT.model_copy(update={"positions": 2048})
    assert one.embedding(with_positions, 8192).forward_s > one.embedding(GPT, 8192).forward_s


def test_a_boundary_encoder_is_cut_by_tokens() -> None:
    assert CostModel(GPU, gpus=4).narrowing(ORION, 8000, 144) == replace(
        CostModel(GPU).narrowing(ORION, 2000, 144),
        forward_flops=2.0 * 8000 * 9216 * 144,
        input_gradient_flops=2.0 * 8000 * 9216 * 144,
        weight_gradient_flops=2.0 * 8000 * 9216 * 144,
    )


def test_the_optimizer_steps_over_its_share_and_moves_more_with_fp32_weights() -> None:
    def step_s(gpus: int, state_bytes: int = 0) -> float:
        return CostModel(GPU, gpus=gpus).optimizer_step_s(8 * 10**9, "fp16", state_bytes) - 100 * GPU.launch

    assert step_s(8) == pytest.approx(step_s(1) / 8)
    assert step_s(1, 8) == step_s(1)
    assert step_s(1, 16) / step_s(1) == pytest.approx(traffic.MIXED_OPTIMIZER_BYTES / (2 * traffic.OPTIMIZER_PASSES))


def test_measured_seconds_take_the_place_of_modelled_ones() -> None:
    measured = CostModel(GPU).layer(GPT, 8000, 800).taking(1.0, 2.0, 3.0)
    assert (measured.forward_s, measured.backward_s) == (1.0, 5.0)
    assert measured.forward_flops == CostModel(GPU).layer(GPT, 8000, 800).forward_flops


def test_work_adds_and_multiplies_field_by_field() -> None:
    one = Work(1.0, 2.0, 3.0, 4.0, 5.0, 6.0)
    assert one + one == one.times(2) == Work(2.0, 4.0, 6.0, 8.0, 10.0, 12.0)


def test_an_orion_layer_takes_what_it_took_before_tensor_parallelism() -> None:
    layer = CostModel(GPU).layer(ORION, 8000, 800)
    assert layer.forward_s == pytest.approx(0.0817110930100226, rel=1e-9)
    assert layer.backward_s == pytest.approx(0.1673372944641283, rel=1e-9)
