"""The machines of a scenario before each has its stage: where they stand, how fast they and their links are."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from orionbed.bandwidth import Floats, draw_links
from orionbed.hardware import make_of, makes_of
from orionbed.scenario import Distribution, Scenario
from orionbed.scenario.groups import Group
from orionbed.streams import Streams

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Machine:
    """One machine; `hardware` is its make, an index into `makes_of`, and `group` empty where there are no groups."""

    group: str
    hardware: int
    site: str
    speed: float
    uplink_bps: float
    downlink_bps: float
    natted: bool
    price: float | None = None


def machines_of(scenario: Scenario, streams: Streams) -> list[Machine]:
    """Return the machines in the order of the peers, as `peers.placement` has it: by stage, then by replica."""
    if not scenario.peers.groups:
        return _alike(scenario, streams)
    found = [machine for group in scenario.peers.groups for machine in _of_group(scenario, group, streams)]
    return _placed(found, scenario, streams)


def _alike(scenario: Scenario, streams: Streams) -> list[Machine]:
    """Speeds and links are drawn for the places in the pipeline, and sites are dealt to them."""
    peers, network = scenario.peers, scenario.network
    places = _placed([site for site, count in peers.sites.items() for _ in range(count)], scenario, streams)
    uplink, downlink = _links(
        len(places), (network.uplink, network.downlink), network.correlation, streams.get("links")
    )
    speeds = peers.speed.sample(streams.get("speed"), len(places))
    natted = _natted(len(places), network.nat.natted, streams.get("nat"))
    rows = zip(places, speeds, uplink, downlink, natted, strict=True)
    return [Machine("", 0, site, float(s), float(up), float(down), bool(nat)) for site, s, up, down, nat in rows]


def _of_group(scenario: Scenario, group: Group, streams: Streams) -> list[Machine]:
    """Every group draws from streams of its own, so that another group moves nothing in it."""
    peers, network = scenario.peers, scenario.network
    up, down = group.own_links
    rates = (up or network.uplink, down or network.downlink)
    correlation = network.correlation if group.correlation is None else group.correlation
    uplink, downlink = _links(group.count, rates, correlation, streams.get(f"links {group.name}"))
    speeds = (group.speed or peers.speed).sample(streams.get(f"speed {group.name}"), group.count)
    share = network.nat.natted if group.natted is None else group.natted
    natted = _natted(group.count, share, streams.get(f"nat {group.name}"))
    places = [site for site, count in group.places.items() for _ in range(count)]
    hardware = makes_of(scenario).index(make_of(scenario, group))
    rows = zip(places, speeds, uplink, downlink, natted, strict=True)
    return [
        Machine(group.name, hardware, site, float(s), float(up), float(down), bool(nat), group.price)
        for site, s, up, down, nat in rows
    ]


def _placed(items: Sequence[T], scenario: Scenario, streams: Streams) -> list[T]:
    """Deal what stands in the order of the file to the places in the pipeline."""
    num_stages, num_replicas = scenario.pipeline.stages, scenario.pipeline.replicas
    if scenario.peers.placement == "spread":
        return [items[i] for i in streams.get("placement").permutation(num_stages * num_replicas)]
    if scenario.peers.placement == "grouped":
        # Consecutive stages of one replica share a site as far as sites are large enough.
        return [items[r * num_stages + s] for s in range(num_stages) for r in range(num_replicas)]
    return list(items)


def _links(
    count: int, rates: tuple[Distribution, Distribution], correlation: float, rng: np.random.Generator
) -> tuple[Floats, Floats]:
    uplink, downlink = draw_links(count, *rates, correlation, rng)
    return _at_median(uplink, rates[0]), _at_median(downlink, rates[1])


def _at_median(rates: Floats, distribution: Distribution) -> Floats:
    """Scale lognormal draws so that the peers' median is the one stated.

    A published median is that of the peers that were there, not of a population they might have been drawn from.
    """
    return rates * (distribution.median / float(np.median(rates))) if distribution.kind == "lognormal" else rates


def _natted(count: int, share: float, rng: np.random.Generator) -> list[bool]:
    """Return for each of `count` peers whether it is behind a NAT, which a `share` of them is."""
    behind = set(rng.permutation(count)[: round(share * count)].tolist())
    return [index in behind for index in range(count)]
