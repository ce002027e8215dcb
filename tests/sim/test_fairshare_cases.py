"""Fair sharing against cases with a known answer: closed forms, and SimGrid's results for larger ones."""

import csv
from collections import defaultdict
from fractions import Fraction
from math import inf
from pathlib import Path

import pytest

from sim.clock import CAPACITY, Clock
from sim.fairshare import FairShare
from sim.filling import Flow, Resource

DATA = Path(__file__).parent.parent / "data" / "network"
MBPS = 1e6 / 8.0


def rows_by_case(path):
    grouped = defaultdict(list)
    with path.open() as file:
        for row in csv.DictReader(file):
            grouped[row["case"]].append(row)
    return grouped


def pairs(text):
    return [item.split("=") for item in text.split(";") if item]


CLOSED_FORMS = rows_by_case(DATA / "network_cases.csv")
SIMGRID = {name: rows[0] for name, rows in rows_by_case(DATA / "simgrid" / "cases.csv").items()}
SIMGRID_FLOWS = rows_by_case(DATA / "simgrid" / "flows.csv")
SIMGRID_RESOURCES = rows_by_case(DATA / "simgrid" / "resources.csv")
SIMGRID_EVENTS = rows_by_case(DATA / "simgrid" / "events.csv")


class Bench:
    """A clock, a fair share and named resources; remembers when each flow drained."""

    def __init__(self, capacities, pruned):
        self.clock = Clock()
        self.fair_share = FairShare(self.clock, pruned=pruned)
        self.resources = {name: Resource(name, i, capacity) for i, (name, capacity) in enumerate(capacities.items())}
        self.flows = {}
        self.drained_s = {}

    def add(self, name, start_s, route, size_bytes, *, weight=1.0, ceiling=inf):
        resources = tuple(self.resources[r] for r in route)
        flow = Flow(resources, size_bytes, self._drained, name, weight=weight, ceiling=ceiling)
        self.flows[name] = flow
        self.clock.call_at(start_s, self.fair_share.start, flow)

    def change(self, time_s, resource, capacity):
        self.clock.call_at(
            time_s, lambda _: self.fair_share.set_capacity(self.resources[resource], capacity), priority=CAPACITY
        )

    def _drained(self, flow):
        self.drained_s[flow.arg] = self.clock.now


def closed_form(name, pruned):
    rows = CLOSED_FORMS[name]
    bench = Bench({r: float(c) * MBPS for r, c in pairs(rows[0]["capacities_Mbps"])}, pruned)
    for row in rows:
        bench.add(
            row["flow"],
            float(row["start_s"]),
            row["route"].split(";"),
            float(row["size_bytes"]),
            weight=float(Fraction(row["weight"])),
            ceiling=float(row["cap_Mbps"]) * MBPS if row["cap_Mbps"] else inf,
        )
    for event in filter(None, rows[0]["events"].split(";")):
        at, _, change = event.partition("s:")
        resource, _, capacity = change.partition("=")
        bench.change(float(Fraction(at)), resource, float(capacity) * MBPS)
    return bench


def test_all_cases_are_there():
    assert len(CLOSED_FORMS) == 13
    assert len(SIMGRID) == 10


@pytest.mark.parametrize("pruned", [True, False])
@pytest.mark.parametrize("name", CLOSED_FORMS)
def test_closed_forms_drain_on_time(name, pruned):
    bench = closed_form(name, pruned)
    bench.clock.run()
    for row in CLOSED_FORMS[name]:
        drained_s = bench.drained_s[row["flow"]]
        assert drained_s == pytest.approx(float(row["drained_s"]), rel=1e-9)
        assert drained_s + float(row["owd_s"]) == pytest.approx(float(row["delivered_s"]), rel=1e-9)


@pytest.mark.parametrize("name", CLOSED_FORMS)
def test_closed_forms_have_the_right_rates(name):
    wanted = []
    for row in CLOSED_FORMS[name]:
        for interval, rate in pairs(row["rate_Mbps_by_interval"]):
            begin_s, end_s = (float(t) for t in interval.strip("[]").split(","))
            wanted += [(begin_s + share * (end_s - begin_s), row["flow"], float(rate)) for share in (0.01, 0.5, 0.99)]
    bench = closed_form(name, pruned=True)
    for time_s, flow, rate in sorted(wanted):
        bench.clock.run_to(time_s)
        # The table has nine digits.
        assert bench.flows[flow].rate / MBPS == pytest.approx(rate, rel=2e-9)


def simgrid(name, pruned):
    bench = Bench({r["resource"]: float(r["capacity_Bps"]) for r in SIMGRID_RESOURCES[name]}, pruned)
    for row in SIMGRID_FLOWS[name]:
        bench.add(
            row["flow"],
            float(row["start_s"]) + float(row["latency_s"]),
            row["route"].split(";"),
            float(row["size_bytes"]) / float(SIMGRID[name]["rate_factor"]),
            weight=float(row["weight"]),
            ceiling=float(row["cap_Bps"] or inf),
        )
    for row in SIMGRID_EVENTS[name]:
        bench.change(float(row["t_s"]), row["resource"], float(row["capacity_Bps"]))
    bench.clock.run()
    return bench.drained_s


@pytest.mark.parametrize("name", SIMGRID)
def test_simgrid_agrees(name):
    drained_s = simgrid(name, pruned=True)
    for row in SIMGRID_FLOWS[name]:
        finish_s = float(row["finish_s"])
        assert abs(drained_s[row["flow"]] - finish_s) <= 1e-6 * (finish_s - float(row["start_s"]))


@pytest.mark.parametrize("name", SIMGRID)
def test_pruning_changes_nothing(name):
    assert simgrid(name, pruned=True) == simgrid(name, pruned=False)
