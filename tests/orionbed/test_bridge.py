"""The bridge's three rules for writing keep their promises, whatever clients do and in whatever order."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orionbed.bridge import Bridge

CLIENTS = st.integers(0, 3)


def test_the_last_write_wins_and_versions_grow() -> None:
    bridge = Bridge()
    assert bridge.get("a") is None
    assert [bridge.put("a", value, at_s) for at_s, value in enumerate("xyz")] == [1, 2, 3]
    entry = bridge.get("a")
    assert entry is not None
    assert (entry.value, entry.version, entry.written_s) == ("z", 3, 2)
    assert bridge.version("b") == 0


def test_a_deleted_key_has_no_value_and_no_old_version_fits() -> None:
    bridge = Bridge()
    bridge.put("a", 1, 0.0)
    bridge.delete("a")
    bridge.delete("a")
    assert bridge.get("a") is None
    assert not bridge.swap("a", 2, 0, 1.0)
    assert not bridge.swap("a", 2, 1, 1.0)
    assert bridge.swap("a", 2, bridge.version("a"), 1.0)


@settings(max_examples=60)
@given(st.lists(st.tuples(CLIENTS, st.booleans()), max_size=60))
def test_compare_and_swap_never_loses_an_update(steps: list[tuple[int, bool]]) -> None:
    """Clients read and write in any interleaving; the counter ends at the number of swaps that succeeded."""
    bridge = Bridge()
    read: dict[int, tuple[int, int]] = {}
    succeeded = 0
    for client, reads in steps:
        if reads or client not in read:
            entry = bridge.get("counter")
            read[client] = (0, 0) if entry is None else (entry.value, entry.version)
        else:
            value, version = read.pop(client)
            succeeded += bridge.swap("counter", value + 1, version, 0.0)
    entry = bridge.get("counter")
    assert (0 if entry is None else entry.value) == succeeded == bridge.version("counter")


LOCK_STEPS = st.tuples(CLIENTS, st.sampled_from(["lock", "unlock", "put"]), st.floats(0.0, 3.0), st.floats(0.1, 4.0))


@settings(max_examples=60)
@given(st.lists(LOCK_STEPS, max_size=60))
def test_a_lock_has_one_holder_until_it_is_given_back_or_expires(steps: list[tuple[int, str, float, float]]) -> None:
    bridge = Bridge()
    now_s = 0.0
    until_s: dict[int, float] = {}  # what each client knows of its own lock
    for client, what, after_s, for_s in steps:
        now_s += after_s
        holders = [c for c, end_s in until_s.items() if now_s < end_s]
        assert len(holders) <= 1
        token = f"t{client}"
        if what == "lock":
            got = bridge.lock("k", token, now_s, for_s)
            assert got == (holders in ([], [client]))
            if got:
                until_s[client] = now_s + for_s
        elif what == "unlock":
            assert bridge.unlock("k", token, now_s) == (holders == [client])
            until_s.pop(client, None)
        else:
            assert bridge.put_locked("k", client, token, now_s) == (holders == [client])


def test_a_lock_ends_exactly_when_it_expires() -> None:
    bridge = Bridge()
    assert bridge.lock("k", "a", 0.0, 5.0)
    assert not bridge.lock("k", "b", 4.999, 5.0)
    assert bridge.lock("k", "b", 5.0, 5.0)
    assert bridge.holder("k", 5.0) == "b"


@pytest.mark.parametrize("for_s", [0.0, -1.0, float("nan")])
def test_a_lock_needs_time(for_s: Any) -> None:
    with pytest.raises(ValueError, match="longer than 0 s"):
        Bridge().lock("k", "a", 0.0, for_s)


def test_a_key_is_fresh_as_long_as_it_was_written_lately() -> None:
    bridge = Bridge()
    bridge.put("a", 1, 10.0)
    assert bridge.is_fresh("a", 310.0, 300.0)
    assert not bridge.is_fresh("a", 310.1, 300.0)
    assert not bridge.is_fresh("b", 0.0, 300.0)
