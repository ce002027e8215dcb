"""A player between two lines as the shards of a checkpoint, and a player made to go on from one."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from orionbed.checkpoints import Checkpoint, Value, as_json
from orionbed.training.player import Player, Seat, Staleness

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

RUN: Final = "run"
"""The shard of what belongs to no peer: tensors on their way, and what merges have left."""
Shards = dict[str, dict[str, Value]]


def can_keep(player: Player, next_line: int) -> bool:
    """Whether all that a player has can be kept before this line: inputs of forwards can, graphs cannot."""
    if not next_line:
        return True
    links = player.links
    return not links.num_halves[next_line - 1] and (player.shape.recompute or not links.num_begun[next_line - 1])


def shards_of(player: Player) -> Shards:
    """Return all that a player has, by peer."""
    shards: Shards = {
        peer.name: _seat_contents(seat) for peer, seat in zip(player.plan.peers, player.seats, strict=True)
    }
    merges = player.merges
    own: dict[str, Value] = {f"crossing-{number}": tensor for number, tensor in player.tensors.items()}
    for stage in sorted(merges.weights):
        own |= {f"weights-{stage}": merges.weights[stage], f"velocity-{stage}": merges.velocities[stage]}
    own |= {"losses": table(sorted(player.losses.items()), 2), "drifts": table(merges.drifts, 3)}
    own["facts"] = as_json(
        {
            "users": sorted(player.users.items()),
            "known": sorted(player.known),
            "num_steps": player.num_steps,
            "staleness": [[each.count, each.total, each.largest] for each in player.staleness],
            "num_merges": sorted(merges.num_merges.items()),
            "latest": [[stage, at_s, others] for stage, (at_s, others) in sorted(merges.latest.items())],
        }
    )
    return shards | {RUN: own}


def restore(player: Player, kept: Checkpoint) -> None:
    """Let a new player of the same script go on from a checkpoint."""
    for peer, seat in zip(player.plan.peers, player.seats, strict=True):
        _restore_seat(player, seat, kept, peer.name)
    facts = kept.json(RUN, "facts")
    player.users = dict(facts["users"])
    player.tensors = {number: kept.tensor(RUN, f"crossing-{number}") for number in player.users}
    player.losses = {int(number): loss for number, loss in kept.tensor(RUN, "losses").tolist()}
    player.known = set(facts["known"])
    player.num_steps = facts["num_steps"]
    player.staleness = [Staleness(*each) for each in facts["staleness"]]
    merges = player.merges
    merges.drifts = [(at_s, int(stage), drift) for at_s, stage, drift in kept.tensor(RUN, "drifts").tolist()]
    merges.num_merges = dict(facts["num_merges"])
    merges.latest = {stage: (at_s, tuple(others)) for stage, at_s, others in facts["latest"]}
    for stage in merges.num_merges:
        merges.weights[stage] = kept.tensor(RUN, f"weights-{stage}")
        merges.velocities[stage] = kept.tensor(RUN, f"velocity-{stage}")


def table(rows: Sequence[Sequence[float]], width: int) -> "NDArray[np.float64]":
    """Return rows of numbers, which need not be finite, as they are kept."""
    return np.array(rows, dtype=np.float64).reshape(-1, width)


def _seat_contents(seat: Seat) -> dict[str, Value]:
    worker = seat.worker
    inputs = worker.kept_inputs()
    contents: dict[str, Value] = {
        "state": worker.state(),
        "gradients": worker.gradients(),
        "residuals": worker.residuals(),
    }
    contents |= {_input_name(key): tensor for key, tensor in inputs.items() if tensor is not None}
    contents |= {f"state-{number}": state for number, state in enumerate(seat.states)}
    facts: dict[str, Any] = {
        "stage": seat.stage,
        "num_steps": seat.num_steps,
        "work": seat.work,
        "away": seat.away,
        "divisor": seat.divisor,
        "accumulated": sorted(seat.accumulated),
        "begun_at": [[*key, steps] for key, steps in seat.begun_at.items()],
        "num_states": len(seat.states),
        "kept": [[*key, tensor is not None] for key, tensor in inputs.items()],
    }
    return contents | {"facts": as_json(facts)}


def _restore_seat(player: Player, seat: Seat, kept: Checkpoint, name: str) -> None:
    facts = kept.json(name, "facts")
    player.seat_at(seat, facts["stage"])
    seat.worker.load_state(bytes(kept.bytes(name, "state")))
    seat.worker.set_gradients(kept.tensor(name, "gradients"))
    seat.worker.load_residuals(bytes(kept.bytes(name, "residuals")))
    inputs: dict[tuple[int, int], Tensor | None] = {
        (chunk, number): kept.tensor(name, _input_name((chunk, number))) if came else None
        for chunk, number, came in facts["kept"]
    }
    seat.worker.keep_inputs(inputs)
    seat.num_steps, seat.work, seat.away = facts["num_steps"], facts["work"], facts["away"]
    seat.divisor, seat.accumulated = facts["divisor"], set(facts["accumulated"])
    seat.begun_at = {(chunk, number): steps for chunk, number, steps in facts["begun_at"]}
    seat.states.clear()
    seat.states.extend(bytes(kept.bytes(name, f"state-{number}")) for number in range(facts["num_states"]))


def _input_name(key: tuple[int, int]) -> str:
    return f"input-{key[0]}-{key[1]}"
