"""Arithmetic that must come out exactly: the public Orion-100B configuration and closed forms."""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orionbed import model as arithmetic
from orionbed.scenario.schedules import (
    BottleneckBoundary,
    Boundary,
    NoBoundary,
    QuantizeBoundary,
    ResBMBoundary,
    SubspaceBoundary,
    TopKBoundary,
)


@dataclass(frozen=True)
class Shape:
    layers: int
    hidden: int
    ffn: int
    heads: int
    kv_heads: int
    vocab: int = 128256
    tied_embeddings: bool = False
    dtype: str = "bf16"
    block: str = "llama"
    positions: int = 0
    attention: str = "flash"


ORION = Shape(layers=90, hidden=9216, ffn=32256, heads=72, kv_heads=8)
ORION_SPLIT = [4, *[6] * 12, 5, 5, 4]


def test_orion_has_exactly_as_many_parameters_as_the_public_configuration_says() -> None:
    assert arithmetic.num_parameters(ORION) == 99_615_863_808
    assert arithmetic.layer_parameters(ORION) == 1_080_576_000


@pytest.mark.parametrize(
    ("shape", "num_stages", "split"),
    [
        (ORION, 16, ORION_SPLIT),
        (ORION, 23, [3, *[4] * 21, 3]),
        (Shape(50, 5120, 13824, 40, 8), 5, [8, 11, 11, 11, 9]),
        (Shape(16, 2048, 8192, 32, 8), 3, [4, 8, 4]),
    ],
)
def test_balanced_split_meets_every_published_split(shape: Shape, num_stages: int, split: list[int]) -> None:
    assert arithmetic.balanced_split(shape, num_stages) == split


def test_orion_stage_parameters() -> None:
    parameters = arithmetic.stage_parameters(ORION, ORION_SPLIT)
    embedding = 128256 * 9216
    assert parameters[0] == 4 * 1_080_576_000 + embedding
    assert parameters[1:13] == [6_483_456_000] * 12
    assert parameters[13:15] == [5_402_880_000] * 2
    assert parameters[15] == 4 * 1_080_576_000 + embedding + 9216
    assert sum(parameters) == 99_615_863_808


def test_orion_boundary_is_64_times_narrower() -> None:
    plain = arithmetic.boundary_bytes(8000, 9216, "bf16", None)
    narrow = arithmetic.boundary_bytes(8000, 9216, "bf16", ResBMBoundary(kind="resbm", width=144))
    assert (plain, narrow, plain / narrow) == (147_456_000, 2_304_000, 64.0)
    assert plain / 2**20 == 140.625
    assert round(narrow / 2**20, 3) == 2.197


@pytest.mark.parametrize(
    ("boundary", "expected"),
    [
        (NoBoundary(kind="none"), 8 * 64 * 2),
        (BottleneckBoundary(kind="bottleneck", width=4), 8 * 4 * 2),
        (SubspaceBoundary(kind="subspace", width=4), 8 * 4 * 2),
        (QuantizeBoundary(kind="quantize", bits=4), 8 * (64 // 2 + 4)),
        (QuantizeBoundary(kind="quantize", bits=3), 8 * (24 + 4)),
        (TopKBoundary(kind="topk", keep=5), 8 * 5 * (2 + 2)),
    ],
)
def test_boundary_bytes_by_kind(boundary: Boundary, expected: int) -> None:
    assert arithmetic.boundary_bytes(8, 64, "bf16", boundary) == expected


def test_rows_are_whole_bytes_and_indices_as_long_as_they_must_be() -> None:
    assert arithmetic.boundary_bytes(3, 5, "fp32", QuantizeBoundary(kind="quantize", bits=4)) == 3 * (3 + 4)
    assert arithmetic.boundary_bytes(1, 2**16, "bf16", TopKBoundary(kind="topk", keep=1)) == 2 + 2
    assert arithmetic.boundary_bytes(1, 2**16 + 1, "bf16", TopKBoundary(kind="topk", keep=1)) == 2 + 4


def test_encoders_and_decoders_of_orion_are_four_in_ten_thousand_of_its_parameters() -> None:
    linear = ResBMBoundary(kind="resbm", width=144)
    each = 2 * arithmetic.boundary_end_parameters(9216, linear)
    assert each == 2_654_208
    assert 15 * each / arithmetic.num_parameters(ORION) == pytest.approx(0.0004, rel=0.01)
    wide = linear.model_copy(update={"encoder": "mlp"})
    assert arithmetic.boundary_end_parameters(9216, wide) == 576 * (9216 + 144)
    for boundary in (None, NoBoundary(kind="none"), SubspaceBoundary(kind="subspace", width=144)):
        assert arithmetic.boundary_end_parameters(9216, boundary) == 0


def test_orion_flops() -> None:
    assert arithmetic.flops_per_token(ORION) == 6 * 99_615_863_808
    share = arithmetic.attention_flops_per_token(ORION, 800) / arithmetic.flops_per_token(ORION)
    assert round(share, 4) == 0.0067
    parameters = arithmetic.stage_parameters(ORION, ORION_SPLIT)
    executed = arithmetic.executed_flops_per_token
    assert executed(ORION, ORION_SPLIT, "full", last_recomputes=False) == 8 * sum(parameters[:-1]) + 6 * parameters[-1]
    assert executed(ORION, ORION_SPLIT, "full", last_recomputes=True) == 8 * 99_615_863_808
    assert executed(ORION, ORION_SPLIT, "none", last_recomputes=False) == 6 * 99_615_863_808


def test_what_an_orion_layer_keeps() -> None:
    assert arithmetic.layer_activation_bytes(ORION, 8000) == 2 * 8000 * (6 * 9216 + 2 * 1024 + 3 * 32256)
    # A fused kernel keeps no scores, so selective recompute saves nothing.
    assert arithmetic.layer_activation_bytes(ORION, 8000, selective=True) == arithmetic.layer_activation_bytes(
        ORION, 8000
    )
    cut = arithmetic.layer_activation_bytes(ORION, 8000, gpus=8)
    assert cut == 2 * 8000 * (4 * 9216 + (2 * 9216 + 2 * 1024 + 3 * 32256) // 8)
    assert arithmetic.layer_activation_bytes(ORION, 8000, gpus=8, sequence_parallel=True) == (
        arithmetic.layer_activation_bytes(ORION, 8000) // 8
    )


def test_logits_exist_in_chunks_or_whole() -> None:
    assert arithmetic.logits_bytes(ORION, 8000) == 1024 * 128256 * 10
    assert arithmetic.logits_bytes(ORION, 100) == 100 * 128256 * 10
    assert arithmetic.logits_bytes(gpt(2, 64, 4), 8000) == 8000 * 51200 * 6


def gpt(layers: int, hidden: int, heads: int) -> Shape:
    return Shape(
        layers, hidden, 4 * hidden, heads, heads, vocab=51200, tied_embeddings=True, dtype="fp16",
        block="gpt", positions=2048, attention="unfused",
    )  # fmt: skip


def test_gpt_counts_biases_and_positions() -> None:
    shape = gpt(3, 64, 4)
    assert arithmetic.layer_parameters(shape) == 12 * 64**2 + 13 * 64
    assert arithmetic.num_parameters(shape) == 3 * (12 * 64**2 + 13 * 64) + (51200 + 2048) * 64 + 2 * 64
    assert arithmetic.stage_parameters(shape, [2, 1]) == [
        2 * arithmetic.layer_parameters(shape) + (51200 + 2048) * 64,
        arithmetic.layer_parameters(shape) + 2 * 64 + 51200 * 64,
    ]


def test_gpt_with_few_key_heads_and_another_inner_width() -> None:
    shape = Shape(1, 64, 100, 4, 2, vocab=10, block="gpt")
    attention = 2 * (64 * 64 + 64) + 2 * (64 * 32 + 32)
    assert arithmetic.layer_parameters(shape) == attention + 64 * 100 + 100 + 100 * 64 + 64 + 4 * 64


@given(hidden=st.integers(1, 32).map(lambda n: 64 * n), sequences=st.integers(1, 4), gpus=st.sampled_from([1, 2, 4, 8]))
def test_gpt_activations_follow_the_published_formulas(hidden: int, sequences: int, gpus: int) -> None:
    shape, sequence = gpt(1, hidden, 16), 256
    tokens = sequence * sequences

    def kept(**policy: bool) -> int:
        return arithmetic.layer_activation_bytes(shape, tokens, sequence=sequence, gpus=gpus, **policy)

    squares = 5 * 16 * sequence / hidden
    assert kept() == pytest.approx(tokens * hidden * (10 + (24 + squares) / gpus), rel=1e-12)
    assert kept(selective=True) == tokens * hidden * (10 + 24 // gpus)
    assert kept(sequence_parallel=True) == pytest.approx(tokens * hidden * (34 + squares) / gpus, rel=1e-12)
    assert kept(sequence_parallel=True, selective=True) == pytest.approx(tokens * hidden * 34 / gpus, rel=1e-12)


def test_tied_embeddings_count_once_in_the_model_and_on_both_end_stages() -> None:
    tied = Shape(4, 64, 128, 4, 2, vocab=100, tied_embeddings=True)
    free = Shape(4, 64, 128, 4, 2, vocab=100)
    assert arithmetic.num_parameters(free) - arithmetic.num_parameters(tied) == 6400
    assert sum(arithmetic.stage_parameters(tied, [2, 2])) == arithmetic.num_parameters(free)
    assert sum(arithmetic.stage_parameters(tied, [4])) == arithmetic.num_parameters(tied)


@given(layers=st.integers(1, 120), num_stages=st.integers(1, 24), vocab=st.integers(1, 500_000))
def test_a_balanced_split_spends_every_layer_and_no_move_of_one_layer_improves_it(
    layers: int, num_stages: int, vocab: int
) -> None:
    shape = Shape(layers, 256, 1024, 4, 4, vocab=vocab)
    split = arithmetic.balanced_split(shape, num_stages)
    assert sum(split) == layers
    ends = arithmetic.embedding_parameters(shape) / arithmetic.layer_parameters(shape)
    load = [n + ends * ((s == 0) + (s == num_stages - 1)) for s, n in enumerate(split)]
    fullest = max(range(num_stages), key=lambda s: load[s])
    if split[fullest]:
        assert all(load[s] + 1 >= load[fullest] - 1e-9 for s in range(num_stages))


@given(split=st.lists(st.integers(1, 9), min_size=2, max_size=12))
def test_stage_parameters_add_up(split: list[int]) -> None:
    shape = Shape(sum(split), 128, 512, 4, 2)
    assert sum(arithmetic.stage_parameters(shape, split)) == arithmetic.num_parameters(shape)
