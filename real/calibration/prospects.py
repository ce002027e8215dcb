"""What a measured profile says of a whole run: the scenario's MFU on this GPU, and on an A100 by way of it."""

from dataclasses import dataclass
from typing import Final

from orionbed import backends, metrics
from orionbed.compute import CostModel
from orionbed.kernels import peak_of
from orionbed.plan import make_plan
from orionbed.scenario import GpuProfile, Scenario, apply

HORIZON_S: Final = 8 * 3600.0
REFERENCE: Final = "a100-80gb"


@dataclass(frozen=True, slots=True)
class Prospect:
    """MFU of a simulated run while it trains and over all its time, and what it was simulated with."""

    gpu: str
    in_phase: float
    wall_clock: float
    how: str


def simulated(scenario: Scenario, how: str) -> Prospect:
    """Simulate a scenario for some hours after its start-up."""
    changes: dict[str, object] = {
        "run.duration": HORIZON_S,
        "run.tokens": None,
        "run.startup": 0.0,
        "run.trace": "summary",
        "published": [],
    }
    result = backends.load("sim").run(make_plan(apply(scenario, changes)))
    rates, per_rate = metrics.rates(result), metrics.mfu_per_rate(result)
    return Prospect(result.plan.gpu.name, rates.in_phase * per_rate, rates.wall_clock * per_rate, how)


def kernel_scale_of(profile: GpuProfile, typed: GpuProfile, scenario: Scenario) -> float:
    """Return how much faster a layer was than the typed profile of this very GPU says: forward and backward."""
    tokens, sequence = scenario.batch.tokens, scenario.batch.sequence
    seconds = []
    for gpu in (typed, profile):
        work = CostModel(gpu).layer(scenario.model, tokens, sequence)
        seconds.append(work.forward_s + work.backward_s)
    return seconds[0] / seconds[1]


def share_of_peak(profile: GpuProfile, scenario: Scenario) -> float:
    """Return the share of the profile's peak at which a layer ran, forward and backward."""
    work = CostModel(profile).layer(scenario.model, scenario.batch.tokens, scenario.batch.sequence)
    flops = work.forward_flops + work.backward_flops
    return flops / (work.forward_s + work.backward_s) / peak_of(profile, scenario.model.dtype)


def on_reference(profile: GpuProfile, typed: GpuProfile | None, scenario: Scenario) -> Prospect:
    """Simulate the scenario on an A100, whose kernels are taken to be as much better than its profile as here.

    Without a typed profile of this GPU they are taken to reach the same share of peak as here.
    """
    if typed is None:
        share = min(1.0, share_of_peak(profile, scenario))
        changes: dict[str, object] = {"peers.gpu": REFERENCE, "peers.efficiency": share}
        how = f"an A100 at the share of peak measured here, {share:.1%}"
    else:
        scale = kernel_scale_of(profile, typed, scenario)
        changes = {"peers.gpu": REFERENCE, "peers.kernel_scale": scale}
        how = f"an A100 with kernels {scale:.3f} times as fast as its profile, as measured here against {typed.name}"
    return simulated(apply(scenario, changes), how)


def on_this(scenario: Scenario, path: str) -> Prospect:
    """Simulate the scenario with the profile in a file."""
    return simulated(apply(scenario, {"peers.gpu": path}), "with the profile measured here")
