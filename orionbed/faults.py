"""From the faults of a scenario to who is hit and when: plain data, the same for the same seed, for every backend.

Times are seconds of the run. Every fault draws from a stream of its own, so adding one moves nothing in the others.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from heapq import heapify, heapreplace
from typing import Any, Final

from orionbed import quantity
from orionbed.plan import PeerPlan, Plan
from orionbed.scenario.distributions import Distribution
from orionbed.scenario.fault_fields import EVERYBODY, Change, parts_of
from orionbed.scenario.faults import ChurnFault, CrashFault, LinkFault, PartitionFault, Pick
from orionbed.scenario.problems import Place, Problem, ScenarioError
from orionbed.streams import Streams

Value = float | str
_HOUR_S: Final = 3600.0


class Parameters(Mapping[str, Value]):
    """A mapping that cannot be changed, can be hashed, and travels between processes."""

    __slots__ = ("_items",)

    def __init__(self, **values: Value) -> None:
        self._items = tuple(values.items())

    def __getitem__(self, key: str) -> Value:
        for name, value in self._items:
            if name == key:
                return value
        raise KeyError(key)

    def __iter__(self) -> Iterator[str]:
        return (name for name, _ in self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __hash__(self) -> int:
        return hash(frozenset(self._items))

    def __repr__(self) -> str:
        return f"Parameters({', '.join(f'{name}={value!r}' for name, value in self._items)})"

    def number(self, key: str, default: float = 0.0) -> float:
        """Return the number at `key`, or `default` where there is none."""
        return float(self.get(key, default))


@dataclass(frozen=True, slots=True)
class ResolvedFault:
    """One fault: whom it hits, from `start_s` until just before `end_s` (inf: until the run is over).

    Crash, pause, slow and clock hit `peers`; link, partition, corrupt and flap hit `pairs` of (sender, receiver).
    `parameters` by kind:

    - crash: `state` (lost | disk) in which the peers come back at `end_s`
    - slow: `compute_factor`
    - link: `capacity_factor` or `capacity_bps`, `extra_owd_s` or `owd_s`, `jitter_sd_s`, `loss`, as far as given
    - partition: `mode` (blackhole | reset)
    - corrupt: `per_chunk`
    - clock: `offset_s`, `drift_ppm`
    - flap: `period_s`, `duty` (each period begins with this share of it down, as a blackhole)
    """

    id: str
    kind: str
    start_s: float
    end_s: float
    peers: tuple[int, ...] = ()
    pairs: tuple[tuple[int, int], ...] = ()
    parameters: Parameters = field(default_factory=Parameters)
    _hit: frozenset[Any] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_hit", frozenset((*self.peers, *self.pairs)))

    def hits(self, what: int | tuple[int, int], at_s: float) -> bool:
        """Return whether a peer, or a pair of sender and receiver, is hit at this time."""
        return self.start_s <= at_s < self.end_s and what in self._hit


def resolve(plan: Plan, seed: int | None = None, *, end_s: float | None = None) -> tuple[ResolvedFault, ...]:
    """Return the faults of a plan's scenario with everything drawn, in the order of the file, then of time.

    `seed` is that of the run (default the scenario's); the faults' own seed comes before it. A churn becomes crashes
    named after it (`u1#1`, `u1#2`, ...). Nothing outlasts `heal_at`; a fault that would only begin then hits nobody.
    `end_s` is the length of the run (default the scenario's run.duration).

    Raises:
        ScenarioError: `heal_at` counts from the run's end, and nobody knows when that is.

    """
    scenario = plan.scenario
    faults = scenario.faults
    of_run = scenario.run.seed if seed is None else seed
    streams = Streams(of_run if faults.seed is None else faults.seed).child("faults")
    heal_s = _heal_s(plan, scenario.run.duration if end_s is None else end_s)
    return tuple(one for fault in faults.list for one in _resolved(fault, plan, streams, heal_s))


def selected(selector: str, peers: Sequence[PeerPlan]) -> tuple[int, ...]:
    """Return the indices of the peers that a selector means, in order."""
    kind, name = parts_of(selector)
    if kind == EVERYBODY:
        return tuple(peer.index for peer in peers)
    attribute = "name" if kind == "peer" else kind
    return tuple(peer.index for peer in peers if str(getattr(peer, attribute)) == name)


def described(fault: ResolvedFault, plan: Plan) -> dict[str, Any]:
    """Return the report's row of a fault: whom it hits and what it does, in words; `end_s` is None without an end.

    `hit` (whether it changed anything) and `destroyed_bytes` are for the backend to fill in.
    """
    return {
        "id": fault.id,
        "kind": fault.kind,
        "start_s": fault.start_s,
        "end_s": fault.end_s if math.isfinite(fault.end_s) else None,
        "who": list(_who(fault, plan)),
        "what": _what(fault.parameters),
        "hit": None,
        "destroyed_bytes": None,
    }


def _heal_s(plan: Plan, end_s: float | None) -> float:
    heal_at = plan.scenario.faults.heal_at
    if heal_at is None:
        return math.inf
    if not heal_at.before_end:
        return heal_at.offset_s
    if end_s is None:
        text = "counts from the end of the run, which is not known beforehand; give run.duration, or a time like 2 h"
        raise ScenarioError([Problem(Place(f"scenario {plan.scenario.name}"), "faults.heal_at", text)])
    return max(0.0, end_s - heal_at.offset_s)


def _resolved(fault: Any, plan: Plan, streams: Streams, heal_s: float) -> Iterator[ResolvedFault]:
    if isinstance(fault, ChurnFault):
        yield from _churned(fault, len(plan.peers), streams, heal_s)
        return
    peers: tuple[int, ...] = ()
    pairs: tuple[tuple[int, int], ...] = ()
    if isinstance(fault, PartitionFault):
        pairs = _parted(fault, plan.peers)
    elif hasattr(fault, "target"):
        peers = _targets(fault, plan.peers, streams)
    else:
        senders, receivers = selected(fault.senders, plan.peers), selected(fault.receivers, plan.peers)
        pairs = tuple((a, b) for a in senders for b in receivers if a != b)
    lasts = _away_s(fault, streams) if isinstance(fault, CrashFault) else fault.lasts
    end_s = min(heal_s, math.inf if lasts is None else fault.at + lasts)
    if end_s <= fault.at:
        yield ResolvedFault(fault.id, fault.kind, fault.at, fault.at, parameters=_parameters(fault))
    else:
        yield ResolvedFault(fault.id, fault.kind, fault.at, end_s, peers, pairs, _parameters(fault))


def _targets(fault: Any, peers: Sequence[PeerPlan], streams: Streams) -> tuple[int, ...]:
    if not isinstance(fault.target, Pick):
        return selected(fault.target, peers)
    among, pick = selected(fault.target.of, peers), fault.target.pick
    if pick == "all":
        return among
    if isinstance(pick, float):
        number = max(1, math.floor(pick * len(among) + 0.5))
    else:
        number = 1 if pick == "one" else int(pick)
    drawn = streams.get(f"pick {fault.id}").choice(len(among), size=min(number, len(among)), replace=False)
    return tuple(sorted(among[i] for i in drawn))


def _parted(fault: PartitionFault, peers: Sequence[PeerPlan]) -> tuple[tuple[int, int], ...]:
    group_of: dict[int, int] = {}
    for number, group in enumerate(fault.groups):
        for selector in group:
            for index in selected(selector, peers):
                group_of.setdefault(index, number)
    cut = {"to": (True, False), "from": (False, True), "both": (True, True)}[fault.direction]
    return tuple(
        (a, b)
        for a in sorted(group_of)
        for b in sorted(group_of)
        if (group_of[a] < group_of[b] and cut[0]) or (group_of[a] > group_of[b] and cut[1])
    )


def _away_s(fault: CrashFault | ChurnFault, streams: Streams) -> float | None:
    if isinstance(fault.restart, str):
        return None
    after: Distribution = fault.restart.after
    return float(after.sample(streams.get(f"restart {fault.id}"), 1)[0])


def _churned(fault: ChurnFault, num_peers: int, streams: Streams, heal_s: float) -> Iterator[ResolvedFault]:
    """Yield crashes in order of time; one that would exceed `max_down` does not happen, and the peer's clock goes on.

    Draws are made in the order of the crashes, from one generator for waits and one for absences.
    """
    rng = streams.get(f"churn {fault.id}")
    mean_s = _HOUR_S / fault.rate_per_peer_hour
    limit = math.inf if fault.max_down is None else fault.max_down
    last_s = min(fault.ends, heal_s)
    due = [(fault.begins + float(wait), peer) for peer, wait in enumerate(rng.exponential(mean_s, num_peers))]
    heapify(due)
    returns: list[float] = []
    number = 0
    while due and due[0][0] < last_s:
        at_s, peer = due[0]
        returns = [time for time in returns if time > at_s]
        up_again_s = at_s
        if len(returns) < limit:
            away_s = _away_s(fault, streams)
            up_again_s = math.inf if away_s is None else at_s + away_s
            number += 1
            returns.append(up_again_s)
            end_s = min(up_again_s, heal_s)
            yield ResolvedFault(f"{fault.id}#{number}", "crash", at_s, end_s, (peer,), parameters=_parameters(fault))
        heapreplace(due, (up_again_s + float(rng.exponential(mean_s)), peer))


def _parameters(fault: Any) -> Parameters:
    if isinstance(fault, CrashFault | ChurnFault):
        return Parameters(state="lost" if isinstance(fault.restart, str) else fault.restart.state)
    if isinstance(fault, LinkFault):
        values: dict[str, Value] = {}
        values |= _changed(fault.capacity, "capacity_factor", "capacity_bps")
        values |= _changed(fault.owd, "extra_owd_s", "owd_s")
        given = {"jitter_sd_s": fault.jitter_sd, "loss": fault.loss}
        return Parameters(**values, **{name: value for name, value in given.items() if value is not None})
    names = {
        "slow": {"compute_factor": "compute_factor"},
        "partition": {"mode": "mode"},
        "corrupt": {"per_chunk": "per_chunk"},
        "clock": {"offset_s": "offset", "drift_ppm": "drift_ppm"},
        "flap": {"period_s": "period", "duty": "duty"},
    }
    return Parameters(**{name: getattr(fault, key) for name, key in names.get(fault.kind, {}).items()})


def _changed(change: Change | None, relative: str, absolute: str) -> dict[str, float]:
    return {} if change is None else {absolute if change.how == "set" else relative: change.value}


def _who(fault: ResolvedFault, plan: Plan) -> Iterator[str]:
    names = [peer.name for peer in plan.peers]
    yield from (names[peer] for peer in fault.peers)
    receivers: dict[int, list[str]] = {}
    for sender, receiver in fault.pairs:
        receivers.setdefault(sender, []).append(names[receiver])
    for sender, reached in receivers.items():
        everybody = len(reached) == len(names) - 1 > 1
        yield f"{names[sender]} -> {'all others' if everybody else ', '.join(reached)}"


def _what(parameters: Parameters) -> str:
    words = []
    for name, value in parameters.items():
        if isinstance(value, str):
            words.append(f"{name} {value}")
        elif name == "capacity_factor":
            words.append(f"capacity {value:g}x")
        elif name.endswith("_bps"):
            words.append(f"{name.removesuffix('_bps')} {quantity.show(value, quantity.DATA_RATE)}")
        elif name.endswith("_s"):
            words.append(f"{name.removesuffix('_s').replace('_', ' ')} {quantity.show(value, quantity.DURATION)}")
        else:
            words.append(f"{name.replace('_', ' ')} {value:g}")
    return ", ".join(words)
