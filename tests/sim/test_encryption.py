"""What encryption costs a message and a run: exactly the formula, nothing where it is not counted."""

from collections.abc import Callable
from typing import Any

import pytest

from orionbed.encryption import RECORD_BYTES, RECORD_OVERHEAD_BYTES, added_s
from orionbed.plan import make_plan
from orionbed.scenario import Scenario
from orionbed.streams import Streams
from orionbed.tracing import CAUSE_ENCRYPTION, CAUSE_TRANSFER
from orionbed.waterfall import gpu_seconds
from sim.backend import run
from sim.clock import Clock
from sim.wiring import make_network

Make = Callable[..., Scenario]
OPEN = {"window": 1e12, "initial_window": 1e12}
NUM_BYTES = 16e6
SHARE = RECORD_BYTES / (RECORD_BYTES + RECORD_OVERHEAD_BYTES)


def arrivals(scenario: Scenario, num_messages: int = 2) -> list[float]:
    """Send messages one after the other from the first peer to the second; return how long each has taken."""
    clock = Clock()
    network = make_network(make_plan(scenario), clock, Streams(0))
    found = []
    for _ in range(num_messages):
        sent_s = clock.now
        network.send(0, 1, NUM_BYTES, lambda _arg: None)
        clock.run()
        found.append(clock.now - sent_s)
    return found


def scenario(quiet: Make, **transport: Any) -> Scenario:
    changes = {"network__uplink": 8e8, "network__downlink": 8e9, "network__delay": 0.03}
    return quiet(**changes, network__transport=OPEN | transport)


# Links of 100 MB/s: a cipher that is faster costs its records alone, one that is slower sets the pace.
@pytest.mark.parametrize("cipher_bps", [8e10, 4e8])
def test_a_message_is_later_by_exactly_the_formula(quiet: Make, cipher_bps: float) -> None:
    (cold, warm), (cold_plain, warm_plain) = (
        arrivals(scenario(quiet, **transport)) for transport in ({"cipher_rate": cipher_bps}, {"tls": False})
    )
    cipher, rate = cipher_bps / 8, 1e8
    expected_s = NUM_BYTES / min(rate * SHARE, cipher) + 0.03 + 2 * RECORD_BYTES / cipher
    assert warm == pytest.approx(expected_s, abs=1e-10)
    assert warm - warm_plain == pytest.approx(added_s(NUM_BYTES, rate, cipher), abs=1e-10)
    assert (cold - warm) - (cold_plain - warm_plain) == pytest.approx(0.06, abs=1e-10)  # the handshake's round trip


def test_parallel_streams_have_a_core_each(quiet: Make) -> None:
    one, four = (arrivals(scenario(quiet, cipher_rate=8e7, streams=streams))[1] for streams in (1, 4))
    record_s = 2 * RECORD_BYTES / 1e7
    assert one - 0.03 - record_s == pytest.approx(4 * (four - 0.03 - record_s), rel=1e-10)


def test_without_tls_no_cipher_is_counted(quiet: Make) -> None:
    assert arrivals(scenario(quiet, tls=False, cipher_rate=8e6)) == arrivals(scenario(quiet, tls=False))


def test_the_network_knows_what_encryption_made_of_a_message(quiet: Make) -> None:
    clock = Clock()
    network = make_network(make_plan(scenario(quiet, cipher_rate=4e8)), clock, Streams(0))
    network.send(0, 1, NUM_BYTES, lambda _arg: None)
    clock.run()
    added = added_s(NUM_BYTES, 1e8, 5e7)
    assert network.encryption_s(0, 1, NUM_BYTES, 0.0) == pytest.approx(0.06 + added, abs=1e-10)
    assert network.encryption_s(0, 1, NUM_BYTES, clock.now) == pytest.approx(added, abs=1e-10)
    assert network.encryption_s(0, 0, NUM_BYTES, 0.0) == 0.0
    network._connections[0][1].up.capacity = 0.0
    assert network.encryption_s(0, 1, NUM_BYTES, clock.now) == 0.0


def test_a_run_without_the_key_has_no_second_of_it(quiet: Make) -> None:
    result = run(make_plan(scenario(quiet)))
    seconds = gpu_seconds(result).sum(axis=0)
    assert seconds[CAUSE_ENCRYPTION] == 0.0
    assert seconds[CAUSE_TRANSFER] > 0.0
