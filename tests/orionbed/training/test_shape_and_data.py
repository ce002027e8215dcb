"""Counts of parameters and bytes, and the synthetic text."""

import math
import time
from dataclasses import replace
from typing import Any

import pytest

from orionbed import model as arithmetic
from orionbed.scenario.schedules import BottleneckBoundary, QuantizeBoundary, TopKBoundary
from orionbed.training import data
from orionbed.training.shape import parameters_of


@pytest.mark.parametrize("num_chunks", [1, 2, 5])
@pytest.mark.parametrize("boundary", [None, 6])
def test_parameters_are_counted_as_they_are(num_chunks: int, boundary: int | None, small: Any) -> None:
    from orionbed.training.modules import make_chunk

    shape = replace(small(boundary=boundary), layers_per_chunk=(2, 1, 3, 0, 1)[:num_chunks])
    counts = [parameters_of(shape, chunk) for chunk in range(num_chunks)]
    made = [make_chunk(shape, chunk, 0) for chunk in range(num_chunks)]
    assert counts == [sum(parameter.numel() for parameter in chunk.parameters()) for chunk in made]
    ends = 0 if boundary is None else 2 * (num_chunks - 1) * 32 * boundary
    assert sum(counts) == arithmetic.num_parameters(shape) + ends
    assert {parameter.dtype for chunk in made for parameter in chunk.parameters()} == {shape.torch_dtype}


def test_bytes_of_the_boundary(small: Any) -> None:
    assert small().boundary_bytes == 2 * 8 * 32 * 8
    assert small(boundary=6, dtype="float32").boundary_bytes == 2 * 8 * 6 * 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layers_per_chunk": ()}, "layers_per_chunk"),
        ({"layers_per_chunk": (1, -1)}, "layers_per_chunk"),
        ({"vocab": 0}, "vocab must be at least 1"),
        ({"heads": 5}, "even multiple of heads 5"),
        ({"heads": 32, "kv_heads": 1}, "even multiple of heads 32"),
        ({"kv_heads": 3}, "kv_heads 3 must divide heads 4"),
        ({"boundary": 33}, "boundary width must be at most hidden 32, not 33"),
        ({"boundary": TopKBoundary(kind="topk", keep=33)}, "boundary keep must be at most hidden 32, not 33"),
        ({"boundary": QuantizeBoundary(kind="quantize", bits=3)}, "rounded to 4 or 8 bits, not to 3"),
        (
            {"boundary": BottleneckBoundary(kind="bottleneck", width=4), "layers_per_chunk": (1, 0)},
            "no chunk without layers",
        ),
        ({"dtype": "bf16"}, "dtype must be one of bfloat16, float32, float64"),
    ],
)
def test_a_shape_that_does_not_fit_together_is_refused(changes: dict[str, Any], message: str, small: Any) -> None:
    with pytest.raises(ValueError, match=message):
        small(**changes)


def test_text_depends_on_seed_and_number_alone(small: Any) -> None:
    import torch

    shape = small()
    tokens, targets = data.batch(shape, 1, 10)
    data.batch(shape, 1, 11)
    again, _ = data.batch(shape, 1, 10)
    assert torch.equal(tokens, again)
    assert torch.equal(tokens[:, 1:], targets[:, :-1])
    assert tokens.dtype == targets.dtype == torch.int64
    assert tokens.shape == targets.shape == (2, 8)
    assert not torch.equal(tokens, data.batch(shape, 1, 11)[0])
    assert not torch.equal(tokens, data.batch(shape, 2, 10)[0])


def test_text_can_be_learnt(small: Any) -> None:
    shape = small(sequences=300, sequence=40)
    tokens, targets = data.batch(shape, 1, 0)
    assert 0 <= int(tokens.min()) <= int(targets.max()) < shape.vocab
    followers: dict[int, set[int]] = {}
    for token, target in zip(tokens.flatten().tolist(), targets.flatten().tolist(), strict=True):
        followers.setdefault(token, set()).add(target)
    assert max(map(len, followers.values())) == len(data.ODDS)
    assert sum(-p * math.log(p) for p in data.ODDS) == pytest.approx(1.14, abs=0.005)
    starts = tokens[:, 0].tolist()
    assert starts.count(0) / 300 == pytest.approx(1 / sum(1 / rank for rank in range(1, 65)), abs=0.07)


def test_text_is_cheap(small: Any) -> None:
    shape = small(sequences=1, sequence=64)
    data.batch(shape, 1, 0)
    times = []
    for microbatch in range(20):
        started = time.perf_counter()
        data.batch(shape, 1, microbatch)
        times.append(time.perf_counter() - started)
    assert min(times) < 1e-3
