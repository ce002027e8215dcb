"""Tensors to bytes and back: shared memory on a CPU, page-locked buffers that come back, copies beside a GPU's work."""

import gc
from dataclasses import replace

import pytest

from orionbed.scenario.schedules import Boundary, QuantizeBoundary, ResBMBoundary, TopKBoundary
from orionbed.training.shape import ModelShape

torch = pytest.importorskip("torch")
from real.queued import staging  # noqa: E402


def shape(dtype: str = "float32") -> ModelShape:
    narrow = ResBMBoundary(kind="resbm", width=4)
    return ModelShape((1, 1), 32, 48, 4, 2, 64, sequence=8, sequences=2, boundary=narrow, dtype=dtype)


# ---------------------------------------------------------------- on a CPU


@pytest.mark.parametrize("dtype", ["bfloat16", "float32", "float64"])
def test_what_was_sent_arrives_bit_for_bit(dtype: str) -> None:
    both = staging.make_staging(shape(dtype), "cpu")
    tensor = torch.randn(shape(dtype).boundary_shape).to(shape(dtype).torch_dtype)
    body = both.outgoing(tensor)
    assert body.nbytes == shape(dtype).boundary_bytes
    came = both.incoming(both.arrived(memoryview(bytearray(body))))
    assert came.dtype == tensor.dtype
    assert torch.equal(came, tensor)


@pytest.mark.parametrize(
    "boundary", [QuantizeBoundary(kind="quantize", bits=4), TopKBoundary(kind="topk", keep=5)], ids=lambda b: b.kind
)
def test_packed_bytes_arrive_as_they_were(boundary: Boundary) -> None:
    packed = replace(shape(), boundary=boundary)
    tensor = torch.randint(0, 256, packed.boundary_shape, dtype=torch.uint8)
    both = staging.make_staging(packed, "cpu")
    body = both.outgoing(tensor)
    assert body.nbytes == packed.boundary_bytes
    assert both.incoming(both.arrived(memoryview(bytearray(body)))).equal(tensor)


def test_nothing_is_copied_where_memory_can_be_shared() -> None:
    both = staging.SharedMemory(shape())
    tensor = torch.zeros(shape().boundary_shape)
    body = both.outgoing(tensor)
    tensor.fill_(1.5)
    assert torch.equal(both.incoming(body), tensor)
    buffer = bytearray(shape().boundary_bytes)
    came = both.incoming(memoryview(buffer))
    buffer[:4] = body[:4]
    assert came.flatten()[0] == 1.5


def test_a_tensor_that_does_not_lie_in_one_piece_and_memory_that_is_read_only_are_copied() -> None:
    both = staging.SharedMemory(shape())
    turned = torch.randn(tuple(reversed(shape().boundary_shape))).permute(2, 1, 0)
    came = both.incoming(bytes(both.outgoing(turned)))
    assert torch.equal(came, turned)
    came.add_(1.0)  # must be possible


# ---------------------------------------------------------------- buffers


def test_a_buffer_is_used_again_when_the_last_view_of_it_is_gone() -> None:
    pool = staging.Pool(lambda count: torch.empty(count, dtype=torch.uint8))
    first, view = pool.take(64)
    part = view[8:16]
    del view
    second, _ = pool.take(64)
    assert second.data_ptr() != first.data_ptr()
    assert pool.num_made == 2
    del part
    gc.collect()
    third, _ = pool.take(64)
    assert third.data_ptr() in {first.data_ptr(), second.data_ptr()}
    assert pool.num_made == 2
    assert pool.take(32)[0].numel() == 32
    assert pool.num_made == 3


# ---------------------------------------------------------------- on a GPU

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")


@needs_gpu
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_a_gpu_s_tensor_arrives_bit_for_bit(dtype: str) -> None:
    both = staging.make_staging(shape(dtype), "cuda:0")
    tensor = torch.randn(shape(dtype).boundary_shape, device="cuda:0").to(shape(dtype).torch_dtype)
    body = both.outgoing(tensor)
    came = both.incoming(both.arrived(memoryview(bytearray(body()))))
    assert came.device == tensor.device
    assert torch.equal(came, tensor)
    assert torch.equal(both.incoming(body), tensor)  # a peer that sends to itself


@needs_gpu
def test_a_result_is_copied_before_it_is_sent_however_late_it_is_computed() -> None:
    both = staging.make_staging(shape(), "cuda:0")
    heavy = torch.randn(4096, 4096, device="cuda:0")
    for number in range(20):
        for _ in range(4):
            heavy = torch.nn.functional.normalize(heavy @ heavy)
        tensor = torch.full(shape().boundary_shape, float(number), device="cuda:0") + 0.0 * heavy[0, 0]
        body = both.outgoing(tensor)
        del tensor
        assert torch.frombuffer(bytearray(body()), dtype=torch.float32).unique().tolist() == [float(number)]
