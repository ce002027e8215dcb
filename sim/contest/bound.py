"""The time that no router can beat: least times of epochs, from what the miners can do at best.

Every completed activation needs a forward and a backward at each layer, and holds a slot of the cache there from the
start of the one to the end of the other, at least for as long as the empty way up to the last layer and back. Counting
both against what miners and slots can give is a bound whoever routes; that miners drop is left out, which only lowers
it. See docs/model.md for the derivation.
"""

from collections.abc import Iterator
from itertools import combinations, pairwise

import numpy as np

from orionbed.contest.schema import Contest
from sim.contest.world import Floats, World


def least_epoch_s(contest: Contest, world: World, *, may_move: bool) -> float:
    """Return a lower bound on an epoch's time: as the miners are placed, or wherever they may be moved before it."""
    return _moved_s(contest, world) if may_move else _placed_s(contest, world)


def hops_s(contest: Contest, world: World) -> Floats:
    """Return (n, n): what a message takes from miner to miner on empty links; nothing from a miner to itself."""
    links = contest.network
    rate = np.minimum.outer(world.bandwidth, world.bandwidth)
    fixed = links.overhead + links.global_latency + np.add.outer(world.latency_s, world.latency_s)
    hops: Floats = fixed + links.activation / rate
    np.fill_diagonal(hops, 0.0)
    return hops


def _placed_s(contest: Contest, world: World) -> float:
    number, cache = contest.epochs.activations, contest.miners.cache
    busy = world.forward_s + world.backward_s
    hops = hops_s(contest, world)
    served = [np.array(world.miners_of(layer)) for layer in range(world.num_layers)]
    held = _held(busy, hops, served)
    heads = _before(world.forward_s, hops, served)
    tails = _before(world.backward_s, hops, served)
    # Activations per second that the slots of a miner let through, by layer; 0 where it does not serve.
    slots = np.zeros((world.num_layers, world.num_miners))
    for layer, miners in enumerate(served):
        slots[layer, miners] = cache / held[layer]
    round_trip_s = float(held[0].min())
    bounds = [round_trip_s, number * round_trip_s / contest.epochs.in_flight]
    for layers in _subsets(world.num_layers):
        rate = np.minimum(1.0 / busy, slots[layers].sum(axis=0)).sum()
        around_s = min(heads[layer] for layer in layers) + min(tails[layer] for layer in layers)
        bounds.append(around_s + len(layers) * number / float(rate))
    return max(bounds)


def _held(busy: Floats, hops: Floats, served: list[np.ndarray]) -> list[Floats]:
    """Return by layer, for each miner that serves it, the least time that it holds an activation."""
    held = [busy[served[-1]]]
    for here, above in zip(reversed(served[:-1]), reversed(served[1:]), strict=True):
        beyond = (2.0 * hops[np.ix_(here, above)] + held[0]).min(axis=1)
        held.insert(0, busy[here] + beyond)
    return held


def _before(work: Floats, hops: Floats, served: list[np.ndarray]) -> list[float]:
    """Return by layer the least time that work and messages of the layers below take."""
    arrive: Floats = np.zeros(len(served[0]))
    least = [0.0]
    for here, above in pairwise(served):
        arrive = ((arrive + work[here])[:, None] + hops[np.ix_(here, above)]).min(axis=0)
        least.append(float(arrive.min()))
    return least


def _subsets(num_layers: int) -> Iterator[list[int]]:
    for size in range(1, num_layers + 1):
        yield from (list(layers) for layers in combinations(range(num_layers), size))


def _moved_s(contest: Contest, world: World) -> float:
    number, num_layers = contest.epochs.activations, world.num_layers
    busy = world.forward_s + world.backward_s
    hops = hops_s(contest, world)
    hop_s = float(hops[~np.eye(world.num_miners, dtype=bool)].min()) if world.num_miners > 1 else 0.0
    widest = max(world.width)
    # Held from layer to the top and back: the fastest miner everywhere, messages only where one cannot serve both.
    held = [
        remaining * float(busy.min()) + 2.0 * hop_s * (-(-remaining // widest) - 1)
        for remaining in range(num_layers, 0, -1)
    ]
    num_slots = contest.miners.cache * sum(min(width, num_layers) for width in world.width)
    return max(
        held[0],
        number * held[0] / contest.epochs.in_flight,
        num_layers * number / float((1.0 / busy).sum()),
        number * sum(held) / num_slots,
    )
