"""From a plan to the simulator's network: links, delays, variability, transport."""

from math import inf

import numpy as np

from orionbed.encryption import cipher_rate, payload_share, record_delay_s
from orionbed.hops import bytes_per_s_per_bps, connection_rates, one_way_delays
from orionbed.links import jitter_of, link_profiles, link_rates
from orionbed.nat import relayed_delays, relayed_pairs
from orionbed.plan import Plan
from orionbed.scenario.network import Network as NetworkBlock
from orionbed.streams import Streams
from sim.clock import Clock
from sim.disturbing import DisturbedInOrderNetwork, DisturbedNetwork
from sim.in_order import InOrderNetwork
from sim.links import PeerLinks, Relays, Storage, Transport
from sim.network import Network


def make_network(plan: Plan, clock: Clock, streams: Streams) -> Network:
    """Return the network of `plan`, its links as the plan drew them."""
    block = plan.scenario.network
    factor = bytes_per_s_per_bps(block)
    uplink, downlink = link_rates(plan)
    links = PeerLinks(
        uplink=uplink,
        downlink=downlink,
        site=np.array([plan.site_names.index(peer.site) for peer in plan.peers]),
        one_way_s=one_way_delays(block, plan.site_names),
        profile=link_profiles(plan, streams),
        site_uplink=_cap(block.site_uplink, factor),
        site_downlink=_cap(block.site_downlink, factor),
        wan=_cap(block.wan, factor),
        per_connection=connection_rates(block, plan.site_names) * factor,
        relays=_relays(plan, streams.seed, factor),
    )
    make: type[Network]
    if plan.scenario.faults.list:
        make = DisturbedNetwork if plan.order is None else DisturbedInOrderNetwork
    else:
        make = Network if plan.order is None else InOrderNetwork
    return make(
        clock,
        links,
        streams,
        transport=_transport(block),
        jitter=jitter_of(block),
        storage=Storage(block.storage.delay, block.storage.streams, _cap(block.storage.rate, factor)),
    )


def _relays(plan: Plan, seed: int, factor: float) -> Relays | None:
    if not any(peer.natted for peer in plan.peers):
        return None
    relay = plan.scenario.network.nat.relay
    pairs = relayed_pairs(plan, seed)
    return Relays(pairs, relayed_delays(plan), relay.rate * factor, _cap(relay.capacity, factor))


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
        cipher_rate=cipher_rate(block),
        payload_share=payload_share(block),
        record_delay_s=record_delay_s(block),
    )
