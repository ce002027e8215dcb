"""From a plan to ways between its participants: delays, ceilings and rates, for throttled sockets and virtual time."""

from functools import cache
from math import inf

from emulator.fluid import Fluid, Profile, Resource, Route
from orionbed import tcp
from orionbed.bandwidth import Direction
from orionbed.encryption import cipher_rate, payload_share, record_delay_s
from orionbed.hops import bytes_per_s_per_bps, connection_rates, one_way_delays
from orionbed.links import jitter_of, link_profiles, link_rates
from orionbed.plan import Plan
from orionbed.streams import Block, Streams


class Ways:
    """What the plan's network says about the way from one participant to another; rates in bytes/s of the plan."""

    def __init__(self, plan: Plan, seed: int) -> None:
        self.plan = plan
        self.store = len(plan.peers)
        network = plan.scenario.network
        self._network = network
        self._payload_share = payload_share(network)
        self._factor = bytes_per_s_per_bps(network)
        self._delays = one_way_delays(network, plan.site_names)
        self._rates = connection_rates(network, plan.site_names) * self._factor
        self._sites = [plan.site_names.index(peer.site) for peer in plan.peers]
        self._seed = seed
        self._links = link_rates(plan)
        self._varying = link_profiles(plan, Streams(seed))
        self.profile = cache(self._profile)

    def delay_s(self, source: int, target: int) -> float:
        """One-way delay."""
        if self.store in {source, target}:
            return self._network.storage.delay
        return float(self._delays[self._sites[source], self._sites[target]])

    def streams(self, source: int, target: int) -> int:
        """Parallel connections."""
        of = self._network.storage if self.store in {source, target} else self._network.transport
        return of.streams

    def window_bytes(self, source: int, target: int) -> float:
        """All windows together, as the payload that they hold."""
        return self.streams(source, target) * self._network.transport.window * self._payload_share

    def initial_window_bytes(self, source: int, target: int) -> float:
        """All windows together at the start, as the payload that they hold."""
        return self.streams(source, target) * self._network.transport.initial_window * self._payload_share

    def rate_ceiling(self, source: int, target: int) -> float:
        """What losses, ciphers and the table of delays leave to one connection, whatever its window."""
        transport = self._network.transport
        rtt_s = 2.0 * self.delay_s(source, target)
        one = tcp.loss_ceiling(transport.congestion, transport.loss, rtt_s) * self._payload_share
        loss = self.streams(source, target) * min(one, cipher_rate(self._network))
        if self.store in {source, target}:
            return loss
        return min(loss, float(self._rates[self._sites[source], self._sites[target]]))

    def way_s(self, source: int, target: int) -> float:
        """One-way delay, with what encryption adds to it."""
        return self.delay_s(source, target) + record_delay_s(self._network)

    def handshake_s(self, source: int, target: int) -> float:
        """From opening to the first byte."""
        return tcp.handshake_s(2.0 * self.delay_s(source, target), tls=self._network.transport.tls)

    def resources(self, source: int, target: int) -> tuple[Resource, ...]:
        """Everything with a limit that the way shares with others."""
        network = self._network
        caps: list[tuple[Resource, float | None]] = [(("up", source), None if source == self.store else 1.0)]
        if source == self.store:
            caps += [(("store", "out"), network.storage.rate), (("in", self._sites[target]), network.site_downlink)]
        elif target == self.store:
            caps += [(("out", self._sites[source]), network.site_uplink), (("store", "in"), network.storage.rate)]
        elif self._sites[source] != self._sites[target]:
            caps += [
                (("out", self._sites[source]), network.site_uplink),
                (("wan", self._sites[source], self._sites[target]), network.wan),
                (("in", self._sites[target]), network.site_downlink),
            ]
        caps.append((("down", target), None if target == self.store else 1.0))
        return tuple(name for name, cap in caps if cap is not None)

    def fresh_profile(self, resource: Resource) -> Profile:
        """Return a profile that has not been asked for any time yet, from streams of its own."""
        return Ways(self.plan, self._seed).profile(resource)

    def _profile(self, resource: Resource) -> Profile:
        """Return the capacity of a resource over time."""
        network, kind = self._network, resource[0]
        if kind in {"up", "down"}:
            return self._link("up" if kind == "up" else "down", int(resource[1]))
        bps = {"out": network.site_uplink, "in": network.site_downlink, "wan": network.wan}.get(
            str(kind), network.storage.rate
        )
        assert bps is not None
        capacity = bps * self._factor
        return lambda _at_s: (capacity, inf)

    def _link(self, direction: Direction, peer: int) -> Profile:
        profile = None if self._varying is None else self._varying(peer, direction)
        if profile is not None:
            return profile
        rate = float(self._links[direction == "down"][peer])
        return lambda _at_s: (rate, inf)


def make_fluid(plan: Plan, seed: int) -> Fluid:
    """Return the network of a plan in virtual time."""
    ways = Ways(plan, seed)
    network = plan.scenario.network

    def route(source: int, target: int) -> Route:
        rtt_s = 2.0 * ways.delay_s(source, target)
        window = tcp.window_ceiling(ways.window_bytes(source, target), rtt_s)
        return Route(
            resources=ways.resources(source, target),
            delay_s=ways.way_s(source, target),
            ceiling=min(window, ways.rate_ceiling(source, target)),
            streams=ways.streams(source, target),
            initial_window_bytes=ways.initial_window_bytes(source, target),
            handshake_s=ways.handshake_s(source, target),
        )

    transport, jitter = network.transport, jitter_of(network)
    rng = Streams(seed).get("network/jitter")  # drawn from as the simulator does
    return Fluid(
        route,
        ways.profile,
        None if jitter is None else Block(lambda size: jitter.draw(rng, size)).take,
        keep_warm=transport.keep_warm,
        slow_start_after_idle=transport.slow_start_after_idle,
    )
