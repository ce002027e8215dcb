"""From a plan to the simulator's network: links, delays, variability, transport."""

from collections.abc import Callable
from math import inf
from pathlib import Path

import numpy as np

from orionbed.bandwidth import PRESETS, varying_links
from orionbed.bandwidth_trace import read_trace, replay
from orionbed.hops import bytes_per_s_per_bps, connection_rates, one_way_delays
from orionbed.plan import Plan
from orionbed.scenario.network import Network as NetworkBlock
from orionbed.streams import Streams
from sim.clock import Clock
from sim.filling import Profile
from sim.in_order import InOrderNetwork
from sim.links import Direction, Floats, Jitter, PeerLinks, Storage, Transport
from sim.network import Network


def make_network(plan: Plan, clock: Clock, streams: Streams) -> Network:
    """Return the network of `plan`, its links as the plan drew them."""
    block = plan.scenario.network
    factor = bytes_per_s_per_bps(block)
    uplink = np.array([peer.uplink_bps for peer in plan.peers]) * factor
    downlink = np.array([peer.downlink_bps for peer in plan.peers]) * factor
    links = PeerLinks(
        uplink=uplink,
        downlink=downlink,
        site=np.array([plan.site_names.index(peer.site) for peer in plan.peers]),
        one_way_s=one_way_delays(block, plan.site_names),
        profile=_profiles(plan, streams, uplink, downlink),
        site_uplink=_cap(block.site_uplink, factor),
        site_downlink=_cap(block.site_downlink, factor),
        wan=_cap(block.wan, factor),
        per_connection=connection_rates(block, plan.site_names) * factor,
    )
    make = Network if plan.order is None else InOrderNetwork
    return make(
        clock,
        links,
        streams,
        transport=_transport(block),
        jitter=_jitter(block),
        storage=Storage(block.storage.delay, block.storage.streams, _cap(block.storage.rate, factor)),
    )


def _cap(rate_bps: float | None, factor: float) -> float:
    return inf if rate_bps is None else rate_bps * factor


def _transport(block: NetworkBlock) -> Transport:
    transport = block.transport
    return Transport(
        streams=transport.streams,
        window_bytes=transport.window,
        initial_window_bytes=transport.initial_window,
        keep_warm=transport.keep_warm,
        slow_start_after_idle=transport.slow_start_after_idle,
        loss=transport.loss,
        congestion=transport.congestion,
        tls=transport.tls,
    )


def _jitter(block: NetworkBlock) -> Jitter | None:
    if isinstance(block.jitter, str):
        return None
    return Jitter(block.jitter.sd, block.jitter.spike_probability, block.jitter.spike.sample)


def _profiles(
    plan: Plan, streams: Streams, uplink: Floats, downlink: Floats
) -> Callable[[int, Direction], Profile | None] | None:
    """Return how each link's capacity varies, or None where none does."""
    kind = plan.scenario.network.variability
    if kind in PRESETS:
        variability = PRESETS[kind]
        return None if variability is None else varying_links(variability, uplink, downlink, streams)
    trace = read_trace(Path(kind))
    factor = bytes_per_s_per_bps(plan.scenario.network)
    return lambda peer, direction: replay(trace, plan.peers[peer].name, direction, factor)
