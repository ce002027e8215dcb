"""Boundaries of all kinds, each of which a test runs with once: smooth ones, packed ones, or every one."""

from typing import Any

import pytest

from orionbed.scenario.schedules import (
    BottleneckBoundary,
    Boundary,
    NoBoundary,
    QuantizeBoundary,
    ResBMBoundary,
    SubspaceBoundary,
    TopKBoundary,
)

SMOOTH: dict[str, Boundary] = {
    "none": NoBoundary(kind="none"),
    "resbm": ResBMBoundary(kind="resbm", width=6),
    "resbm-mlp": ResBMBoundary(kind="resbm", width=6, encoder="mlp", encoder_width=10),
    "bottleneck": BottleneckBoundary(kind="bottleneck", width=6),
    "subspace": SubspaceBoundary(kind="subspace", width=6),
}
PACKED: dict[str, Boundary] = {
    "quantize-8": QuantizeBoundary(kind="quantize", bits=8),
    "quantize-4": QuantizeBoundary(kind="quantize", bits=4),
    "quantize-4-plain": QuantizeBoundary(kind="quantize", bits=4, error_feedback=False),
    "topk": TopKBoundary(kind="topk", keep=6),
    "topk-feedback": TopKBoundary(kind="topk", keep=6, error_feedback=True),
}


def _once_per(boundaries: dict[str, Boundary]) -> Any:
    def fixture(request: pytest.FixtureRequest) -> Boundary:
        found: Boundary = request.param
        return found

    return pytest.fixture(fixture, params=boundaries.values(), ids=boundaries.keys())


smooth, packed, every = _once_per(SMOOTH), _once_per(PACKED), _once_per(SMOOTH | PACKED)
