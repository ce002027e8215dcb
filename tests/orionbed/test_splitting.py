"""Layers dealt by speed: optimal, equal to the balanced split for equal stages, and within memory."""

from itertools import product
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orionbed.model import balanced_split
from orionbed.splitting import by_speed, load_of

ORION = {"hidden": 9216, "ffn": 32256, "heads": 72, "kv_heads": 8, "vocab": 128256}
SMALL = {"hidden": 256, "ffn": 1024, "heads": 4, "kv_heads": 4, "vocab": 1000}


def model(layers: int, shape: dict[str, int] = SMALL) -> Any:
    return SimpleNamespace(layers=layers, block="llama", positions=0, tied_embeddings=False, **shape)


def anything(split: list[int]) -> list[bool]:
    return [True] * len(split)


def slowest_s(split: tuple[int, ...], of: Any, speeds: list[float]) -> float:
    return max(load / speed for load, speed in zip(load_of(of, split), speeds, strict=True))


@pytest.mark.parametrize(("layers", "stages"), [(90, 16), (90, 23), (66, 17), (8, 8), (7, 2)])
@pytest.mark.parametrize("speed", [1.0, 0.3, 17.0])
def test_equal_speeds_give_the_balanced_split(layers: int, stages: int, speed: float) -> None:
    of = model(layers, ORION)
    assert by_speed(of, [speed] * stages, anything) == balanced_split(of, stages)


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 9), st.lists(st.floats(0.05, 20.0), min_size=1, max_size=4), st.integers(1, 9))
def test_no_other_split_within_memory_is_faster(layers: int, speeds: list[float], most: int) -> None:
    of = model(max(layers, len(speeds)))
    split = by_speed(of, speeds, lambda dealt: [count <= most for count in dealt])
    assert sum(split) == of.layers
    least = [min(1, count) for count in balanced_split(of, len(speeds))]
    fitting = [
        other
        for other in product(range(of.layers + 1), repeat=len(speeds))
        if sum(other) == of.layers and all(a <= b <= most for a, b in zip(least, other, strict=True))
    ]
    if fitting:
        assert max(split) <= most
        best = min(slowest_s(other, of, speeds) for other in fitting)
        assert slowest_s(tuple(split), of, speeds) <= best * (1 + 1e-9)


def test_a_model_that_fits_nowhere_is_dealt_by_speed_alone() -> None:
    of = model(8)
    assert by_speed(of, [3.0, 1.0], lambda split: [False] * len(split)) == by_speed(of, [3.0, 1.0], anything)


def test_a_stage_keeps_a_layer_however_slow_it_is() -> None:
    assert min(by_speed(model(9), [100.0, 1e-3, 100.0], anything)) == 1


def test_layers_follow_speed() -> None:
    split = np.array(by_speed(model(400, {**SMALL, "vocab": 1}), [1.0, 2.0, 5.0], anything))
    assert np.abs(split - [50, 100, 250]).max() <= 1
