"""A tiny model on one thread, and findings that are made up."""

import pytest

from orionbed.scenario import Scenario, load
from orionbed.scenario.measurements import OptimizerStep, PassTimes, Piece, Spread
from real.calibration import api, profile_file
from real.calibration.copies import Loopback
from real.calibration.devices import FoundDevice
from real.calibration.matmuls import Rates

SETS = (
    "model={layers: 6, hidden: 32, ffn: 64, heads: 4, kv_heads: 2, vocab: 64, dtype: fp32}",
    "batch={sequence: 8, sequences: 2}",
    "pipeline.stages=3",
    "pipeline.replicas=1",
    "pipeline.boundary={kind: resbm, width: 8}",
    "peers.sites={virginia: 2, oregon: 1}",
)
FORWARD_S: dict[Piece, float] = {"layer": 10e-3, "embedding": 1e-3, "head": 4e-3, "encoder": 2e-3, "decoder": 1e-3}
STEP_S = 1e-8


@pytest.fixture(autouse=True)
def _one_thread(one_thread: None) -> None:
    pass


@pytest.fixture
def scenario() -> Scenario:
    return load("minimal", SETS)


@pytest.fixture
def target(scenario: Scenario) -> api.Target:
    return api.target_of(scenario, "cpu", None, lambda _: None)


def same(seconds: float) -> Spread:
    return Spread(median=seconds, p5=seconds, p95=seconds)


def passes(seconds: float) -> PassTimes:
    """The input half takes as long as the forward, the weight half half of it."""
    return PassTimes(forward=same(seconds), input_gradient=same(seconds), weight_gradient=same(seconds / 2))


@pytest.fixture
def findings(target: api.Target) -> profile_file.Findings:
    rates = dict.fromkeys(("forward", "input_gradient", "weight_gradient"), 1e9)
    slower = {direction: rate / 2 for direction, rate in rates.items()}
    return profile_file.Findings(
        device=FoundDevice("cpu", "A CPU", 16 * 10**9, 1),
        shape=target.shape,
        rates=Rates(
            {64: 2e9}, {(64, 64, 64): rates, (16, 32, 64): slower}, {"forward": 5e8, "backward": 4e8}, 1e10, 1e-6
        ),
        pieces={piece: passes(seconds) for piece, seconds in FORWARD_S.items()},
        optimizer=[OptimizerStep(parameters=1000, per_parameter=same(STEP_S))],
        loopback=Loopback(1e10, 1e-5),
        copies=None,
        recompute_factor=1.0,
        clock="1000 MHz",
        date="2026-06-01",
        command="orionbed calibrate",
    )
