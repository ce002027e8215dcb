"""Uplinks and downlinks in virtual time alone: sharing, windows, slow start, blocks; no sockets, no waiting."""

from itertools import pairwise
from math import inf

import pytest

from emulator.throttle.changes import BlockChange, CorruptChange, PathChange
from emulator.throttle.downlink import Downlink
from emulator.throttle.frames import CONTROL, data_header, parse
from emulator.throttle.incoming import Incoming
from emulator.throttle.mishaps import Mishaps
from emulator.throttle.outgoing import Flow, Message, equal_chunk
from emulator.throttle.paths import Path, PathPlan
from emulator.throttle.rates import Rate
from emulator.throttle.shared_clock import SharedClock
from emulator.throttle.uplink import Uplink

MBPS = 1e6 / 8.0
STEP_S = 0.0002
LEAD_S = 0.004


class Bench:
    """Peers in one process whose frames go straight from an uplink to a downlink, in steps of 0.2 ms."""

    def __init__(self, up, down, *, paths=None, path=None, sites=None, chunks=(4096, 65536)):
        self.path = path or Path(0.0)
        self.paths = paths or {}
        sites = sites or {}
        self.uplinks = [
            Uplink(r if isinstance(r, Rate) else Rate.constant(r), chunks, Mishaps(1, f"{i}/0"), sites.get(i))
            for i, r in enumerate(up)
        ]
        self.downlinks = [Downlink(r if isinstance(r, Rate) else Rate.constant(r)) for r in down]
        self.flows = {}
        self.incoming = {}
        self.departures = []
        self.done_s = {}
        self.names = {}
        self.now_s = 0.0

    def plan(self, source, target):
        return self.flow(source, target).plan

    def flow(self, source, target):
        if (source, target) not in self.flows:
            plan = PathPlan(self.paths.get((source, target), self.path))
            self.flows[source, target] = Flow(target, plan, 0.0)
            self.incoming[source, target] = Incoming(source)
        return self.flows[source, target]

    def send(self, name, source, target, num_bytes, at_s=0.0, *, control=False):
        flow = self.flow(source, target)
        number = len(self.names)
        self.names[number] = name
        flow.add(Message(number, b"", memoryview(bytes(int(num_bytes))), at_s, control=control))
        self.uplinks[source].wait(flow)

    def run_to(self, end_s):
        while self.now_s < end_s:
            self.now_s += STEP_S
            for source in range(len(self.uplinks)):
                self._depart(source)
            for target in range(len(self.downlinks)):
                self._serve(target)

    def run(self, limit_s=30.0):
        while len(self.done_s) < len(self.names) and self.now_s < limit_s:
            self.run_to(self.now_s + 0.05)
        return self.done_s

    def _depart(self, source):
        lead_s = 0.0 if self.uplinks[source].shares_link else LEAD_S
        while (departure := self.uplinks[source].depart(self.now_s + lead_s)) is not None:
            flow, chunk, _, begin_s, arrival_s, _ = departure
            self.departures.append((source, departure))
            message = chunk.message
            body = message.body[chunk.offset : chunk.offset + chunk.num_bytes]
            raw = data_header(
                b"", body, flags=CONTROL if message.control else 0, message=message.number, offset=chunk.offset,
                total=message.total, begin_s=begin_s, arrival_s=arrival_s, sent_s=message.stamp_s,
            )  # fmt: skip
            (frame,), _ = parse(memoryview(raw + bytes(body)), greeted=True)
            self.downlinks[flow.peer].wait(self.incoming[source, flow.peer].take(frame))

    def _serve(self, target):
        while (passed := self.downlinks[target].serve(self.now_s)) is not None:
            source = passed.source.source
            flow = self.flows[source, target]
            stamp_s = passed.finish_s + flow.plan.at(passed.finish_s).owd_s
            flow.credit(passed.held.message.number, passed.held.num_bytes, stamp_s)
            self.uplinks[source].wait(flow)
            for message in passed.completed:
                self.done_s[self.names[message.number]] = passed.finish_s


def test_one_flow_is_exact():
    bench = Bench([856 * MBPS, 1.0], [1.0, 1322 * MBPS], path=Path(0.03))
    bench.send("f", 0, 1, 10e6)
    assert bench.run()["f"] == pytest.approx(10e6 / (856 * MBPS) + 0.03, rel=1e-12)


def test_bytes_pass_a_slower_downlink_while_they_come_in():
    bench = Bench([1000 * MBPS, 1.0], [1.0, 100 * MBPS], path=Path(0.01))
    bench.send("f", 0, 1, 1e6)
    assert bench.run()["f"] == pytest.approx(1e6 / (100 * MBPS) + 0.01, rel=1e-9)


def test_two_flows_share_an_uplink_to_a_chunk():
    bench = Bench([80e6, 1, 1], [inf] * 3)
    bench.send("a", 0, 1, 8e6)
    bench.send("b", 0, 2, 8e6)
    bench.run()
    sent = {1: 0, 2: 0}
    for _, departure in bench.departures:
        sent[departure.flow.peer] += departure.chunk.num_bytes
        assert abs(sent[1] - sent[2]) <= departure.chunk.num_bytes
    assert bench.done_s["b"] == pytest.approx(0.2, rel=1e-9)


def test_chunks_of_unequal_size_share_equally_too():
    bench = Bench([80e6, 1, 1], [inf] * 3)
    bench.send("large chunks", 0, 1, 8e6)
    for i in range(800):
        bench.send(("small", i), 0, 2, 10_000)
    bench.run_to(0.1)
    sent = {1: 0, 2: 0}
    for _, departure in bench.departures:
        sent[departure.flow.peer] += departure.chunk.num_bytes
    assert abs(sent[1] - sent[2]) <= 2 * 65536


def test_a_flow_that_idled_saves_nothing_up():
    bench = Bench([80e6, 1, 1], [inf] * 3)
    bench.send("early", 0, 1, 8e6)
    bench.send("late", 0, 2, 2e6, at_s=0.05)
    bench.run()
    assert bench.done_s["late"] == pytest.approx(0.05 + 2 * 2e6 / 80e6, abs=0.002)


def test_a_control_message_overtakes_on_the_uplink_and_on_the_downlink():
    bench = Bench([80e6, 1], [1, 8e6], path=Path(0.01))
    bench.send("bulk", 0, 1, 8e6)
    bench.send("control", 0, 1, 100, at_s=0.1, control=True)
    bench.run()
    chunk_s = 65536 / 8e6
    assert bench.done_s["control"] <= 0.1 + 0.01 + LEAD_S + 2 * chunk_s


def test_fan_in_is_fair_however_fast_the_senders_are():
    bench = Bench([800 * MBPS, 200 * MBPS, 1], [1, 1, 500 * MBPS], path=Path(0.005, 2**20, 2**20))
    bench.send("fast", 0, 2, 15e6)
    bench.send("slow", 1, 2, 10e6)
    done_s = bench.run()
    assert done_s["fast"] == pytest.approx(0.405, rel=0.02)
    assert done_s["slow"] == pytest.approx(0.405, rel=0.02)


def test_a_window_bounds_what_is_under_way():
    window, rtt_s = 200_000, 0.04
    bench = Bench([100e6, 1], [1, inf], path=Path(rtt_s / 2, window, window))
    bench.send("f", 0, 1, 5e6)
    under_way = 0
    flow = bench.flow(0, 1)
    while not bench.done_s:
        bench.run_to(bench.now_s + STEP_S)
        under_way = max(under_way, flow.uncredited_bytes)
    assert 0.9 * window <= under_way <= window
    assert bench.done_s["f"] == pytest.approx(5e6 / (window / rtt_s), rel=0.05)


def test_slow_start_doubles_the_window_each_round_trip():
    rtt_s, first = 0.068, 14_480
    bench = Bench([107e6, 1], [1, inf], path=Path(rtt_s / 2, inf, first))
    bench.send("f", 0, 1, 16 * 1024**2)
    # The closed form of tests/data/network/tcp_cases.csv: 0.700 s to drain, a one-way delay more to arrive.
    assert bench.run()["f"] == pytest.approx(0.700 + rtt_s / 2, rel=0.06)
    warm = Bench([107e6, 1], [1, inf], path=Path(rtt_s / 2))
    warm.send("f", 0, 1, 16 * 1024**2)
    assert warm.run()["f"] == pytest.approx(0.157 + rtt_s / 2, rel=0.01)


def test_a_handshake_delays_the_first_byte():
    bench = Bench([80e6, 1], [1, inf], path=Path(0.01, handshake_s=0.04))
    bench.send("f", 0, 1, 80_000)
    assert bench.run()["f"] == pytest.approx(0.04 + 0.001 + 0.01)


def test_the_rate_of_a_connection_leaves_the_link_to_others():
    bench = Bench([100e6, 1, 1], [inf] * 3, paths={(0, 1): Path(0.0, rate=25e6), (0, 2): Path(0.0)})
    bench.send("bound", 0, 1, 5e6)
    bench.send("free", 0, 2, 15e6)
    done_s = bench.run()
    assert done_s["bound"] == pytest.approx(0.2, rel=0.01)
    assert done_s["free"] == pytest.approx(0.2, rel=0.01)


def test_a_capacity_step_counts_from_its_second():
    rate = Rate.constant(800 * MBPS)
    rate.change(0.4, factor=0.1)
    rate.change(1.4)
    bench = Bench([rate, 1], [1, inf])
    bench.send("f", 0, 1, 100e6)
    assert bench.run()["f"] == pytest.approx(1.9, rel=1e-9)


@pytest.mark.parametrize("announced", [True, False])
def test_a_block_stalls_and_loses_nothing(announced):
    bench = Bench([80e6, 1], [1, inf], path=Path(0.01))
    bench.send("f", 0, 1, 8e6)
    if not announced:
        bench.run_to(0.0505)
    bench.plan(0, 1).add(0.05, BlockChange(1, blocked=True))
    bench.plan(0, 1).add(0.25, BlockChange(1, blocked=False))
    bench.uplinks[0].changed()
    assert bench.run()["f"] == pytest.approx(0.31, abs=0.006)
    if announced:
        assert not [d for _, d in bench.departures if 0.05 < d.departure_s <= 0.25]


def test_a_path_change_adds_delay_and_takes_rate():
    bench = Bench([80e6, 1], [1, inf], path=Path(0.01))
    bench.plan(0, 1).add(0.05, PathChange(1, added_owd_s=0.02, rate_ceiling=40e6))
    bench.plan(0, 1).add(0.15, PathChange(1))
    bench.send("f", 0, 1, 12e6)
    assert bench.run()["f"] == pytest.approx(0.21, abs=0.002)
    bench.plan(0, 1).add(1.0, PathChange(1, rate_factor=0.0))
    bench.send("g", 0, 1, 1000, at_s=1.1)
    bench.run_to(1.5)
    assert "g" not in bench.done_s
    bench.plan(0, 1).add(1.6, PathChange(1))
    bench.uplinks[0].changed()
    assert bench.run()["g"] == pytest.approx(1.61, abs=0.001)


def test_an_uplink_that_stands_still_goes_on_when_its_rate_does():
    bench = Bench([Rate.constant(0.0), 1], [1, inf])
    bench.send("f", 0, 1, 1000)
    bench.run_to(0.1)
    assert bench.uplinks[0].next_start_s == inf
    bench.uplinks[0].rate = Rate([(0.0, 0.0), (0.2, 1e6)])
    bench.uplinks[0].changed()
    assert bench.run()["f"] == pytest.approx(0.201)


def test_a_shared_site_link_is_max_min_fair():
    site = SharedClock(Rate.constant(1600 * MBPS))
    up = [200 * MBPS, 856 * MBPS, 856 * MBPS, 856 * MBPS, *[1.0] * 4]
    bench = Bench(up, [2000 * MBPS] * 8, sites=dict.fromkeys(range(4), site))
    bench.send(0, 0, 4, 5e6)
    for i in (1, 2, 3):
        bench.send(i, i, 4 + i, 14e6)
    done_s = bench.run()
    site.close()
    assert done_s[0] == pytest.approx(0.2, rel=0.02)
    for i in (1, 2, 3):
        assert done_s[i] == pytest.approx(0.235, rel=0.02)


def test_jitter_and_losses_keep_the_order():
    bench = Bench([80e6, 1], [1, inf], path=Path(0.01, jitter_sd_s=0.002, loss=0.05, spike_probability=0.05))
    for i in range(400):
        bench.send(i, 0, 1, 10_000)
    done_s = bench.run()
    assert all(earlier <= later for earlier, later in pairwise(done_s[i] for i in range(400)))
    late = sum(d.arrival_s - d.departure_s > 0.15 for _, d in bench.departures)
    assert late >= 400 * 0.05 * 0.3


def test_corruption_is_drawn_as_often_as_told():
    bench = Bench([80e6, 1], [1, inf], path=Path(0.0))
    bench.plan(0, 1).add(0.0, CorruptChange(1, 0.25))
    for i in range(2000):
        bench.send(i, 0, 1, 1000)
    bench.run()
    assert sum(d.corrupt for _, d in bench.departures) == pytest.approx(500, abs=80)


def test_chunks_are_equal_and_few():
    assert equal_chunk(0, 100) == 1
    assert equal_chunk(100, 1000) == 100
    assert equal_chunk(1001, 500) == 334


def test_credits_for_what_is_not_under_way_are_refused():
    bench = Bench([80e6, 1], [1, inf])
    bench.send("f", 0, 1, 1000)
    with pytest.raises(ValueError, match="not under way"):
        bench.flow(0, 1).credit(0, 1, 0.0)
    with pytest.raises(ValueError, match="not under way"):
        bench.flow(0, 1).repeat(5, 0, 1, 0.0)


@pytest.mark.parametrize("wrong", [{"owd_s": -1.0}, {"owd_s": inf}, {"window_bytes": 0.0}, {"loss": 2.0}])
def test_paths_that_make_no_sense(wrong):
    with pytest.raises(ValueError, match="path"):
        Path(**{"owd_s": 0.0} | wrong)
