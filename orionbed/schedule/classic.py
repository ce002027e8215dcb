"""GPipe, 1F1B and interleaved 1F1B: schedules with whole backwards."""

from itertools import pairwise

from orionbed.schedule.actions import Action
from orionbed.schedule.order import Order, looped, make_order, one_each


def gpipe(num_stages: int, num_microbatches: int) -> Order:
    """GPipe (arXiv 1811.06965): all forwards, then all backwards."""
    lists = (
        [Action("F", stage, m) for m in range(num_microbatches)]
        + [Action("B", stage, m) for m in range(num_microbatches)]
        for stage in range(num_stages)
    )
    return make_order(lists, one_each(num_stages))


def one_forward_one_backward(num_stages: int, num_microbatches: int) -> Order:
    """1F1B (PipeDream-Flush, arXiv 2006.09503): stage i warms up with num_stages-1-i forwards, then alternates."""
    lists = []
    for stage in range(num_stages):
        forwards = [Action("F", stage, m) for m in range(num_microbatches)]
        backwards = [Action("B", stage, m) for m in range(num_microbatches)]
        lists.append(alternate(forwards, backwards, num_stages - 1 - stage))
    return make_order(lists, one_each(num_stages))


def interleaved(num_stages: int, num_microbatches: int, chunks: int) -> Order:
    """Interleaved 1F1B (arXiv 2104.04473): each stage holds `chunks` pieces of the model, and the model goes round.

    Micro-batches go in groups of `num_stages`: a group passes a stage's first piece, then its second, and so on. Stage
    i warms up with 2(num_stages-1-i) forwards and one group for each piece but the last, then alternates. Megatron-LM
    wants whole groups; here the groups may also be smaller, as equal as can be.
    """
    num_groups = max(1, num_microbatches // num_stages)
    bounds = [num_microbatches * g // num_groups for g in range(num_groups + 1)]
    groups = [range(low, high) for low, high in pairwise(bounds)]
    largest = max(len(group) for group in groups)
    lists = []
    for stage in range(num_stages):
        held = [stage + num_stages * piece for piece in range(chunks)]
        forwards = [Action("F", chunk, m) for group in groups for chunk in held for m in group]
        backwards = [Action("B", chunk, m) for group in groups for chunk in reversed(held) for m in group]
        lists.append(alternate(forwards, backwards, 2 * (num_stages - 1 - stage) + (chunks - 1) * largest))
    return make_order(lists, looped(num_stages, chunks))


def alternate(forwards: list[Action], backwards: list[Action], warm_up: int) -> list[Action]:
    """Return `warm_up` forwards, then one forward and one backward in turn, then the backwards that are left."""
    warm_up = min(warm_up, len(forwards))
    actions = forwards[:warm_up]
    for forward, backward in zip(forwards[warm_up:], backwards, strict=False):
        actions += [forward, backward]
    return actions + backwards[len(forwards) - warm_up :]
