"""What went over the connections of a run, told by each end of them, and the law that nothing is lost."""

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from orionbed.fleet.members import Member

if TYPE_CHECKING:
    from orionbed.transport.endpoint import Endpoint


def counted(endpoint: "Endpoint") -> dict[str, Any]:
    """Return the counts of an endpoint as they are told; bytes are those of bodies."""
    found = endpoint.counters()
    return {
        "sent": [asdict(one) for one in found.sent],
        "received": [asdict(one) for one in found.received],
        "departed_bytes": sum(one.num_bytes + one.repeated_bytes for one in found.sent),
        "delivered_bytes": sum(one.num_bytes for one in found.received),
        "num_corrupted": found.num_corrupted,
        "num_resent": found.num_resent,
        "num_reconnects": found.num_reconnects,
    }


@dataclass(frozen=True, slots=True)
class Moved:
    """Body bytes of a run, each once however often it was repeated: sent = delivered + in flight + destroyed."""

    sent_bytes: int
    delivered_bytes: int
    in_flight_bytes: int
    destroyed_bytes: int


def moved_bytes(members: list[Member]) -> Moved:
    """Return the balance of all that was sent; what does not add up there was lost, or came from nowhere.

    A process that was killed took its counts along. What others had from it counts as sent, and what it had
    acknowledged as delivered.
    """
    told = {m.index: m.final["counters"] for m in members if m.final is not None and "counters" in m.final}
    lives = {member.index: member.life for member in members}
    received: dict[tuple[int, int, int], int] = {
        (row["source"], row["life"], target): row["num_bytes"]
        for target, counters in told.items()
        for row in counters["received"]
    }
    sent = delivered = in_flight = destroyed = 0
    for source, counters in told.items():
        for row in counters["sent"]:
            target = row["target"]
            got = received.pop((source, lives[source], target), 0)
            if lives[target] or target not in told:
                got = max(got, row["acknowledged_bytes"])
            left = row["num_bytes"] - got
            open_bytes = max(0, row["num_bytes"] - row["acknowledged_bytes"] - row["failed_bytes"])
            under_way = max(0, min(left, open_bytes))
            sent += row["num_bytes"]
            delivered += got
            in_flight += under_way
            destroyed += max(0, min(left - under_way, row["failed_bytes"]))
    from_the_dead = sum(count for (source, life, _), count in received.items() if life < lives[source])
    from_the_dead += sum(
        count for (source, life, _), count in received.items() if life == lives[source] and source not in told
    )
    return Moved(sent + from_the_dead, delivered + sum(received.values()), in_flight, destroyed)
