"""Peers behind NATs: which pairs cannot reach each other directly, and what their way over a relay takes."""

import numpy as np
from numpy.typing import NDArray

from orionbed.hops import one_way_delays
from orionbed.plan import Plan
from orionbed.streams import Streams


def relayed_pairs(plan: Plan, seed: int) -> NDArray[np.bool_]:
    """Return which pairs of peers send over the relay, shape (peers, peers), symmetric.

    Those are pairs of which both are behind a NAT and whose holes cannot be punched; whether they can is drawn once for
    every pair, of all peers, so that another share of NATed peers moves nothing.
    """
    punch = plan.scenario.network.nat.punch
    drawn = np.triu(Streams(seed).get("nat/pairs").random((len(plan.peers), len(plan.peers))), 1)
    natted = np.array([peer.natted for peer in plan.peers])
    return np.asarray(natted[:, None] & natted[None, :] & (drawn + drawn.T >= punch) & ~np.eye(len(natted), dtype=bool))


def relayed_delays(plan: Plan) -> NDArray[np.float64]:
    """Return one-way delays over the relay in seconds between the plan's sites, shape (sites, sites).

    They are the delays to the relay and from it, or the direct one where the relay stands at no site, and its own.
    """
    network, sites = plan.scenario.network, plan.site_names
    relay = network.nat.relay
    if relay.site is None:
        return one_way_delays(network, sites) + relay.delay
    to_relay = one_way_delays(network, (*sites, relay.site))[:-1, -1]
    if relay.site in sites:
        to_relay = one_way_delays(network, sites)[:, sites.index(relay.site)]
    return np.asarray(to_relay[:, None] + to_relay[None, :] + relay.delay)
