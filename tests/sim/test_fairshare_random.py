"""Fair sharing of random flows against an exact oracle in rationals, and against its own definition."""

import heapq
import random
from fractions import Fraction
from math import inf

import pytest

from sim.clock import CAPACITY, Clock
from sim.fairshare import FairShare
from sim.filling import Flow, Resource

NUM_CASES = 1000


def exact_rates(flows, capacity):
    """Progressive filling: {flow: (route, weight, ceiling or None)}, {resource: capacity} -> {flow: rate}."""
    rates = {}
    rest = dict(capacity)
    rising = dict(flows)
    while rising:
        weights = dict.fromkeys(rest, Fraction(0))
        for route, weight, _ in rising.values():
            for r in route:
                weights[r] += weight
        full = {r: rest[r] / weights[r] for r in rest if weights[r]}
        caps = {f: ceiling / weight for f, (_, weight, ceiling) in rising.items() if ceiling is not None}
        level = min([*full.values(), *caps.values()])
        stopped = [
            f for f, (route, _, _) in rising.items() if caps.get(f) == level or any(full[r] == level for r in route)
        ]
        for f in stopped:
            route, weight, _ = rising.pop(f)
            rates[f] = weight * level
            for r in route:
                rest[r] -= rates[f]
    return rates


def exact_finish(case):
    """When each flow drains, exactly. Of two changes of one resource at one instant the later in the list counts."""
    capacity = dict(case["capacities"])
    changes = sorted(case["changes"], key=lambda change: change[0])
    starts = [(start, name) for name, (start, *_) in case["flows"].items()]
    heapq.heapify(starts)
    now = Fraction(0)
    left = {}
    finish = {}
    while starts or left or changes:
        rates = exact_rates({f: case["flows"][f][1:4] for f in left}, capacity)
        times = [now + left[f] / rate for f, rate in rates.items() if rate > 0]
        times += [starts[0][0]] if starts else []
        times += [changes[0][0]] if changes else []
        if not times:
            break
        later = min(times)
        for f in list(left):
            left[f] -= rates[f] * (later - now)
            if left[f] <= 0:
                finish[f] = later
                del left[f]
        now = later
        while changes and changes[0][0] <= now:
            _, r, c = changes.pop(0)
            capacity[r] = c
        while starts and starts[0][0] <= now:
            _, f = heapq.heappop(starts)
            left[f] = case["flows"][f][4]
        if not starts and not left:
            break
    return finish


def random_case(seed):
    """A few flows over a few resources, from so few values that ties are common."""
    rng = random.Random(seed)
    resources = [f"r{i}" for i in range(rng.randint(1, 6))]
    flows = {}
    for i in range(rng.randint(1, 9)):
        route = tuple(rng.sample(resources, rng.randint(1, min(3, len(resources)))))
        ceiling = rng.choice([None, None, Fraction(rng.randint(1, 12)), Fraction(rng.randint(1, 30), 7)])
        weight = rng.choice([Fraction(1), Fraction(1), Fraction(2), Fraction(3), Fraction(rng.randint(1, 9), 5)])
        start = rng.choice([Fraction(0), Fraction(rng.randint(0, 4)), Fraction(rng.randint(0, 30), 9)])
        flows[f"f{i}"] = (start, route, weight, ceiling, Fraction(rng.randint(1, 40)))
    changes = [
        (Fraction(rng.randint(0, 24), 4), rng.choice(resources), Fraction(rng.choice([0, 1, 3, 8, 20])))
        for _ in range(rng.choice([0, 0, 1, 3, 6]))
    ]
    # Nothing stays at zero.
    changes += [(Fraction(40), r, Fraction(rng.randint(1, 9))) for r in resources]
    return {
        "capacities": {r: Fraction(rng.choice([4, 6, 10, 10, rng.randint(1, 20)])) for r in resources},
        "flows": flows,
        "changes": changes,
    }


def simulated_finish(case, *, pruned=True, watch=None):
    clock = Clock()
    fair_share = FairShare(clock, pruned=pruned)
    resources = {name: Resource(name, i, float(c)) for i, (name, c) in enumerate(case["capacities"].items())}
    finish = {}

    def drained(flow):
        finish[flow.arg] = clock.now

    for name, (start, route, weight, ceiling, size) in case["flows"].items():
        flow = Flow(
            tuple(resources[r] for r in route),
            float(size),
            drained,
            name,
            weight=float(weight),
            ceiling=inf if ceiling is None else float(ceiling),
        )
        clock.call_at(float(start), fair_share.start, flow)
    for time, r, capacity in case["changes"]:
        change = (resources[r], float(capacity))
        clock.call_at(float(time), lambda change: fair_share.set_capacity(*change), change, CAPACITY)
    if watch is None:
        clock.run()
    else:
        while clock.heap:
            at = clock.peek()
            while clock.peek() == at:
                clock.step()
            watch(fair_share)
    return finish


def test_a_thousand_random_cases_agree_with_exact_arithmetic():
    for seed in range(NUM_CASES):
        case = random_case(seed)
        finish = simulated_finish(case)
        exact = exact_finish(case)
        assert finish.keys() == exact.keys() == case["flows"].keys()
        for name, at in exact.items():
            assert finish[name] == pytest.approx(float(at), rel=1e-9), (seed, name)


def test_pruning_changes_nothing():
    for seed in range(NUM_CASES):
        case = random_case(seed)
        assert simulated_finish(case, pruned=True) == simulated_finish(case, pruned=False), seed


def assert_max_min(fair_share):
    """No capacity or ceiling is exceeded; each flow is at its ceiling or has a full resource where none is above it."""
    resources = {r for flow in fair_share.flows for r in flow.route}
    load = {r: sum(flow.rate for flow in r.flows) for r in resources}
    for r in resources:
        assert load[r] <= r.capacity * (1 + 1e-12)
    for flow in fair_share.flows:
        assert flow.rate <= flow.ceiling
        level = flow.rate / flow.weight
        bottlenecks = [
            r
            for r in flow.route
            if load[r] >= r.capacity * (1 - 1e-12) and all(f.rate / f.weight <= level * (1 + 1e-12) for f in r.flows)
        ]
        assert flow.rate == flow.ceiling or bottlenecks


def test_rates_are_max_min_fair_at_every_instant():
    for seed in range(NUM_CASES, NUM_CASES + 300):
        simulated_finish(random_case(seed), watch=assert_max_min)
