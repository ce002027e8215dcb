"""How many hops lie on an order's longest path: by formula where there is one, by measurement for every order."""

from dataclasses import replace

from orionbed.schedule.order import Order
from orionbed.schedule.timing import Hops, Times, time_order

FORMULAS = {"gpipe": "2 (p-1)", "1f1b": "2 (p-1)(m/p+1) - 2"}
"""Hop times that a step pays, by schedule: p equal stages, m micro-batches, for 1F1B a multiple of p."""


def hops_by_formula(name: str, num_stages: int, num_microbatches: int) -> int | None:
    """Return the hop times in the step of a schedule, or None where no formula holds."""
    if num_stages == 1:
        return 0 if name in FORMULAS else None
    if name == "gpipe":
        return 2 * (num_stages - 1)
    if name == "1f1b" and num_microbatches % num_stages == 0:
        return 2 * (num_stages - 1) * (num_microbatches // num_stages + 1) - 2
    return None


def hops_on_longest_path(order: Order, times: Times, hops: Hops) -> int:
    """Return how many delays the makespan holds: by how much a slightly longer delay lengthens it.

    Of several longest paths the one with the most hops counts, since a longer delay makes that the longest.
    """
    makespan_s = time_order(order, times, hops).makespan_s
    little_s = makespan_s * 1e-7
    between = {pair: (transfer_s, delay_s + little_s) for pair, (transfer_s, delay_s) in (hops.between or {}).items()}
    slower = replace(hops, delay_s=hops.delay_s + little_s, between=between)
    return round((time_order(order, times, slower).makespan_s - makespan_s) / little_s)
