"""Bytes, seconds and what failures leave of a merge, in closed form. The simulator is tested against them.

n peers of a stage contribute c bytes each; links of rate r both ways, delay d, nothing else on them. The store is as
far away as a peer. A chance q that a peer falls silent, independently, as `sim.merging` takes it for each algorithm.
"""

from dataclasses import dataclass
from functools import cache
from math import ceil, comb, log2

from orionbed.merging.butterfly import butterfly_bytes
from orionbed.merging.groups import grid_groups, num_rounds


@dataclass(frozen=True, slots=True)
class Case:
    """One merge of a stage. `weight_bytes` are those of the weights where they travel too (butterfly)."""

    algorithm: str
    num_peers: int
    contribution_bytes: float
    weight_bytes: float = 0.0
    group_size: int = 4
    rounds: int | None = None
    momentum: bool = True

    @property
    def groups(self) -> list[list[int]]:
        """Sizes of the groups of each round of grouped averaging."""
        dimensions = num_rounds(self.num_peers, self.group_size)
        peers = range(self.num_peers)
        count = dimensions if self.rounds is None else self.rounds
        return [[len(g) for g in grid_groups(peers, self.group_size, dimensions, each)] for each in range(count)]


def bytes_per_peer(case: Case) -> tuple[float, float]:
    """Return the bytes that a peer sends and receives, the mean over the peers of a stage."""
    n, c = case.num_peers, case.contribution_bytes
    if case.algorithm == "butterfly":
        moved = butterfly_bytes(case.weight_bytes, n, gradient_bytes=c, momentum=case.momentum)
        return moved.up, moved.down
    if case.algorithm == "gather":
        return c, (n - 1) * c
    if case.algorithm == "gossip":
        sent = c * (n - n % 2) / n
    elif case.algorithm == "grouped":
        sent = sum(2.0 * (size - 1) * c for sizes in case.groups for size in sizes) / n
    else:  # ring, tree and both servers: everything once up, once back
        sent = 2.0 * (n - 1) * c / n
    return sent, sent


def seconds(case: Case, rate: float, delay_s: float) -> float:
    """Return how long the transfers of a merge take; averaging and coding come on top."""
    n, c = case.num_peers, case.contribution_bytes
    if case.algorithm == "butterfly":
        up, down = bytes_per_peer(case)
        return (up + down) / rate + 4.0 * delay_s
    if case.algorithm == "gather":
        return n * c / rate + 2.0 * delay_s
    if n == 1:
        return 0.0
    if case.algorithm == "ring":
        return 2.0 * (n - 1) * (c / n / rate + delay_s)
    if case.algorithm == "tree":
        return 2.0 * ceil(log2(n)) * (c / rate + delay_s)
    if case.algorithm == "central-ps":
        return 2.0 * ((n - 1) * c / rate + delay_s)
    if case.algorithm == "gossip":
        return c / rate + delay_s
    if case.algorithm == "grouped":
        return sum(2.0 * _shards_s(max(sizes), c, rate, delay_s) for sizes in case.groups if max(sizes) > 1)
    return 2.0 * _shards_s(n, c, rate, delay_s)


def _shards_s(num_peers: int, num_bytes: float, rate: float, delay_s: float) -> float:
    return (num_peers - 1) / num_peers * num_bytes / rate + delay_s


def expected_coverage(algorithm: str, num_peers: int, q: float, attempts: int) -> float:
    """Return the share of a stage's weights that a merge averages, its mean.

    A slice of the butterfly is lost when both its holders are: 1 - q^2, tries below `coverage_floor` not counted. A
    server's part is lost with it: 1 - q. A pair is lost with one of the two. gather needs one contribution. A ring or
    tree needs everybody, and begins anew without those who are silent; so does a central server that is.
    """
    n = num_peers
    if algorithm == "butterfly":
        return 1.0 - q**2 if n > 1 else 1.0 - q
    if algorithm in {"sharded-ps", "grouped"}:
        return 1.0 - q
    if algorithm == "gossip":
        return (1.0 - q) ** 2 * (n - n % 2) / n
    if algorithm == "gather":
        return 1.0 - q**n
    return _retried(algorithm == "central-ps", n, q, attempts)


@cache
def _retried(central: bool, n: int, q: float, attempts: int) -> float:  # noqa: FBT001
    """Return the chance that one of `attempts` tries succeeds; those who were silent are left out of the next."""
    if not attempts or not n:
        return 0.0
    others = n - 1 if central else n
    chance = {silent: comb(others, silent) * q**silent * (1.0 - q) ** (others - silent) for silent in range(others + 1)}
    if central:
        again = sum(p * _retried(central, others - silent, q, attempts - 1) for silent, p in chance.items())
        return (1.0 - q) + q * again
    return chance[0] + sum(p * _retried(central, n - silent, q, attempts - 1) for silent, p in chance.items() if silent)
