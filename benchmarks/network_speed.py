"""Speed of the simulator's network.

    python -m benchmarks.network_speed

Prints completed flows per second on SimGrid's cases beside SimGrid's own figures and those of two prototypes, and what
one message costs on idle links (the fast path), through the solver, and while all links are busy. The figures of
`speed.csv` are from another machine under load, so the ratios are rough; the bare event loop, printed first, tells how
fast this one is at the moment.
"""

import csv
import time
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from heapq import heappop, heappush
from itertools import count
from math import inf
from pathlib import Path

import numpy as np

from orionbed.bandwidth import PRESETS, varying_links
from orionbed.links import Jitter
from orionbed.streams import Streams
from sim.clock import CAPACITY, Clock
from sim.fairshare import FairShare
from sim.filling import Flow, Resource
from sim.links import PeerLinks, Transport
from sim.network import Network

DATA = Path(__file__).parent.parent / "tests" / "data" / "network" / "simgrid"
NUM_PEERS = 48
MESSAGE_BYTES = 2.3e6


def rows_by_case(name: str) -> dict[str, list[dict[str, str]]]:
    """Read one of SimGrid's tables."""
    grouped = defaultdict(list)
    with (DATA / name).open() as file:
        for row in csv.DictReader(file):
            grouped[row["case"]].append(row)
    return grouped


def best(run: Callable[[], float], times: int = 5) -> float:
    """Return the shortest of several durations in seconds."""
    return min(run() for _ in range(times))


def bare_loop(number: int = 500_000, waiting: int = 200) -> float:
    """Return the events per second of a bare heap of callbacks."""
    heap: list[tuple[float, int, int, Callable[[float], None], float]] = []
    next_number = count().__next__

    def again(at: float) -> None:
        heappush(heap, (at + 1.0, 1, next_number(), again, at + 1.0))

    for i in range(waiting):
        again(i / waiting)
    started = time.perf_counter()
    for _ in range(number):
        _, _, _, fn, arg = heappop(heap)
        fn(arg)
    return number / (time.perf_counter() - started)


def clock_calls(number: int = 500_000, waiting: int = 200) -> float:
    """Return the calls per second of the clock, each of which schedules the next."""
    clock = Clock()

    def again(arg: float) -> None:
        clock.call_in(1.0, again, arg)

    for i in range(waiting):
        clock.call_at(i / waiting, again, i)
    started = time.perf_counter()
    clock.run_to(number / waiting)
    return clock.events / (time.perf_counter() - started)


def simgrid_case(
    resource_rows: list[dict[str, str]], flow_rows: list[dict[str, str]], event_rows: list[dict[str, str]]
) -> float:
    """Return the seconds that one case takes."""
    clock = Clock()
    fair_share = FairShare(clock)
    resources = {
        row["resource"]: Resource(row["resource"], i, float(row["capacity_Bps"])) for i, row in enumerate(resource_rows)
    }
    drained: list[Flow] = []
    for row in flow_rows:
        route = tuple(resources[r] for r in row["route"].split(";"))
        ceiling = float(row["cap_Bps"] or inf)
        flow = Flow(route, float(row["size_bytes"]), drained.append, weight=float(row["weight"]), ceiling=ceiling)
        clock.call_at(float(row["start_s"]) + float(row["latency_s"]), fair_share.start, flow)
    for row in event_rows:
        change = (resources[row["resource"]], float(row["capacity_Bps"]))
        clock.call_at(float(row["t_s"]), lambda change: fair_share.set_capacity(*change), change, CAPACITY)
    started = time.perf_counter()
    clock.run()
    assert len(drained) == len(flow_rows)
    return time.perf_counter() - started


def messages(
    *, num_peers: int = NUM_PEERS, fast: bool = True, busy: bool = False, ring: bool = False, number: int = 100_000
) -> float:
    """Return microseconds per message, sending and delivering together, less the caller's own event.

    Idle links: they are in use 2 % of the time, and two messages meet now and then. Busy links: every peer always has
    four messages under way. Each peer sends to its eight neighbours, over connections that are warm; in a ring to the
    next one only, so that no two messages ever meet.
    """
    clock = Clock()
    streams = Streams(0)
    up, down = np.full(num_peers, 107e6), np.full(num_peers, 165e6)
    delays = np.where(np.eye(5, dtype=bool), 0.00025, 0.02)
    cloud = PRESETS["cloud"]
    assert cloud is not None
    links = PeerLinks(up, down, np.arange(num_peers) % 5, delays, varying_links(cloud, up, down, streams))
    network = Network(clock, links, streams, transport=Transport(window_bytes=inf), jitter=Jitter(), fast=fast)
    rng = np.random.default_rng(0)
    per_peer = 4 if busy else 1
    spare = 2 * number + 100 * num_peers
    gaps = iter(rng.exponential(0.0 if busy else 1.0, spare).tolist())
    hops = iter(rng.integers(1, 2 if ring else 9, spare).tolist())
    num_sent = 0

    def send(peer: int) -> None:
        nonlocal num_sent
        num_sent += 1
        network.send(peer, (peer + next(hops)) % num_peers, MESSAGE_BYTES, arrived, peer)

    def arrived(peer: int) -> None:
        clock.call_in(next(gaps), send, peer)

    for peer in range(num_peers):
        for _ in range(per_peer):
            clock.call_in(next(gaps), send, peer)
    while num_sent < 40 * num_peers:
        clock.step()
    warmed = num_sent
    started = time.perf_counter()
    while num_sent - warmed < number:
        clock.run_to(clock.now + 0.2)
    elapsed_s = time.perf_counter() - started
    return 1e6 * (elapsed_s / (num_sent - warmed) - 1.0 / clock_calls(200_000))


def main() -> None:
    """Print the tables."""
    bare, calls = max(bare_loop() for _ in range(3)), max(clock_calls() for _ in range(3))
    print(f"bare heap loop {bare:12,.0f} events/s")
    print(f"clock          {calls:12,.0f} calls/s, {calls / bare:.2f} of the bare loop\n")
    resources, flows, events = (rows_by_case(name) for name in ("resources.csv", "flows.csv", "events.csv"))
    print("case  flows   flows/s   SimGrid C++   ours/SimGrid   pure Python   with levels (prototypes)")
    for case, rows in rows_by_case("speed.csv").items():
        (row,) = rows
        ours = len(flows[case]) / best(partial(simgrid_case, resources[case], flows[case], events.get(case, [])))
        simgrid = float(row["simgrid_cpp_flows_per_s"])
        print(
            f"{case} {len(flows[case]):6} {ours:9,.0f} {simgrid:13,.0f} {ours / simgrid:14.2f}"
            f" {row['pure_python_prototype_flows_per_s']:>13} {row['pure_python_level_pruned_flows_per_s']:>13}"
        )
    print("\nmicroseconds per message (send and delivery, jitter and varying capacities included)")
    print(f"idle links, nothing meets      {best(lambda: messages(ring=True), 3):7.2f}")
    print(f"idle links, some messages meet {best(messages, 3):7.2f}")
    print(f"idle links, all by the solver  {best(lambda: messages(fast=False, number=30_000), 3):7.2f}")
    small = best(lambda: messages(busy=True, number=20_000), 2)
    large = best(lambda: messages(busy=True, number=20_000, num_peers=10 * NUM_PEERS), 2)
    print(f"all links busy, {NUM_PEERS} peers       {small:7.2f}")
    print(f"all links busy, {10 * NUM_PEERS} peers      {large:7.2f}  ({large / small:.1f} times)")


if __name__ == "__main__":
    main()
