"""What the router is told of a layer: the values of `orionbed.contest.interface.Miner`, as plain lists."""

from collections.abc import Sequence
from typing import Any

from sim.contest.miner import ContestMiner
from sim.contest.world import World


def told_rows(world: World, here: Sequence[bool], miners: Sequence[ContestMiner], layer: int) -> list[list[Any]]:
    """Return a row per miner that serves the layer and is there, in the order of their numbers."""
    return [_row(world, miners[index], layer) for index in world.miners_of(layer) if here[index]]


def _row(world: World, miner: ContestMiner, layer: int) -> list[Any]:
    index = miner.index
    forward_s, backward_s = float(world.forward_s[index]), float(world.backward_s[index])
    return [
        index,
        list(miner.layers),
        forward_s,
        backward_s,
        float(world.bandwidth[index]) * 8.0,
        float(world.latency_s[index]),
        miner.num_queued("F", layer),
        miner.num_queued("B", layer),
        miner.cache - len(miner.held[layer]),
        len(miner.forwards) * forward_s + len(miner.backwards) * backward_s,
    ]
