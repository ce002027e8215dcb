"""What a peer had to do with which micro-batches when it was lost."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

from orionbed.schedule.queue_driven import QueueDrivenPolicy

if TYPE_CHECKING:
    from orionbed.ledger import Ledger
    from orionbed.schedule.actions import Action
    from sim.peer import SimPeer
    from sim.transfer import Transfer


class State(Enum):
    """How far a micro-batch had got at the peer."""

    INPUT = "its activation was on its way here, waited here, was worked on, or was being handed on"
    BEYOND = "its activation had been handed on; its gradient had not come back"
    GRADIENT = "its gradient was on its way here, waited here, was worked on, or was being handed on"


class Held(NamedTuple):
    """One micro-batch of a lost peer, and the peer before it (-1 at the first stage)."""

    number: int
    upstream: int
    state: State


def inventory(peer: SimPeer, action: Action | None, cut_off: list[Transfer], ledger: Ledger) -> list[Held]:
    """List the open micro-batches of a peer that is lost.

    `action` is what it was at, `cut_off` are the messages from and to it. Its policy must still know what it held.
    """
    policy = peer.policy
    assert isinstance(policy, QueueDrivenPolicy)
    upstream = policy.sources()
    states = {number: State.INPUT if policy.waits(number) else State.BEYOND for number in upstream}
    states.update((number, State.GRADIENT) for number in policy.with_gradient())
    if action is not None and action.microbatch in upstream:
        is_backward = action.kind == "B" and not policy.is_last
        states[action.microbatch] = State.GRADIENT if is_backward else State.INPUT
    for transfer in cut_off:
        kind, number, _, source, target, _ = transfer.arg
        states[number] = State.INPUT if kind == "F" else State.GRADIENT
        if kind == "F" and target is peer:
            upstream[number] = source.index
        elif kind == "B" and source is peer:
            upstream[number] = target.index
    return [Held(number, upstream[number], state) for number, state in states.items() if number in ledger.open]
