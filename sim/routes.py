"""Which resources a transfer crosses: links, the caps that sites, pairs of sites and the store share, and delays."""

from dataclasses import replace
from math import inf

from orionbed.encryption import added_s
from sim.filling import Resource
from sim.links import Direction, PeerLinks, Storage, Transport
from sim.transfer import Connection


class Routes:
    """Makes the connections of one network; each resource comes into being with the first route over it.

    Peer to peer: uplink, then out of the site, between the two sites and into the other if these differ, then downlink.
    Peer to store: uplink, out of the site, the store's intake; from the store: its output, into the site, downlink.
    Peers that cannot connect directly go over the relay besides. Caps that are infinite take no part. A peer and itself
    need no resource and no time.
    """

    def __init__(self, links: PeerLinks, transport: Transport, storage: Storage) -> None:
        self._links = links
        self._transport = transport
        self._in_clear = replace(transport, cipher_rate=inf)
        self._storage = storage
        self._store = links.num_peers
        self._resources: dict[str, Resource] = {}

    def connect(self, source: int, target: int) -> Connection:
        """Return a closed connection. The store's index is the number of peers. IndexError for others."""
        if not (0 <= source <= self._store and 0 <= target <= self._store):
            raise IndexError(f"no way from {source} to {target}: peers are 0 to {self._store - 1}")
        links = self._links
        streams = self._transport.streams
        window = self._transport.initial_window_bytes * self._transport.payload_share
        if source == target:
            return Connection(
                source, target, (), delay_s=0.0, ceiling=inf, streams=streams, initial_window_bytes=window
            )
        if self._store in {source, target}:
            route = self._storage_route(source, target)
            delay_s = self._storage.delay_s
            streams = self._storage.streams
        else:
            route = self._peer_route(source, target)
            relay = links.over_relay(source, target)
            delays = links.one_way_s if relay is None else relay.one_way_s
            delay_s = float(delays[links.site[source], links.site[target]])
        ceiling = self.ceiling(source, target, 2.0 * delay_s)
        return Connection(
            source, target, route, delay_s=delay_s, ceiling=ceiling, streams=streams, initial_window_bytes=window,
            record_delay_s=self._transport.record_delay_s,
        )  # fmt: skip

    def ceiling(
        self, source: int, target: int, rtt_s: float, more_loss: float = 0.0, *, ciphered: bool = True
    ) -> float:
        """Return the rate in bytes/s that one transfer cannot exceed at this round-trip time, with `more_loss`.

        Without `ciphered` the cores that encrypt are no limit.
        """
        links, transport = self._links, self._transport if ciphered else self._in_clear
        if more_loss:
            transport = replace(transport, loss=transport.loss + more_loss - transport.loss * more_loss)
        if self._store in {source, target}:
            return transport.ceiling(rtt_s, self._storage.streams)
        ceiling = transport.ceiling(rtt_s)
        if (relay := links.over_relay(source, target)) is not None:
            ceiling = min(ceiling, relay.rate)
        if links.per_connection is None:
            return ceiling
        return min(ceiling, float(links.per_connection[links.site[source], links.site[target]]))

    def encryption_s(self, connection: Connection, size_bytes: float, sent_s: float) -> float:
        """Return how much later a message has arrived for its encryption, as if it had had its links alone.

        One that was sent before its connection stood has also waited for the round trip of the TLS handshake.
        """
        if not connection.route:
            return 0.0
        transport, rtt_s = self._transport, connection.rtt_s
        opening_s = rtt_s if sent_s < connection.ready_s or not transport.keep_warm else 0.0
        ceiling = self.ceiling(connection.source, connection.target, rtt_s, ciphered=False)
        rate = min(ceiling, *(r.capacity for r in connection.route)) / transport.payload_share
        if rate <= 0.0:
            return opening_s  # the link has just come to a stop: what it carried before is not known here
        return opening_s + added_s(size_bytes, rate, transport.cipher_rate, int(connection.streams))

    def _peer_route(self, source: int, target: int) -> tuple[Resource, ...]:
        links = self._links
        site, other = int(links.site[source]), int(links.site[target])
        between: list[tuple[str, float]] = []
        if site != other:
            between = [
                (f"out:{site}", links.site_uplink),
                (f"wan:{site}>{other}", links.wan),
                (f"in:{other}", links.site_downlink),
            ]
        if (relay := links.over_relay(source, target)) is not None:
            between.append(("relay", relay.capacity))
        return (self._link(source, "up"), *self._caps(between), self._link(target, "down"))

    def _storage_route(self, source: int, target: int) -> tuple[Resource, ...]:
        links, rate = self._links, self._storage.rate
        if target == self._store:
            caps = self._caps([(f"out:{links.site[source]}", links.site_uplink), ("store:in", rate)])
            return (self._link(source, "up"), *caps)
        caps = self._caps([("store:out", rate), (f"in:{links.site[target]}", links.site_downlink)])
        return (*caps, self._link(target, "down"))

    def _link(self, peer: int, direction: Direction) -> Resource:
        name = f"{direction}:{peer}"
        if name not in self._resources:
            self._resources[name] = self._links.link(peer, direction, len(self._resources))
        return self._resources[name]

    def _caps(self, caps: list[tuple[str, float]]) -> list[Resource]:
        for name, rate in caps:
            if rate < inf and name not in self._resources:
                self._resources[name] = Resource(name, len(self._resources), rate)
        return [self._resources[name] for name, rate in caps if rate < inf]
