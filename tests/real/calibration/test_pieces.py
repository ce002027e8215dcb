"""The pieces compute what a stage computes, whatever way their backward is done."""

import pytest
import torch

from orionbed.scenario.schedules import ResBMBoundary
from orionbed.training.shape import ModelShape
from real.calibration.copies import measure_loopback
from real.calibration.matmuls import DIRECTIONS, GRIDS, Grid, measure_rates, measured_peak, multiplies_of
from real.calibration.measure import Effort, HostClock, measure
from real.calibration.pieces import SECTIONS, Bench, optimizer_steps, pass_times, pieces_of
from real.calibration.policies import POLICIES, Layers, attention_kernel

SHAPE = ModelShape(
    layers_per_chunk=(1, 1, 1),
    hidden=32,
    ffn=64,
    heads=4,
    kv_heads=2,
    vocab=64,
    sequence=8,
    sequences=2,
    boundary=ResBMBoundary(kind="resbm", width=8),
)
QUICK = Effort(2, warm_up=1)


def bench(name: str) -> Bench:
    (found,) = (each for each in pieces_of(SHAPE, "cpu") if each.name == name)
    owner = found.run.__self__  # type: ignore[attr-defined]
    assert isinstance(owner, Bench)
    return owner


def test_without_a_narrow_boundary_there_are_no_encoder_and_decoder() -> None:
    wide = ModelShape((1, 1), 32, 64, 4, 2, 64, 8, 2, None)
    assert [each.name for each in pieces_of(wide, "cpu")] == ["layer", "embedding", "head"]
    assert [each.name for each in pieces_of(SHAPE, "cpu")] == ["layer", "embedding", "head", "encoder", "decoder"]


@pytest.mark.parametrize("name", ["layer", "embedding", "head", "encoder", "decoder"])
def test_a_whole_backward_and_its_halves_add_the_same_gradients(name: str) -> None:
    piece = bench(name)
    module = piece.call if isinstance(piece.call, torch.nn.Module) else None
    parameters = {id(p): p for p in (*piece.immediate, *(module.parameters() if module else ()))}
    seen: list[list[torch.Tensor]] = []

    def mark() -> None:
        seen.append([parameter.grad.clone() for parameter in parameters.values() if parameter.grad is not None])

    piece.run(mark)
    assert len(seen) == len(SECTIONS) + 1
    whole, both = seen[2], seen[5]
    assert whole
    for once, twice in zip(whole, both, strict=True):
        assert once.abs().max() > 0.0
        torch.testing.assert_close(twice, 2 * once)


def test_a_layer_is_half_of_two() -> None:
    times = {section: [2.0, 4.0, 6.0] for section in SECTIONS}
    assert pass_times("layer", times).forward.median == 2.0
    assert pass_times("head", times).weight_gradient.median == 4.0


def test_optimizer_steps_are_timed_by_size() -> None:
    found = measure(optimizer_steps(SHAPE, "cpu", (1000, 2000)), HostClock(), QUICK)
    assert list(found) == ["step 1000", "step 2000"]
    assert all(seconds > 0.0 for times in found.values() for seconds in times["step"])


def test_rates_hold_the_models_multiplies_and_the_grids() -> None:
    rates = measure_rates(SHAPE, "cpu", HostClock(), QUICK, grid=Grid((64,), (8,), 2**16))
    assert set(rates.matmul_flops) == multiplies_of(SHAPE) | {(8, 16, 16)}
    by_size = rates.by_smallest_dimension()
    assert list(by_size) == sorted(by_size) == [8, 16]
    assert all(set(found) == set(DIRECTIONS) for found in by_size.values())
    assert rates.best_flops >= max(rate for found in by_size.values() for rate in found.values())
    assert min(rates.streamed_bytes_per_s, rates.launch_s, *rates.attention_flops.values()) > 0.0


def test_the_peak_of_this_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(GRIDS, "cpu", Grid((64,), (), 0))
    assert 1e6 < measured_peak("float32", repetitions=3) < 1e15


def test_the_loopback_carries_bytes() -> None:
    found = measure_loopback()
    assert 1e7 < found.rate_bps < 1e13
    assert 1e-7 < found.delay_s < 0.1


def test_recompute_policies_compute_the_same_gradients() -> None:
    layers = Layers(SHAPE, 2, "cpu")
    gradients = []
    for policy in POLICIES:
        for parameter in layers.chunk.parameters():
            assert parameter.grad is not None
            parameter.grad.zero_()
        found = layers.time(policy, HostClock(), Effort(1, warm_up=0))
        assert found.policy == policy
        assert found.both_s == found.forward_s + found.backward_s > 0.0
        gradients.append([p.grad.clone() for p in layers.chunk.parameters() if p.grad is not None])
    for others in gradients[1:]:
        for one, other in zip(gradients[0], others, strict=True):
            torch.testing.assert_close(one, other)


def test_a_layer_keeps_more_than_its_input() -> None:
    one, two = (Layers(SHAPE, count, "cpu").kept_bytes() for count in (1, 2))
    stream = SHAPE.tokens * SHAPE.hidden * 4
    assert two - one > 6 * stream


def test_the_attention_kernel_names_itself() -> None:
    assert "_scaled_dot_product_flash_attention_for_cpu" in attention_kernel(SHAPE, "cpu")
