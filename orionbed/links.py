"""The peers' links of a plan, how they vary, and random delays: drawn in one place, the same for every backend."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from orionbed.bandwidth import PRESETS, Direction, Floats, Profile, varying_links
from orionbed.bandwidth_trace import read_trace, replay
from orionbed.hops import bytes_per_s_per_bps
from orionbed.plan import Plan
from orionbed.scenario.network import Network
from orionbed.streams import Streams

SPIKE_MEDIAN_S = 0.020


def _lognormal_spikes(rng: np.random.Generator, size: int) -> Floats:
    return SPIKE_MEDIAN_S * rng.lognormal(0.0, 1.0, size)


@dataclass(frozen=True, slots=True)
class Jitter:
    """Random extra delay of single messages: normal with `sd_s`, and now and then a spike."""

    sd_s: float = 0.00025
    spike_probability: float = 1e-3
    spike: Callable[[np.random.Generator, int], Floats] = field(default=_lognormal_spikes)

    def draw(self, rng: np.random.Generator, size: int) -> Floats:
        """Return `size` extra delays in seconds; they may be negative (the network cuts them at half the delay)."""
        normal = rng.normal(0.0, self.sd_s, size)
        hit = rng.random(size) < self.spike_probability
        return normal + np.where(hit, self.spike(rng, size), 0.0)


def jitter_of(network: Network) -> Jitter | None:
    """Return the jitter of a scenario's network, None where there is none."""
    block = network.jitter
    return None if isinstance(block, str) else Jitter(block.sd, block.spike_probability, block.spike.sample)


def link_rates(plan: Plan) -> tuple[Floats, Floats]:
    """Return the drawn rates of all uplinks and of all downlinks in bytes/s (peers,)."""
    factor = bytes_per_s_per_bps(plan.scenario.network)
    uplink = np.array([peer.uplink_bps for peer in plan.peers]) * factor
    return uplink, np.array([peer.downlink_bps for peer in plan.peers]) * factor


def link_profiles(plan: Plan, streams: Streams) -> Callable[[int, Direction], Profile | None] | None:
    """Return how the rate of each link varies, in bytes/s, or None where none does."""
    kind = plan.scenario.network.variability
    if kind in PRESETS:
        variability = PRESETS[kind]
        return None if variability is None else varying_links(variability, *link_rates(plan), streams)
    trace = read_trace(Path(kind))
    factor = bytes_per_s_per_bps(plan.scenario.network)
    return lambda peer, direction: replay(trace, plan.peers[peer].name, direction, factor)
