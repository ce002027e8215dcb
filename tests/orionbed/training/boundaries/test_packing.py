"""What crosses as bytes: how many, what comes back, and what error feedback adds up to."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orionbed import model as arithmetic
from orionbed.scenario.schedules import Boundary, QuantizeBoundary, TopKBoundary
from orionbed.training.boundaries.packing import packing_of
from orionbed.training.boundaries.sending import Boundaries
from orionbed.training.shape import BYTES_PER_VALUE, ModelShape
from orionbed.training.worker import StageWorker

FORMATS = {"bfloat16": "bf16", "float32": "fp32", "float64": None}


def shape_of(boundary: Boundary, dtype: str, hidden: int, sequences: int, sequence: int) -> ModelShape:
    return ModelShape((1, 1), hidden, 8, 1, 1, 16, sequence, sequences, boundary, dtype)


def random(shape: ModelShape, seed: int = 0) -> Any:
    import torch

    size = (shape.sequences, shape.sequence, shape.hidden)
    drawn = torch.randn(size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return drawn.to(shape.torch_dtype)


boundaries = st.one_of(
    st.builds(QuantizeBoundary, kind=st.just("quantize"), bits=st.sampled_from([4, 8]), error_feedback=st.booleans()),
    st.builds(TopKBoundary, kind=st.just("topk"), keep=st.integers(1, 16), error_feedback=st.booleans()),
)


@settings(max_examples=60, deadline=None)
@given(boundaries, st.sampled_from(sorted(FORMATS)), st.integers(8, 12), st.integers(1, 3), st.integers(1, 5))
def test_bytes_are_those_that_cross(boundary: Boundary, dtype: str, half: int, sequences: int, sequence: int) -> None:
    shape = shape_of(boundary, dtype, 2 * half, sequences, sequence)
    packing = packing_of(shape)
    assert packing is not None
    packed = packing.pack(random(shape))
    assert (tuple(packed.shape), packed.dtype) == (shape.boundary_shape, shape.boundary_dtype)
    assert packed.nbytes == shape.boundary_bytes
    each = BYTES_PER_VALUE[dtype]
    assert packed.nbytes == shape.tokens * arithmetic.boundary_token_bytes(shape.hidden, each, boundary)
    name = FORMATS[dtype]
    if name is not None:
        assert packed.nbytes == arithmetic.boundary_bytes(shape.tokens, shape.hidden, name, boundary)
    back = packing.unpack(packed)
    assert (back.shape, back.dtype) == (random(shape).shape, shape.torch_dtype)
    assert packing.pack(random(shape)).equal(packed), "the same values give the same bytes"


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
def test_rounding_errs_by_half_a_step_at_most(bits: int, dtype: str) -> None:
    shape = shape_of(QuantizeBoundary(kind="quantize", bits=bits), dtype, 32, 2, 8)
    packing, values = packing_of(shape), random(shape)
    assert packing is not None
    step = values.abs().amax(dim=-1, keepdim=True).double() / (2 ** (bits - 1) - 1)
    error = (packing.unpack(packing.pack(values)).double() - values.double()).abs()
    rounding = {"float64": 0.0, "float32": 1e-6, "bfloat16": 2**-8}[dtype]  # of the result, to its own format
    assert (error <= 0.5 * step * (1 + 1e-5) + rounding * values.double().abs().amax()).all()
    assert (error > 0.2 * step).any()


def test_the_largest_values_come_back_as_they_were_and_the_first_of_equals() -> None:
    import torch

    shape = shape_of(TopKBoundary(kind="topk", keep=3), "float64", 8, 1, 1)
    packing = packing_of(shape)
    assert packing is not None
    values = torch.tensor([[[0.1, -3.0, 2.0, 2.0, 0.0, -2.0, 1.0, 0.5]]], dtype=torch.float64)
    expected = torch.tensor([[[0.0, -3.0, 2.0, 2.0, 0.0, 0.0, 0.0, 0.0]]], dtype=torch.float64)
    assert packing.unpack(packing.pack(values)).equal(expected)


def test_indices_reach_the_end_of_a_wide_token() -> None:
    import torch

    for hidden in (40_000, 70_000):
        shape = shape_of(TopKBoundary(kind="topk", keep=2), "float32", hidden, 1, 1)
        packing, values = packing_of(shape), torch.zeros(1, 1, hidden)
        assert packing is not None
        values[..., hidden - 1], values[..., hidden - 2] = 2.0, -1.0
        assert packing.unpack(packing.pack(values)).equal(values)


def test_bytes_that_are_no_packed_values_are_refused() -> None:
    import torch

    shape = shape_of(TopKBoundary(kind="topk", keep=3), "float32", 8, 1, 1)
    packing = packing_of(shape)
    assert packing is not None
    with pytest.raises(ValueError, match="not packed values"):
        packing.unpack(torch.full(shape.boundary_shape, 255, dtype=torch.uint8))


@pytest.mark.parametrize("bits", [4, 8])
def test_zero_stays_zero_and_what_is_not_finite_is_seen(bits: int) -> None:
    import torch

    shape = shape_of(QuantizeBoundary(kind="quantize", bits=bits), "float32", 8, 1, 3)
    packing = packing_of(shape)
    assert packing is not None
    values = torch.zeros(1, 3, 8)
    values[0, 1, 2], values[0, 2, 3] = float("inf"), float("nan")
    back = packing.unpack(packing.pack(values))
    assert back[0, 0].equal(torch.zeros(8))
    assert back[0, 1:].isnan().all()


def test_what_was_sent_adds_up_to_what_should_have_been(packed: Any) -> None:
    """The sum is off by the last tensor's rounding, however many were sent; without feedback it drifts off."""
    shape = shape_of(packed, "float64", 32, 2, 8)
    sender, wanted, sent, errors = Boundaries(shape), 0.0, 0.0, []
    constant = random(shape)
    for number in range(200):
        values = constant + 0.1 * random(shape, number)
        wanted = wanted + values
        sent = sent + sender.receive(sender.send((0, "F"), values))
        errors.append((sent - wanted).abs().max().item())
    if packed.error_feedback:
        assert (sent + sender.residuals[0, "F"] - wanted).abs().max() < 1e-10
        assert errors[-1] <= 1.5 * max(errors[:100]), "bounded"
        assert errors[-1] / 200 < 0.05
    else:
        assert errors[-1] > 5 * errors[9], "it grows"
        assert sender.residuals == {}


def test_each_sender_has_what_it_left_out_itself() -> None:
    shape = shape_of(QuantizeBoundary(kind="quantize", bits=4), "float64", 32, 2, 8)
    sender, alone = Boundaries(shape), Boundaries(shape)
    for number in range(3):
        expected = alone.send((1, "B"), random(shape, number))
        sender.send((0, "F"), random(shape, 10 + number))
        assert sender.send((1, "B"), random(shape, number)).equal(expected)


def test_a_worker_goes_on_with_what_it_had_left_to_send(packed: Any, small: Any) -> None:
    from orionbed.scenario.training import InnerOptimizer

    how: Any = {"seed": 3, "optimizer": InnerOptimizer(learning_rate=1e-2)}
    shape = small(3, boundary=packed)
    first, one, other = StageWorker(shape, [0], **how), StageWorker(shape, [1], **how), StageWorker(shape, [1], **how)

    def both_ways(worker: StageWorker, number: int) -> tuple[Any, Any]:
        sent = worker.forward(1, number, first.forward(0, number, None))
        first.forget(number)
        return sent, worker.backward(1, number, sent)

    both_ways(one, 0)
    state, residuals = one.state(), one.residuals()
    assert len(residuals) == (2 * shape.tokens * shape.hidden * 8 if packed.error_feedback else 0)
    other.load_state(state)
    other.load_residuals(residuals)
    assert other.residuals() == residuals
    left = first.residuals()
    expected = both_ways(one, 1)
    first.load_residuals(left)
    for found, wanted in zip(both_ways(other, 1), expected, strict=True):
        assert found.equal(wanted)
    with pytest.raises(ValueError, match="residuals of boundaries have 3 bytes"):
        other.load_residuals(b"abc")
    other.reset()
    assert not any(other.residuals())
