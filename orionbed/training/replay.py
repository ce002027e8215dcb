"""A queue-driven run done again in one process, from its journal: its peers must end with the weights that they had."""

import base64
from collections.abc import Iterable, Mapping

from orionbed.journal import Entry, in_order
from orionbed.plan import Plan
from orionbed.training.data import Batches
from orionbed.training.from_journal import UndecidedError, script_of
from orionbed.training.serial import worst_difference
from orionbed.training.shape import ModelShape
from orionbed.training.text import make_batches
from orionbed.training.threads import with_threads


def difference_and_problem(
    plan: Plan, shape: ModelShape, seed: int, entries: Iterable[Entry], told: Mapping[int, str]
) -> tuple[float | None, str]:
    """Return what the audit asks for: how far the weights are from the replay's, and why there was none.

    `told` has by peer its last weights in base64. There is no difference where nobody told any, or where the journal
    leaves open what was used.
    """
    if not told:
        return None, ""
    weights = {peer: base64.b64decode(text) for peer, text in told.items()}
    batches = make_batches(plan.scenario.training.data, shape, seed)
    try:
        return replayed_difference(plan, shape, seed, batches, entries, weights), ""
    except UndecidedError:
        return None, ""
    except ValueError as error:
        return None, str(error)


def replayed_difference(  # noqa: PLR0917
    plan: Plan,
    shape: ModelShape,
    seed: int,
    batches: Batches,
    entries: Iterable[Entry],
    weights: Mapping[int, bytes],
) -> float | None:
    """Return the largest difference of a weight, relative to the largest of its peer; None without peers to compare.

    `weights` has by peer those that it ended with, as bytes of the shape's format. On one thread of the same machine
    the same operations in the same order give the same bits. Peers that have come back and have no weights yet are
    left out.

    Raises:
        JournalError: the journal cannot be replayed.

    """
    from orionbed.training.player import Player

    entries = in_order(entries)
    lines = script_of(plan, entries)
    optimizer = plan.scenario.training.optimizer
    with with_threads(1):
        player = Player(plan, shape, lines, seed=seed, optimizer=optimizer, batches=batches)
        for number in range(len(lines)):
            player.play(number)
    compared = weights.keys() - _without_weights(entries)
    return worst_difference([(weights[peer], [player.seats[peer].worker.weights()]) for peer in compared])


def _without_weights(entries: Iterable[Entry]) -> set[int]:
    """Return the peers that are in a new life and have yet to take over a version."""
    found: set[int] = set()
    for entry in entries:
        if entry.event == "returned":
            found.add(entry.peer)
        elif entry.event in {"adopted", "taken"}:
            found.discard(entry.peer)
    return found
