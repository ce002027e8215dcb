"""What a boundary tensor takes from one stage to the next, without contention: for planning and for comparisons."""

from collections.abc import Sequence
from math import inf
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from orionbed import geography
from orionbed.bandwidth import GOODPUT_SHARE_OF_L2
from orionbed.encryption import payload_share
from orionbed.scenario.network import Network
from orionbed.schedule.timing import Hops

if TYPE_CHECKING:
    from orionbed.plan import PeerPlan


def bytes_per_s_per_bps(network: Network) -> float:
    """Payload bytes/s per bit/s of the scenario's rates, less what headers and, if counted, TLS records take."""
    return (GOODPUT_SHARE_OF_L2 if network.rate_is == "l2" else 1.0) / 8.0 * payload_share(network)


def one_way_delays(network: Network, site_names: Sequence[str]) -> NDArray[np.float64]:
    """Return the one-way delays in seconds between sites, shape (sites, sites)."""
    if isinstance(network.delay, str):
        delays = geography.one_way_delays(network.delay, tuple(site_names))
    else:
        delays = np.full((len(site_names), len(site_names)), network.delay)
    if network.delay_inside is not None:
        np.fill_diagonal(delays, network.delay_inside)
    return delays


def connection_rates(network: Network, site_names: Sequence[str]) -> NDArray[np.float64]:
    """Return bit/s that one connection carries between sites, shape (sites, sites); infinite where nothing is said."""
    if isinstance(network.delay, str):
        return geography.connection_rates(network.delay, tuple(site_names))
    return np.full((len(site_names), len(site_names)), inf)


def plan_hops(
    network: Network, peers: Sequence["PeerPlan"], site_names: Sequence[str], num_bytes: int, *, replica: int = 0
) -> Hops:
    """Return the hops between the stages of one pipeline at the drawn rates."""
    delays, rates = one_way_delays(network, site_names), connection_rates(network, site_names)
    members = [peer for peer in peers if peer.replica == replica]
    factor = bytes_per_s_per_bps(network)
    shared = [cap for cap in (network.site_uplink, network.wan, network.site_downlink) if cap is not None]
    between = {}
    for sender in members:
        for receiver in members:
            if sender is not receiver:
                way = site_names.index(sender.site), site_names.index(receiver.site)
                caps = shared if sender.site != receiver.site else []
                rate = min(sender.uplink_bps, receiver.downlink_bps, float(rates[way]), *caps) * factor
                delay_s = float(delays[way])
                between[sender.stage, receiver.stage] = (num_bytes / rate, delay_s)
    neighbours = [between[s.stage, s.stage + 1] for s in members[:-1]] or [(0.0, 0.0)]
    transfers, delay = zip(*neighbours, strict=True)
    return Hops(
        delay_s=float(np.median(delay)),
        transfer_s=float(np.median(transfers)),
        between=between,
        synchronous=network.transport.synchronous,
    )
