"""Bytes of all connections: nothing gets lost, whoever died, and what does get lost is seen."""

from typing import Any

from orionbed.fleet.members import Member
from real.queued.counting import Moved, moved_bytes


def member(index: int, *, sent: list[dict[str, int]], received: list[dict[str, int]], life: int = 0) -> Member:
    found = Member(index, "peer", life=life)
    found.final = {"counters": {"sent": sent, "received": received}}
    return found


def to(target: int, num_bytes: int, acknowledged: int, failed: int = 0) -> dict[str, int]:
    return {"target": target, "num_bytes": num_bytes, "acknowledged_bytes": acknowledged, "failed_bytes": failed}


def of(source: int, num_bytes: int, life: int = 0) -> dict[str, int]:
    return {"source": source, "life": life, "num_bytes": num_bytes}


def adds_up(moved: Moved) -> bool:
    return moved.sent_bytes == moved.delivered_bytes + moved.in_flight_bytes + moved.destroyed_bytes


def test_what_is_not_acknowledged_is_under_way_and_what_failed_is_destroyed() -> None:
    moved = moved_bytes(
        [member(0, sent=[to(1, 100, 60, failed=10)], received=[]), member(1, sent=[], received=[of(0, 70)])]
    )
    assert moved == Moved(100, 70, 30, 0)  # what failed had arrived; only its acknowledgement was lost
    moved = moved_bytes(
        [member(0, sent=[to(1, 100, 90, failed=10)], received=[]), member(1, sent=[], received=[of(0, 90)])]
    )
    assert moved == Moved(100, 90, 0, 10)


def test_bytes_that_are_missing_or_come_from_nowhere_are_seen() -> None:
    for acknowledged, received in ((100, 90), (100, 110), (95, 80)):
        pair = [member(0, sent=[to(1, 100, acknowledged)], received=[]), member(1, sent=[], received=[of(0, received)])]
        assert not adds_up(moved_bytes(pair))


def test_the_dead_are_known_by_what_others_had_from_them() -> None:
    gone = Member(1, "peer", life=1, status="down")
    moved = moved_bytes([member(0, sent=[to(1, 50, 40, failed=10)], received=[of(1, 30), of(1, 5, life=1)]), gone])
    assert moved == Moved(50 + 35, 40 + 35, 0, 10)
    again = member(1, sent=[to(0, 20, 20)], received=[of(0, 15)], life=1)
    others: list[Any] = [member(0, sent=[to(1, 50, 40, failed=10)], received=[of(1, 30), of(1, 20, life=1)]), again]
    assert moved_bytes(others) == Moved(50 + 20 + 30, 40 + 20 + 30, 0, 10)
