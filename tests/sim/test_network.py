"""Messages between peers: delivery times in cases with a known answer."""

from math import inf

import numpy as np
import pytest

from orionbed import tcp
from orionbed.links import Jitter
from orionbed.streams import Streams
from sim.clock import Clock
from sim.links import PeerLinks, Storage, Transport
from sim.network import Network

MBPS = 1e6 / 8.0
# One message before time 0 opens a connection; then there are neither windows nor handshakes to think of.
OPEN = Transport(window_bytes=inf)
START = 100.0


class Bench:
    """A network whose times are counted from START on, and a log of what arrived."""

    def __init__(self, up, down, one_way_s=0.0, site=None, *, fast=True, transport=OPEN, storage=None, **links):
        num = len(up)
        site = np.arange(num) if site is None else np.array(site)
        delays = one_way_s if np.ndim(one_way_s) else np.full((max(site) + 1,) * 2, one_way_s)
        self.clock = Clock()
        self.network = Network(
            self.clock,
            PeerLinks(np.array(up) * MBPS, np.array(down) * MBPS, site, np.array(delays), **links),
            Streams(1),
            transport=transport,
            storage=storage,
            fast=fast,
        )
        self.arrived = {}

    def warm(self, *ways):
        for source, target in ways:
            self.network.send(source, target, 0.0, lambda _: None)
        self.clock.run_to(START)

    def deliver(self, name):
        assert name not in self.arrived
        self.arrived[name] = self.clock.now - START

    def send(self, name, source, target, size_bytes, at=0.0):
        def start(_):
            self.network.send(source, target, size_bytes, self.deliver, name)

        self.clock.call_at(START + at, start)


both = pytest.mark.parametrize("fast", [True, False])


@both
def test_one_message(fast):
    bench = Bench([856, 856], [1322, 1322], 0.03, fast=fast)
    bench.warm((0, 1))
    bench.send("m", 0, 1, 100e6)
    bench.clock.run()
    assert bench.arrived == {"m": pytest.approx(0.9645794392523365, rel=1e-9)}


@both
def test_two_messages_share_an_uplink(fast):
    bench = Bench([856] * 3, [1322] * 3, [[0, 0.03, 0.006], [0.03, 0, 0], [0.006, 0, 0]], fast=fast)
    bench.warm((0, 1), (0, 2))
    bench.send("f1", 0, 1, 100e6)
    bench.send("f2", 0, 2, 100e6)
    bench.clock.run()
    assert bench.arrived["f1"] == pytest.approx(1.899158878504673, rel=1e-9)
    assert bench.arrived["f2"] == pytest.approx(1.8751588785046729, rel=1e-9)


@both
def test_fan_in_shares_the_downlink(fast):
    bench = Bench([856] * 4, [1322] * 4, fast=fast)
    bench.warm((0, 1), (2, 1), (3, 1))
    for source in (0, 2, 3):
        bench.send(source, source, 1, 50e6)
    bench.clock.run()
    assert list(bench.arrived.values()) == [pytest.approx(0.9077155824508321, rel=1e-9)] * 3


@both
def test_directions_are_independent(fast):
    bench = Bench([500, 856], [100, 1322], fast=fast)
    bench.warm((0, 1), (1, 0))
    bench.send("ab", 0, 1, 50e6)
    bench.send("ba", 1, 0, 50e6)
    bench.clock.run()
    assert bench.arrived == {"ab": pytest.approx(0.8, rel=1e-9), "ba": pytest.approx(4.0, rel=1e-9)}


@both
def test_site_cap(fast):
    bench = Bench(
        [200, 856, 856, 856] + [1] * 4, [2000] * 8, 0.0, [0] * 4 + [1] * 4, fast=fast, site_uplink=1600 * MBPS
    )
    bench.send(0, 0, 4, 25e6)
    for source in (1, 2, 3):
        bench.send(source, source, source + 4, 70e6)
    bench.clock.run()
    assert bench.arrived == {
        0: pytest.approx(1.0, rel=1e-9), **{s: pytest.approx(1.175, rel=1e-9) for s in (1, 2, 3)}
    }  # fmt: skip


@both
def test_window_limited_message_beside_a_free_one(fast):
    delays = [[0, 0.034, 0.01], [0.034, 0, 0], [0.01, 0, 0]]
    bench = Bench([856] * 3, [1322] * 3, delays, fast=fast, transport=Transport(window_bytes=2 * 1024**2))
    bench.warm((0, 1), (0, 2))
    bench.send("f1", 0, 1, 20e6)
    bench.send("f2", 0, 2, 60e6)
    bench.clock.run()
    # The other's window at 20 ms allows 838.86 Mbps when it is alone.
    assert bench.arrived["f1"] == pytest.approx(0.68249853515625, rel=1e-9)
    moved = 0.64849853515625 * (856 - 246.72376470588235) * MBPS
    rest_s = (60e6 - moved) / (2 * 1024**2 / 0.02)
    assert bench.arrived["f2"] == pytest.approx(0.64849853515625 + rest_s + 0.01, rel=1e-9)


@both
def test_late_starter(fast):
    bench = Bench([800, 1, 1], [2000] * 3, fast=fast)
    bench.warm((0, 1), (0, 2))
    bench.send("f1", 0, 1, 100e6)
    bench.send("f2", 0, 2, 50e6, at=0.5)
    bench.clock.run()
    assert bench.arrived == {"f1": pytest.approx(1.5, rel=1e-9), "f2": pytest.approx(1.5, rel=1e-9)}


@both
@pytest.mark.parametrize("changing", ["up", "down"])
def test_capacity_changes(fast, changing):
    def steps(time_s):
        begin, mid, end = START + 0.4, START + 1.4, inf
        return (800 * MBPS, begin) if time_s < begin else (80 * MBPS, mid) if time_s < mid else (800 * MBPS, end)

    bench = Bench([2000] * 2, [2000] * 2, fast=fast, profile=lambda _, way: steps if way == changing else None)
    bench.warm((0, 1))
    bench.send("f", 0, 1, 100e6)
    bench.clock.run()
    assert bench.arrived == {"f": pytest.approx(1.9, rel=1e-9)}


@both
def test_partition_stalls_and_heals(fast):
    def steps(time_s):
        begin, end = START + 0.5, START + 2.5
        return (800 * MBPS, begin) if time_s < begin else (0.0, end) if time_s < end else (800 * MBPS, inf)

    bench = Bench([800, 1], [2000] * 2, fast=fast, profile=lambda _, way: steps if way == "up" else None)
    bench.warm((0, 1))
    bench.send("before", 0, 1, 100e6)
    bench.send("during", 0, 1, 100e6, at=1.0)
    bench.clock.run_to(START + 2.4)
    assert bench.arrived == {}
    bench.clock.run()
    # 50 MB are left of the first when both share the healed link.
    assert bench.arrived == {"before": pytest.approx(3.5, rel=1e-9), "during": pytest.approx(4.0, rel=1e-9)}


@both
def test_streams_weigh(fast):
    storage = Storage(0.0, 2)
    bench = Bench([900, 1], [2000] * 2, fast=fast, storage=storage)
    bench.warm((0, 1), (0, bench.network.storage))
    bench.send("one", 0, 1, 75e6)
    bench.send("two", 0, bench.network.storage, 75e6)
    bench.clock.run()
    assert bench.arrived == {"two": pytest.approx(1.0, rel=1e-9), "one": pytest.approx(4 / 3, rel=1e-9)}


@both
def test_storage_has_its_own_delay_window_and_rate(fast):
    storage = Storage(0.015, 16, 1600 * MBPS)
    bench = Bench([856] * 4, [2000] * 4, 0.03, fast=fast, storage=storage, transport=Transport(window_bytes=1e5))
    network = bench.network
    bench.warm((0, network.storage), (network.storage, 1), (network.storage, 2))
    network.to_storage(0, 1e8, bench.deliver, "up")
    network.from_storage(1, 2e8, bench.deliver, "down 1")
    network.from_storage(2, 2e8, bench.deliver, "down 2")
    bench.clock.run()
    windows = 16 * 1e5 / 0.03
    assert bench.arrived["up"] == pytest.approx(1e8 / windows + 0.015, rel=1e-9)
    # The two downloads share the store's 1600 Mbps when windows allow more.
    assert windows < 100e6
    assert bench.arrived["down 1"] == bench.arrived["down 2"] == pytest.approx(2e8 / windows + 0.015, rel=1e-9)


@both
def test_shared_store_rate(fast):
    bench = Bench([856] * 4, [2000] * 4, fast=fast, storage=Storage(0.0, 16, 1600 * MBPS))
    for peer in range(4):
        bench.network.from_storage(peer, 50e6, lambda name: bench.arrived.setdefault(name, bench.clock.now), peer)
    bench.clock.run()
    assert bench.arrived == {peer: pytest.approx(1.0, rel=1e-9) for peer in range(4)}


@both
def test_a_message_to_oneself_takes_no_time_and_no_link(fast):
    bench = Bench([1, 1], [1, 1], 0.03, fast=fast)
    bench.warm()
    bench.send("self", 0, 0, 1e9)
    bench.clock.run_to(START)
    assert bench.arrived == {"self": 0.0}
    assert bench.network.bytes_delivered == 1e9


@both
@pytest.mark.parametrize(("tls", "handshakes"), [(True, 2), (False, 1)])
def test_a_cold_connection_pays_handshake_and_slow_start(fast, tls, handshakes):
    rtt_s = 0.068
    bench = Bench([856] * 2, [1322] * 2, 0.034, fast=fast, transport=Transport(window_bytes=inf, tls=tls))
    bench.clock.run_to(START)
    bench.send("cold", 0, 1, 16777216.0)
    bench.send("warm", 0, 1, 16777216.0, at=10.0)
    bench.clock.run()
    assert bench.arrived["cold"] == pytest.approx(handshakes * rtt_s + 0.6996442616822431 + 0.034, rel=1e-9)
    assert bench.arrived["warm"] == pytest.approx(10.0 + 0.15679641121495327 + 0.034, rel=1e-9)


@both
def test_messages_wait_for_an_opening_connection(fast):
    bench = Bench([856] * 2, [1322] * 2, 0.034, fast=fast)
    bench.clock.run_to(START)
    bench.send("first", 0, 1, 100.0)
    bench.send("second", 0, 1, 100.0, at=0.05)
    bench.clock.run_to(START + 0.1)
    assert bench.network.bytes_in_flight == 200.0
    bench.clock.run()
    paced_s = 100.0 / (tcp.INITIAL_WINDOW_BYTES / 0.068)
    assert bench.arrived["first"] == bench.arrived["second"] == pytest.approx(2.5 * 0.068 + paced_s, rel=1e-9)


@both
def test_without_warm_connections_every_message_is_cold(fast):
    bench = Bench([856] * 2, [1322] * 2, 0.034, fast=fast, transport=Transport(window_bytes=inf, keep_warm=False))
    bench.warm((0, 1))
    for i in range(3):
        bench.send(i, 0, 1, 1048576.0, at=float(i))
    bench.clock.run()
    for i in range(3):
        assert bench.arrived[i] == pytest.approx(i + 2 * 0.068 + 0.4180039364640884 + 0.034, rel=1e-9)


@both
def test_slow_start_after_idle(fast):
    transport = Transport(window_bytes=inf, slow_start_after_idle=True)
    bench = Bench([856] * 2, [1322] * 2, 0.034, fast=fast, transport=transport)
    bench.warm((0, 1))
    warm_s, cold_s = 1048576.0 / (856 * MBPS), 0.4180039364640884
    bench.send("idle", 0, 1, 1048576.0)
    bench.send("busy", 0, 1, 1048576.0, at=0.5)
    bench.send("still", 0, 1, 1048576.0, at=0.5 + warm_s + 0.267)
    bench.send("again", 0, 1, 1048576.0, at=2.0)
    bench.clock.run()
    assert bench.arrived["idle"] == pytest.approx(cold_s + 0.034, rel=1e-9)
    assert bench.arrived["busy"] == pytest.approx(0.5 + warm_s + 0.034, rel=1e-9)
    assert bench.arrived["still"] == pytest.approx(0.5 + 2 * warm_s + 0.267 + 0.034, rel=1e-9)
    assert bench.arrived["again"] == pytest.approx(2.0 + cold_s + 0.034, rel=1e-9)


@both
def test_slow_start_goes_on_when_another_message_comes(fast):
    delays = [[0, 0.034, 0], [0.034, 0, 0], [0, 0, 0]]
    bench = Bench([856] * 3, [1322] * 3, delays, fast=fast, transport=Transport(window_bytes=inf, tls=False))
    bench.clock.run_to(START)
    bench.send("cold", 0, 1, 16777216.0)
    # Too slow to disturb the other one: 8 Mbps are left to the windows.
    bench.send("other", 0, 2, 1.0, at=0.3)
    bench.clock.run()
    assert bench.arrived["cold"] == pytest.approx(0.068 + 0.6996442616822431 + 0.034, rel=1e-6)


def test_loss_lowers_the_ceiling():
    transport = Transport(window_bytes=inf, loss=1e-5)
    bench = Bench([856] * 2, [1322] * 2, 0.034, transport=transport)
    bench.warm((0, 1))
    bench.send("m", 0, 1, 1e8)
    bench.clock.run()
    ceiling = tcp.loss_ceiling("cubic", 1e-5, 0.068)
    assert bench.arrived["m"] == pytest.approx(1e8 / ceiling + 0.034, rel=1e-9)


def test_jitter_delays_messages_but_keeps_their_order():
    clock = Clock()
    links = PeerLinks(np.full(2, 1e8), np.full(2, 1e8), np.arange(2), np.full((2, 2), 0.02))
    network = Network(clock, links, Streams(3), transport=OPEN, jitter=Jitter(0.005, 0.05))
    arrived = []
    for i in range(2000):
        clock.call_at(i * 0.004, lambda i: network.send(0, 1, 1000.0, lambda i: arrived.append((clock.now, i)), i), i)
    clock.run()
    assert [i for _, i in arrived] == list(range(2000))
    delays = np.array([at - i * 0.004 - 1e-5 for at, i in arrived][100:])
    assert delays.min() >= 0.01 - 1e-9
    assert 0.02 < np.median(delays) < 0.035
    assert delays.max() > 0.1


@pytest.mark.parametrize("size", [-1.0, float("nan")])
def test_a_size_must_be_a_number_of_bytes(size):
    bench = Bench([1, 1], [1, 1])
    with pytest.raises(ValueError, match="cannot send"):
        bench.network.send(0, 1, size, print)


@pytest.mark.parametrize(("source", "target"), [(0, 5), (9, 0), (0, -1)])
def test_unknown_peers_are_refused(source, target):
    bench = Bench([1, 1], [1, 1])
    with pytest.raises(IndexError):
        bench.network.send(source, target, 1.0, print)


def test_links_are_checked():
    good = {"uplink": np.ones(2), "downlink": np.ones(2), "site": np.zeros(2, int), "one_way_s": np.zeros((1, 1))}
    PeerLinks(**good)
    for change in (
        {"uplink": np.ones(3)},
        {"downlink": np.zeros(2)},
        {"site": np.ones(2, int)},
        {"one_way_s": np.zeros((1, 2))},
        {"one_way_s": np.full((1, 1), -1.0)},
    ):
        with pytest.raises(ValueError, match=r"peers|delays|site|rates"):
            PeerLinks(**(good | change))
