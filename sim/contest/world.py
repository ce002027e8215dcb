"""The miners of one seed: what they are, which layers they serve, how they drift."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from orionbed.contest.schema import Contest
from orionbed.streams import Streams

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class World:
    """Properties of n miners in one epoch: arrays (n,) in SI, bandwidth in bytes/s.

    `first` is the first layer that a miner serves and `width` how many; they follow each other, and after the last
    comes the first. `kind` is the name of its class.
    """

    num_layers: int
    kind: tuple[str, ...]
    width: tuple[int, ...]
    first: tuple[int, ...]
    forward_s: Floats
    backward_s: Floats
    bandwidth: Floats
    latency_s: Floats

    @property
    def num_miners(self) -> int:
        """How many miners there are."""
        return len(self.kind)

    def layers_of(self, miner: int) -> tuple[int, ...]:
        """The layers that a miner serves, in order."""
        served = (self.first[miner] + k for k in range(self.width[miner]))
        return tuple(sorted(layer % self.num_layers for layer in served))

    def miners_of(self, layer: int) -> list[int]:
        """The miners that serve a layer, in order."""
        return [m for m in range(self.num_miners) if (layer - self.first[m]) % self.num_layers < self.width[m]]


def draw_world(contest: Contest, streams: Streams) -> World:
    """Return the world of the first epoch."""
    miners, links = contest.miners, contest.network
    count = miners.count
    num_layers = int(streams.get("contest/layers").integers(miners.layers.least, miners.layers.most + 1))
    kind = _dealt({name: entry.share for name, entry in miners.classes.items()}, count)
    num_several = round(miners.several.share * count)
    width = [min(miners.several.layers, num_layers)] * num_several + [1] * (count - num_several)
    # Miners are numbered at random, so that a number tells nothing, and dealt to layers in turn.
    order = streams.get("contest/deal")
    forward_s = miners.forward.sample(streams.get("contest/forward"), count)
    return World(
        num_layers,
        tuple(kind[i] for i in order.permutation(count)),
        tuple(width[i] for i in order.permutation(count)),
        tuple(int(i) % num_layers for i in order.permutation(count)),
        forward_s,
        miners.backward * forward_s,
        links.bandwidth.sample(streams.get("contest/bandwidth"), count) / 8.0,
        links.latency.sample(streams.get("contest/latency"), count),
    )


def drifted(world: World, contest: Contest, streams: Streams, epoch: int) -> World:
    """Return the world of `epoch` (from 1), one drift after the one before it; who serves what stays."""
    if contest.epochs.drift == 0.0:
        return world
    rng = streams.get(f"contest/drift/{epoch}")
    speed, bandwidth, latency = np.exp(rng.normal(0.0, contest.epochs.drift, (3, world.num_miners)))
    return replace(
        world,
        forward_s=world.forward_s * speed,
        backward_s=world.backward_s * speed,
        bandwidth=world.bandwidth * bandwidth,
        latency_s=world.latency_s * latency,
    )


def _dealt(shares: dict[str, float], count: int) -> list[str]:
    """Return `count` names in the given shares, by largest remainders."""
    exact = {name: share * count for name, share in shares.items()}
    whole = {name: int(value) for name, value in exact.items()}
    short = sorted(exact, key=lambda name: whole[name] - exact[name])[: count - sum(whole.values())]
    return [name for name in shares for _ in range(whole[name] + (name in short))]
