"""Bits of a contribution, to the bit."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from orionbed.merging.coding import contribution_bits, moved_weight_bits
from orionbed.plan import make_plan
from orionbed.scenario import load
from orionbed.scenario.merging import Codec

CODEC: TypeAdapter[Any] = TypeAdapter(Codec)


def bits(parameters: int, **codec: Any) -> int:
    return contribution_bits(CODEC.validate_python(codec), parameters, 2 * parameters)


def test_sparse_is_146_times_smaller_than_32_bits() -> None:
    assert bits(4096, kind="sparse") == 64 * 14 == 896
    assert bits(4096, kind="sparse") / 4096 == 0.21875
    assert round(32 / 0.21875, 1) == 146.3


def test_the_last_chunk_keeps_what_it_has() -> None:
    assert bits(4096 + 10, kind="sparse") == (64 + 10) * 14
    assert bits(4096 + 100, kind="sparse") == (64 + 64) * 14


@pytest.mark.parametrize(("chunk", "place_bits"), [(2, 1), (4096, 12), (4097, 13)])
def test_a_place_takes_as_many_bits_as_a_chunk_has_places(chunk: int, place_bits: int) -> None:
    assert bits(chunk, kind="sparse", keep=1, chunk=chunk, bits=3) == place_bits + 3


@given(st.integers(1, 10**10))
def test_plain_and_int8_are_16_and_8_bits_per_parameter(parameters: int) -> None:
    assert bits(parameters, kind="none") == 16 * parameters
    assert bits(parameters, kind="int8") == 8 * parameters


@given(st.integers(1, 10**10), st.integers(1, 10**9))
def test_sparta_sends_whole_numbers_of_its_share(parameters: int, billionths: int) -> None:
    sent = bits(parameters, kind="sparta", share=billionths / 1e9)
    assert sent % 16 == 0
    assert 0 <= sent // 16 * 10**9 - billionths * parameters < 10**9


def test_what_orion_would_send_of_a_stage() -> None:
    stage = max(make_plan(load("orion-100b")).stages, key=lambda one: one.parameters)
    sent = {
        kind: contribution_bits(CODEC.validate_python({"kind": kind}), stage.parameters, stage.weight_bytes) / 8e9
        for kind in ("none", "int8", "sparse", "sparta")
    }
    assert {kind: round(size, 4) for kind, size in sent.items()} == {
        "none": 12.9669, "int8": 6.4835, "sparse": 0.1773, "sparta": 0.0065,
    }  # fmt: skip
    whole = CODEC.validate_python({"kind": "int8"})
    assert moved_weight_bits(whole, stage.parameters, stage.weight_bytes) == 8 * stage.weight_bytes
