"""Whom faults hit and when, and what they make of links together."""

import math
import pickle
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orionbed.fault_effects import LinkState, change_times, combined, compute_factor, link_state
from orionbed.faults import Parameters, ResolvedFault, described, resolve, selected
from orionbed.plan import make_plan
from orionbed.scenario import ScenarioError, apply, load

PLAN = make_plan(apply(load("minimal"), {"peers.placement": "grouped"}))
BY_NAME = {peer.name: peer.index for peer in PLAN.peers}
INF = math.inf


def plan_with(faults, **changes):
    return make_plan(apply(load("minimal"), {"peers.placement": "grouped", "faults": faults, **changes}))


def resolved(*faults, seed=None, end_s=None, **block):
    return resolve(plan_with({"list": list(faults), **block}), seed, end_s=end_s)


def crash(target="*", **more):
    return {"id": "k", "at": 10.0, "kind": "crash", "target": target, **more}


def indices(*names):
    return tuple(BY_NAME[name] for name in names)


@pytest.mark.parametrize(
    ("selector", "names"),
    [
        ("*", tuple(BY_NAME)),
        ("peer:s03r1", ("s03r1",)),
        ("stage:2", ("s02r0", "s02r1")),
        ("replica:1", ("s00r1", "s01r1", "s02r1", "s03r1")),
        ("site:virginia", tuple(peer.name for peer in PLAN.peers if peer.site == "virginia")),
    ],
)
def test_selectors(selector, names):
    assert selected(selector, PLAN.peers) == indices(*names)
    [fault] = resolved(crash(selector))
    assert fault.peers == indices(*names)


@pytest.mark.parametrize(
    ("pick", "of", "number"),
    [("one", "*", 1), (3, "*", 3), ("20%", "*", 2), ("1 %", "*", 1), ("50%", "stage:0", 1), ("all", "replica:0", 4)],
)
def test_picks(pick, of, number):
    [fault] = resolved(crash({"pick": pick, "of": of}))
    assert len(set(fault.peers)) == len(fault.peers) == number
    assert set(fault.peers) <= set(selected(of, PLAN.peers))
    assert list(fault.peers) == sorted(fault.peers)


def test_every_peer_is_picked_sometimes():
    picked = {resolved(crash({"pick": "one", "of": "*"}), seed=seed)[0].peers[0] for seed in range(60)}
    assert picked == set(range(8))


CHURN = {"id": "u", "kind": "churn", "from": "10 min", "to": "50 h", "rate_per_peer_hour": 1.0}
RANDOM = [
    crash({"pick": 2, "of": "*"}, restart={"after": {"dist": "exponential", "mean": 60.0}}),
    {**CHURN, "restart": {"after": {"dist": "lognormal", "median": 600.0, "sigma": 1.0}}, "max_down": 2},
]


def test_the_same_seed_gives_the_same_faults():
    first, again, other = resolved(*RANDOM, seed=3), resolved(*RANDOM, seed=3), resolved(*RANDOM, seed=4)
    assert first == again
    assert first != other
    assert pickle.loads(pickle.dumps(first)) == first
    assert len({hash(fault) for fault in first}) == len(first)


def test_the_faults_own_seed_comes_before_that_of_the_run():
    assert resolved(*RANDOM, seed=3) == resolve(plan_with(RANDOM, **{"run.seed": 3}))
    own = {"list": RANDOM, "seed": 5}
    assert resolve(plan_with(own), 1) == resolve(plan_with(own), 2) == resolved(*RANDOM, seed=5)


def test_a_fault_moves_nothing_in_the_others():
    assert resolved(*RANDOM)[1:] == resolved(RANDOM[1])
    more = {"id": "another", "at": 1.0, "kind": "pause", "target": {"pick": 3, "of": "*"}}
    assert resolved(more, *RANDOM)[1:] == resolved(*RANDOM)


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (crash(), (10.0, INF, {"state": "lost"})),
        (crash(restart={"after": 45.0, "state": "disk"}), (10.0, 55.0, {"state": "disk"})),
        ({"id": "p", "at": 5.0, "for": 20.0, "kind": "pause", "target": "*"}, (5.0, 25.0, {})),
        ({"id": "p", "at": 5.0, "kind": "pause", "target": "*"}, (5.0, INF, {})),
        (
            {"id": "s", "at": 5.0, "for": 1.0, "kind": "slow", "target": "*", "compute_factor": 3.0},
            (5.0, 6.0, {"compute_factor": 3.0}),
        ),
        (
            {"id": "t", "at": 5.0, "for": 1.0, "kind": "clock", "target": "*", "offset": "-2 s", "drift_ppm": 50.0},
            (5.0, 6.0, {"offset_s": -2.0, "drift_ppm": 50.0}),
        ),
    ],
)
def test_faults_of_peers(fault, expected):
    [one] = resolved(fault)
    assert (one.id, one.kind) == (fault["id"], fault["kind"])
    assert (one.start_s, one.end_s, dict(one.parameters)) == expected
    assert one.peers == tuple(range(8))
    assert one.pairs == ()
    assert one.hits(3, one.start_s)
    assert not one.hits(3, one.start_s - 1e-9)
    assert not one.hits(3, one.end_s)
    assert not one.hits(8, one.start_s)


@pytest.mark.parametrize(
    ("fault", "parameters"),
    [
        ({"kind": "link", "capacity": "0.1x", "owd": "+20 ms"}, {"capacity_factor": 0.1, "extra_owd_s": 0.02}),
        ({"kind": "link", "capacity": "5 Mbps", "owd": "80 ms"}, {"capacity_bps": 5e6, "owd_s": 0.08}),
        ({"kind": "link", "jitter_sd": "2 ms", "loss": 0.01}, {"jitter_sd_s": 0.002, "loss": 0.01}),
        ({"kind": "corrupt", "per_chunk": 0.5}, {"per_chunk": 0.5}),
        ({"kind": "flap", "period": "2 s", "duty": 0.5}, {"period_s": 2.0, "duty": 0.5}),
    ],
)
def test_faults_of_links(fault, parameters):
    [one] = resolved({"id": "l", "at": 5.0, "for": 4.0, "from": "stage:0", "to": "replica:0", **fault})
    assert dict(one.parameters) == parameters
    assert (one.start_s, one.end_s, one.peers) == (5.0, 9.0, ())
    names = [(PLAN.peers[a].name, PLAN.peers[b].name) for a, b in one.pairs]
    assert names == [
        ("s00r0", "s01r0"), ("s00r0", "s02r0"), ("s00r0", "s03r0"),
        ("s00r1", "s00r0"), ("s00r1", "s01r0"), ("s00r1", "s02r0"), ("s00r1", "s03r0"),
    ]  # fmt: skip


@pytest.mark.parametrize("direction", ["to", "from", "both"])
@pytest.mark.parametrize("mode", ["blackhole", "reset"])
def test_partitions(direction, mode):
    groups = [["peer:s00r0"], ["stage:1", "peer:s00r0"], ["*"]]
    [one] = resolved(
        {"id": "n", "at": 5.0, "for": 1.0, "kind": "partition", "groups": groups, "direction": direction, "mode": mode}
    )
    group = dict.fromkeys(range(8), 2) | dict.fromkeys(indices("s01r0", "s01r1"), 1) | {BY_NAME["s00r0"]: 0}
    for a in range(8):
        for b in range(8):
            cut = (direction != "from" and group[a] < group[b]) or (direction != "to" and group[a] > group[b])
            assert link_state([one], a, b, 5.5).blocked == (mode if cut else None)
            assert link_state([one], a, b, 6.0).blocked is None


def test_churn_keeps_to_its_time_its_rate_and_its_limit():
    faults = resolved({**CHURN, "restart": {"after": 360.0, "state": "disk"}})
    assert [fault.id for fault in faults] == [f"u#{number}" for number in range(1, len(faults) + 1)]
    assert all(fault.kind == "crash" and len(fault.peers) == 1 for fault in faults)
    starts = [fault.start_s for fault in faults]
    assert starts == sorted(starts)
    assert starts[0] >= 600.0
    assert starts[-1] < 50 * 3600.0
    # 8 peers crash once per hour that they are up, and are then away for a tenth of one.
    expected = 8 * (50 - 1 / 6) / 1.1
    assert len(faults) == pytest.approx(expected, abs=4 * math.sqrt(expected))
    for peer in range(8):
        mine = [fault for fault in faults if fault.peers == (peer,)]
        assert all(one.end_s < other.start_s for one, other in pairwise(mine))
        assert all(fault.end_s == fault.start_s + 360.0 and fault.parameters["state"] == "disk" for fault in mine)


@pytest.mark.parametrize("limit", [1, 2, 8])
def test_no_more_are_down_than_allowed(limit):
    churn = {**CHURN, "rate_per_peer_hour": 20.0, "to": "10 h", "max_down": limit, "restart": {"after": 900.0}}
    faults = resolved(churn)
    down = [sum(other.start_s <= fault.start_s < other.end_s for other in faults) for fault in faults]
    assert max(down) == limit


def test_churn_without_restart_takes_each_peer_once():
    faults = resolved({**CHURN, "rate_per_peer_hour": 20.0})
    assert sorted(fault.peers[0] for fault in faults) == list(range(8))
    assert len(resolved({**CHURN, "rate_per_peer_hour": 20.0, "max_down": 3})) == 3


def test_healing_cuts_what_is_left():
    long = {"id": "p", "at": 5.0, "kind": "pause", "target": "*"}
    short = {"id": "q", "at": 5.0, "for": 1.0, "kind": "pause", "target": "*"}
    late = {"id": "r", "at": 3600.0 + 3541.0, "kind": "pause", "target": "*"}
    faults = resolved(long, short, late, CHURN, heal_at="end-60s")
    assert [fault.end_s for fault in faults[:3]] == [7140.0, 6.0, 7141.0]
    assert faults[2].peers == ()
    assert all(fault.start_s < 7140.0 and fault.end_s == 7140.0 for fault in faults[3:])
    assert resolved(long, heal_at="end-60s", end_s=100.0)[0].end_s == 40.0
    assert resolved(long, heal_at="1 min", end_s=100.0)[0].end_s == 60.0
    assert resolved(long, heal_at="end-60s", end_s=30.0)[0].peers == ()


def test_healing_before_an_end_that_nobody_knows():
    plan = plan_with({"list": [crash()], "heal_at": "end-60s"}, run={"tokens": 1e6})
    with pytest.raises(ScenarioError, match=r"scenario minimal: faults\.heal_at: counts from the end of the run"):
        resolve(plan)
    assert resolve(plan, end_s=100.0)[0].end_s == 40.0


def test_rows_of_the_report():
    plan = plan_with(
        [
            crash("stage:1", restart={"after": 5.0}),
            {
                "id": "l",
                "at": 5.0,
                "kind": "link",
                "from": "peer:s00r0",
                "to": "*",
                "capacity": "0.1x",
                "owd": "+20 ms",
            },
            {"id": "c", "at": 5.0, "kind": "corrupt", "from": "peer:s00r0", "to": "stage:1", "per_chunk": 1e-4},
        ]
    )
    rows = [described(fault, plan) for fault in resolve(plan)]
    assert rows[0] == {
        "id": "k", "kind": "crash", "start_s": 10.0, "end_s": 15.0, "who": ["s01r0", "s01r1"], "what": "state lost",
        "hit": None, "destroyed_bytes": None,
    }  # fmt: skip
    assert rows[1]["end_s"] is None
    assert rows[1]["who"] == ["s00r0 -> all others"]
    assert rows[1]["what"] == "capacity 0.1x, extra owd 20 ms"
    assert rows[2]["who"] == ["s00r0 -> s01r0, s01r1"]


def test_parameters_are_a_frozen_mapping():
    parameters = Parameters(a=1.0, b="x")
    assert dict(parameters) == {"a": 1.0, "b": "x"}
    assert parameters == Parameters(b="x", a=1.0)
    assert hash(parameters) == hash(Parameters(b="x", a=1.0))
    assert parameters.number("a") == 1.0
    assert parameters.number("c", 2.0) == 2.0
    with pytest.raises(KeyError):
        parameters["c"]


# ------------------------------------------------------------------ together


def link(start_s=0.0, end_s=10.0, **values):
    return ResolvedFault("l", "link", start_s, end_s, pairs=((0, 1),), parameters=Parameters(**values))


def test_overlapping_faults_combine():
    faults = [
        link(capacity_factor=0.5, extra_owd_s=0.01, jitter_sd_s=0.003, loss=0.1),
        link(2.0, 6.0, capacity_factor=0.2, capacity_bps=5e6, extra_owd_s=0.02, jitter_sd_s=0.004, loss=0.5, owd_s=0.1),
        link(4.0, 8.0, capacity_bps=3e6, owd_s=0.05),
    ]
    assert link_state(faults, 0, 1, 1.0) == LinkState(0.5, None, 0.01, 0.003, 0.1)
    state = link_state(faults, 0, 1, 5.0)
    assert state.capacity_factor == pytest.approx(0.1)
    assert state.capacity_bps == 3e6
    assert state.extra_owd_s == pytest.approx(0.03)
    assert state.jitter_sd_s == pytest.approx(0.005)
    assert state.loss == pytest.approx(0.55)
    assert state.capacity(1e9) == pytest.approx(3e5)
    assert state.delay(0.5) == pytest.approx(0.13)
    assert link_state(faults, 1, 0, 5.0) == LinkState()
    assert LinkState().capacity(7.0) == 7.0
    assert LinkState().delay(7.0) == 7.0


def test_slow_peers():
    one = ResolvedFault("s", "slow", 0.0, 4.0, peers=(1,), parameters=Parameters(compute_factor=3.0))
    other = ResolvedFault("t", "slow", 2.0, INF, peers=(1, 2), parameters=Parameters(compute_factor=2.0))
    assert [compute_factor([one, other], 1, t) for t in (1.0, 3.0, 5.0)] == [3.0, 6.0, 2.0]
    assert [compute_factor([one, other], 2, t) for t in (1.0, 3.0, 5.0)] == [1.0, 2.0, 2.0]
    assert change_times([one, other]) == [0.0, 2.0, 4.0]


chances = st.floats(0.0, 1.0)
small = st.floats(0.0, 1e3)
states = st.builds(
    LinkState,
    capacity_factor=st.floats(1e-3, 1e3),
    capacity_bps=st.none() | st.floats(1.0, 1e12),
    extra_owd_s=small,
    jitter_sd_s=small,
    loss=chances,
    blocked=st.sampled_from([None, "blackhole", "reset"]),
    corrupt=chances,
    owd_s=st.none() | small,
)


def close(one, other):
    return all(
        a == b if a is None or isinstance(a, str) or b is None else a == pytest.approx(b, rel=1e-9, abs=1e-12)
        for a, b in zip(one, other, strict=True)
    )


@given(states, states, states)
def test_the_order_of_faults_is_no_matter(a, b, c):
    assert combined(a, b) == combined(b, a)
    assert close(combined(combined(a, b), c), combined(a, combined(b, c)))
    assert close(combined(a, LinkState()), a)


@given(states, states)
def test_another_fault_never_helps(a, b):
    both = combined(a, b)
    assert both.extra_owd_s >= max(a.extra_owd_s, b.extra_owd_s)
    assert both.jitter_sd_s >= max(a.jitter_sd_s, b.jitter_sd_s) * (1 - 1e-12)
    assert max(a.loss, b.loss) - 1e-12 <= both.loss <= 1.0 + 1e-12
    assert max(a.corrupt, b.corrupt) - 1e-12 <= both.corrupt <= 1.0 + 1e-12
    assert both.capacity_bps == min((x for x in (a.capacity_bps, b.capacity_bps) if x is not None), default=None)
    assert (both.blocked is None) == (a.blocked is None and b.blocked is None)
    assert both.blocked != "blackhole" or "reset" not in (a.blocked, b.blocked)


times = st.floats(0.0, 50.0)


@given(
    st.lists(
        st.builds(
            lambda kind, start, length, values: ResolvedFault(
                "f", kind, start, start + length, pairs=((0, 1),), parameters=values
            ),
            st.just("flap"),
            times,
            st.floats(0.0, 20.0),
            st.builds(Parameters, period_s=st.floats(0.1, 10.0), duty=st.floats(0.05, 0.95)),
        )
        | st.builds(
            lambda start, length: link(start, start + length, capacity_factor=0.5), times, st.floats(0.0, 20.0)
        ),
        max_size=4,
    ),
    st.lists(times, max_size=20),
)
def test_nothing_changes_between_two_times_of_change(faults, looks):
    changes = change_times(faults)
    assert changes == sorted(set(changes))
    for at_s in looks:
        before = max((t for t in changes if t <= at_s), default=-INF)
        assert link_state(faults, 0, 1, at_s) == link_state(faults, 0, 1, before)


def test_flaps_are_down_first():
    flap = ResolvedFault("f", "flap", 0.1, 0.95, pairs=((0, 1),), parameters=Parameters(period_s=0.3, duty=0.5))
    down = [link_state([flap], 0, 1, t).blocked == "blackhole" for t in (0.05, 0.1, 0.2, 0.25, 0.39, 0.4, 0.54, 0.56)]
    assert down == [False, True, True, False, False, True, True, False]
    assert change_times([flap]) == pytest.approx([0.1, 0.25, 0.4, 0.55, 0.7, 0.85, 0.95])
