"""Who averages with whom in gossip and in grouped averaging."""

from collections.abc import Sequence
from math import prod

import numpy as np

Groups = list[list[int]]


def random_partners(members: Sequence[int], random: np.random.Generator) -> Groups:
    """Return pairs of members at random, and of an odd number one that is left over (NoLoCo, arXiv 2506.10911)."""
    order = [members[place] for place in random.permutation(len(members))]
    return [order[first : first + 2] for first in range(0, len(order), 2)]


def num_rounds(num_members: int, group_size: int) -> int:
    """Return the dimensions of a grid of side `group_size` that has a place for everybody; at least 1."""
    rounds = 1
    while group_size**rounds < num_members:
        rounds += 1
    return rounds


def grid_groups(members: Sequence[int], group_size: int, dimensions: int, number: int) -> Groups:
    """Return the groups of round `number`: those who differ in that coordinate of the grid alone (Moshpit SGD).

    Members fill a grid with sides of `group_size` in their order; round `dimensions` is the first one again. When they
    fill it, the mean over all of them is exact after every dimension has had its round (Ryabinin et al., arXiv
    2103.03239).
    """
    side = group_size ** (number % dimensions)
    groups: dict[int, list[int]] = {}
    for place, member in enumerate(members):
        digit = place // side % group_size
        groups.setdefault(place - digit * side, []).append(member)
    return [groups[key] for key in sorted(groups)]


def fills_grid(num_members: int, group_size: int, dimensions: int) -> bool:
    """Whether a grid has exactly one member at each place."""
    return num_members == prod([group_size] * dimensions)
