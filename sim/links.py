"""What the network of the peers is made of: links, delays, transport, jitter and the object store, in bytes/s."""

from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from orionbed import tcp
from sim.filling import Profile, Resource

Floats = NDArray[np.float64]
Direction = Literal["up", "down"]


@dataclass(frozen=True, slots=True)
class Relays:
    """Pairs of peers that reach each other over a relay only.

    `pairs` (n, n) tells which; `one_way_s` (m, m) are delays over the relay between sites. In bytes/s, `rate` bounds
    each connection by itself and `capacity` all of them together.
    """

    pairs: NDArray[np.bool_]
    one_way_s: Floats
    rate: float
    capacity: float = inf


@dataclass(frozen=True, slots=True)
class PeerLinks:
    """Links of n peers on m sites.

    `uplink` and `downlink` (n,) are payload rates in bytes/s; `site` (n,) the index of each peer's site; `one_way_s`
    (m, m) delays between sites, with the delay inside a site on the diagonal. `profile(peer, "up" | "down")` gives a
    link's capacity over time, or None where it stays as drawn. Shared caps are in bytes/s: per site, and per ordered
    pair of sites (`wan`); infinite means that there is none. `per_connection` (m, m) bounds each connection by itself.
    `relays` are for pairs that cannot connect directly.
    """

    uplink: Floats
    downlink: Floats
    site: NDArray[np.int64]
    one_way_s: Floats
    profile: Callable[[int, Direction], Profile | None] | None = None
    site_uplink: float = inf
    site_downlink: float = inf
    wan: float = inf
    per_connection: Floats | None = None
    relays: Relays | None = None

    def __post_init__(self) -> None:
        """Check shapes and ranges; ValueError."""
        num_peers, num_sites = len(self.site), len(self.one_way_s)
        if self.uplink.shape != (num_peers,) or self.downlink.shape != (num_peers,):
            raise ValueError(f"{num_peers} peers need as many uplinks and downlinks")
        if self.one_way_s.shape != (num_sites, num_sites):
            raise ValueError(f"delays must be a square matrix, not {self.one_way_s.shape}")
        if num_peers and not 0 <= self.site.min() <= self.site.max() < num_sites:
            raise ValueError(f"site indices must be 0 to {num_sites - 1}")
        if not (np.all(self.uplink > 0) and np.all(self.downlink > 0) and np.all(self.one_way_s >= 0)):
            raise ValueError("rates must be above 0 and delays not below 0")

    @property
    def num_peers(self) -> int:
        """How many peers there are."""
        return len(self.site)

    def over_relay(self, source: int, target: int) -> Relays | None:
        """Return the relay that two peers need, None where they connect directly."""
        needed = self.relays is not None and bool(self.relays.pairs[source, target])
        return self.relays if needed else None

    def link(self, peer: int, direction: Direction, number: int) -> Resource:
        """Return the resource of one peer's link."""
        rates = self.uplink if direction == "up" else self.downlink
        profile = None if self.profile is None else self.profile(peer, direction)
        return Resource(f"{direction}:{peer}", number, float(rates[peer]), profile)


@dataclass(frozen=True, slots=True)
class Transport:
    """How messages travel: `streams` parallel TCP connections of one window each, counted as one connection here.

    A core encrypts or decrypts one of them at `cipher_rate` bytes/s of payload, which is `payload_share` of what TCP
    carries; a message is `record_delay_s` later for it, besides what a slower rate takes.
    """

    streams: int = 1
    window_bytes: float = 4.0 * 1024**2
    initial_window_bytes: float = tcp.INITIAL_WINDOW_BYTES
    keep_warm: bool = True
    slow_start_after_idle: bool = False
    loss: float = 0.0
    congestion: tcp.Congestion = "cubic"
    tls: bool = True
    cipher_rate: float = inf
    payload_share: float = 1.0
    record_delay_s: float = 0.0

    def ceiling(self, rtt_s: float, streams: int | None = None) -> float:
        """Return the rate in bytes/s that a transfer cannot exceed at this round-trip time."""
        one = min(tcp.window_ceiling(self.window_bytes, rtt_s), tcp.loss_ceiling(self.congestion, self.loss, rtt_s))
        return (self.streams if streams is None else streams) * min(one * self.payload_share, self.cipher_rate)


@dataclass(frozen=True, slots=True)
class Storage:
    """The object store: one-way delay from every peer, connections per transfer, bytes/s each way for all together."""

    delay_s: float = 0.015
    streams: int = 16
    rate: float = inf
