"""The network of virtual time against closed forms and against the simulator's, which is another piece of code."""

from math import inf

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emulator.fluid import Fluid, Route
from orionbed import tcp
from orionbed.streams import Streams
from sim.clock import Clock
from sim.in_order import InOrderNetwork
from sim.links import PeerLinks, Transport

Sent = tuple[float, int, int, float]


def route(delay_s: float = 0.0, *, ceiling: float = inf, window: float = 1e18, handshake_s: float = 0.0) -> Route:
    return Route((("up", 0), ("down", 1)), delay_s, ceiling, 1, window, handshake_s)


def fluid_of(the_route: Route, rate: float = 100.0) -> Fluid:
    return Fluid(
        lambda _s, _t: the_route, lambda _r: lambda _at: (rate, inf), None, keep_warm=True, slow_start_after_idle=False
    )


def drain(fluid: Fluid, sends: list[Sent] | None = None) -> dict[int, float]:
    """Let everything happen; return when each message was delivered."""
    delivered, waiting = {}, sorted(sends or [])
    while waiting or fluid.next_s() < inf:
        at_s = min(fluid.next_s(), waiting[0][0] if waiting else inf)
        for message in fluid.advance(at_s):
            delivered[message.number] = at_s
        while waiting and waiting[0][0] <= at_s:
            _, source, target, size = waiting.pop(0)
            fluid.send(source, target, len(sends or []) - len(waiting) - 1, size)
    return delivered


def test_a_message_alone_takes_size_over_rate_and_the_delay() -> None:
    fluid = fluid_of(route(0.5))
    fluid.send(0, 1, 7, 200.0)
    assert drain(fluid) == {7: pytest.approx(2.5)}


def test_a_connection_carries_one_message_after_the_other() -> None:
    fluid = fluid_of(route(0.5))
    fluid.send(0, 1, 0, 200.0)
    fluid.send(0, 1, 1, 100.0)
    assert drain(fluid) == {0: pytest.approx(2.5), 1: pytest.approx(3.5)}


def test_a_ceiling_binds() -> None:
    fluid = fluid_of(route(0.0, ceiling=10.0))
    fluid.send(0, 1, 0, 50.0)
    assert drain(fluid) == {0: pytest.approx(5.0)}


def test_a_new_connection_starts_slowly() -> None:
    fluid = fluid_of(route(0.5, window=10.0, handshake_s=2.0))
    fluid.send(0, 1, 0, 400.0)
    assert drain(fluid)[0] == pytest.approx(2.0 + tcp.slow_start_s(400.0, 100.0, 1.0, 10.0) + 0.5)


def simulated(links: PeerLinks, transport: Transport, sends: list[Sent]) -> dict[int, float]:
    clock = Clock()
    network = InOrderNetwork(clock, links, Streams(0), transport=transport, jitter=None)
    delivered: dict[int, float] = {}

    def start(number: int) -> None:
        _, source, target, size = sends[number]
        network.send(source, target, size, lambda n: delivered.__setitem__(n, clock.now), number)

    for number, (at_s, *_) in enumerate(sends):
        clock.call_at(at_s, start, number)
    clock.run()
    return delivered


@settings(max_examples=120, deadline=None)
@given(
    st.lists(
        st.tuples(st.floats(0.0, 20.0), st.integers(0, 3), st.integers(0, 3), st.floats(1e3, 1e6)),
        min_size=1,
        max_size=14,
    ),
    st.booleans(),
)
def test_it_delivers_when_the_simulators_network_does(given_sends: list[Sent], cold: bool) -> None:
    sends = sorted(send for send in given_sends if send[1] != send[2])
    rates = np.array([1e5, 2e5, 5e4, 1.5e5])
    links = PeerLinks(rates, rates[::-1].copy(), np.zeros(4, dtype=np.int64), np.array([[0.02]]))
    window = 14480.0 if cold else 1e18
    transport = Transport(window_bytes=1e5, initial_window_bytes=min(window, 1e5), tls=True)
    ceiling = transport.ceiling(0.04)

    def way(source: int, target: int) -> Route:
        handshake_s = tcp.handshake_s(0.04, tls=True)
        return Route((("up", source), ("down", target)), 0.02, ceiling, 1, min(window, 1e5), handshake_s)

    def capacity(resource: tuple[str | int, ...]) -> object:
        rate = float(rates[int(resource[1])] if resource[0] == "up" else rates[::-1][int(resource[1])])
        return lambda _at_s: (rate, inf)

    fluid = Fluid(way, capacity, None, keep_warm=True, slow_start_after_idle=False)  # type: ignore[arg-type]
    ours, theirs = drain(fluid, sends), simulated(links, transport, sends)
    assert ours.keys() == theirs.keys()
    for number, at_s in ours.items():
        assert at_s == pytest.approx(theirs[number], rel=1e-6, abs=1e-6)
