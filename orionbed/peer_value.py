"""What a peer is worth to a run: the same run with and without it, seed by seed.

Who the peers are, their sites, links and speeds, is drawn once, from the scenario's own seed; the seeds vary what
happens to them: links that change, departures, routing. A peer that is left out stays in the plan and is absent from
the first second, so that nothing that is drawn for the others moves. Draws that are made in the order of events
(routers, jitter of operations) come in another order without it; that is part of the noise which the interval states.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from orionbed import backends, waterfall
from orionbed.cost import cost_block, paid_by_peer
from orionbed.paired import Difference, difference
from orionbed.plan import PeerPlan, Plan, make_plan
from orionbed.processes import in_processes
from orionbed.runs import RunError
from orionbed.scenario import Scenario, apply
from orionbed.scenario.problems import did_you_mean

By = Literal["peer", "replica", "site"]
HOUR_S: Final = 3600.0


@dataclass(frozen=True, slots=True)
class Group:
    """Peers that are left out together, by their indices in the plan."""

    name: str
    peers: frozenset[int]


@dataclass(frozen=True, slots=True)
class Measured:
    """One run: tokens per second by the wall clock, and what all peers that were there cost per hour."""

    tokens_per_s: float
    gpu_usd_per_hour: float
    egress_usd_per_hour: float

    @property
    def usd_per_hour(self) -> float:
        """GPUs and traffic."""
        return self.gpu_usd_per_hour + self.egress_usd_per_hour

    @property
    def usd_per_million_tokens(self) -> float | None:
        """None where nothing was trained."""
        per_hour = self.tokens_per_s * HOUR_S / 1e6
        return self.usd_per_hour / per_hour if per_hour else None


@dataclass(frozen=True, slots=True)
class Value:
    """A group's worth: both runs of every seed, and their paired differences, with minus without.

    `break_even_usd_per_hour` is the price of the whole group at which a token costs the same with and without it:
    below it the group makes tokens cheaper. None where nothing is trained without the group.
    """

    group: Group
    with_it: tuple[Measured, ...]
    without_it: tuple[Measured, ...]

    @property
    def tokens_per_s(self) -> Difference:
        """What the group adds to the run's speed."""
        found = difference([m.tokens_per_s for m in self.with_it], [m.tokens_per_s for m in self.without_it])
        assert found is not None
        return found

    @property
    def usd_per_million_tokens(self) -> Difference | None:
        """By how much tokens get dearer with the group; below 0: cheaper."""
        return difference(*([m.usd_per_million_tokens for m in runs] for runs in (self.with_it, self.without_it)))

    @property
    def usd_per_hour(self) -> float:
        """What the group's GPUs cost."""
        with_it, without_it = (_mean([m.gpu_usd_per_hour for m in runs]) for runs in (self.with_it, self.without_it))
        return with_it - without_it

    @property
    def break_even_usd_per_hour(self) -> float | None:
        """From (K + p) / T = K' / T': K and K' what all others cost with and without it, T and T' tokens per second."""
        faster = _mean([m.tokens_per_s for m in self.with_it])
        slower = _mean([m.tokens_per_s for m in self.without_it])
        if not slower:
            return None
        others = _mean([m.usd_per_hour for m in self.with_it]) - self.usd_per_hour
        return _mean([m.usd_per_hour for m in self.without_it]) * faster / slower - others

    @property
    def verdict(self) -> str:
        """What may be said of the group in words."""
        if all(m.tokens_per_s == 0.0 for m in self.without_it) and any(m.tokens_per_s for m in self.with_it):
            return "nothing is trained without it"
        return {
            "higher": "makes the run faster",
            "lower": "makes the run slower",
            "the same": "makes no difference",
            "no interval": "one seed: no interval",
        }.get(self.tokens_per_s.verdict, self.tokens_per_s.verdict)


def plan_of(scenario: Scenario, horizon_s: float) -> Plan:
    """Return the plan whose peers are valued over `horizon_s`, without start-up.

    Raises:
        RunError: the schedule has a fixed batch per step.

    """
    kind = scenario.pipeline.schedule.kind
    if kind != "queue":
        raise RunError(
            f"pipeline.schedule.kind is {kind}: with a fixed batch per step a replica that lacks one peer does nothing "
            "at all, so no peer has a value of its own; peers are valued with `kind: queue`"
        )
    changes = {"run.tokens": None, "run.duration": horizon_s, "run.startup": 0.0, "run.trace": "summary"}
    return make_plan(apply(scenario, changes))


def groups_of(plan: Plan, by: By, names: Sequence[str] = ()) -> list[Group]:
    """Return the peers of a plan one by one, or those of each replica or site together; all, or those called `names`.

    Raises:
        RunError: there is no such peer, replica or site.

    """
    members: dict[str, list[int]] = {}
    for peer in plan.peers:
        members.setdefault(_name(peer, by), []).append(peer.index)
    unknown = [name for name in names if name not in members]
    if unknown:
        known = list(members)
        hint = did_you_mean(unknown[0], known, f"; there are {known[0]} to {known[-1]}")
        raise RunError(f"no {by} is called {', '.join(unknown)}{hint}")
    return [Group(name, frozenset(indices)) for name, indices in members.items() if not names or name in names]


def _name(peer: PeerPlan, by: By) -> str:
    return {"peer": peer.name, "replica": str(peer.replica), "site": peer.site}[by]


def measure(plan: Plan, seed: int, without: frozenset[int]) -> Measured:
    """Simulate the plan without some of its peers; all others have their first weights from the start."""
    result = backends.load_simulator().run(plan, seed=seed, fetches=False, without=without)
    waterfall.gpu_seconds(result)  # the parts add up to the whole, or this raises
    hours, tokens = result.duration_s / HOUR_S, result.ledger.applied * plan.tokens_per_microbatch
    gpu_usd = sum(usd for index, usd in enumerate(paid_by_peer(result)[1]) if index not in without)
    return Measured(
        tokens_per_s=tokens / result.duration_s,
        gpu_usd_per_hour=gpu_usd / hours,
        egress_usd_per_hour=cost_block(result, tokens, None)["egress_usd"] / hours,
    )


def values(
    plan: Plan,
    groups: Sequence[Group],
    seeds: Sequence[int],
    *,
    jobs: int,
    progress: Callable[[int], None] | None = None,
) -> list[Value]:
    """Return the value of each group, on up to `jobs` processes; `progress` gets the number of runs so far."""
    absent = [frozenset[int](), *(group.peers for group in groups)]
    tasks = [(plan, seed, without) for without in absent for seed in seeds]
    if jobs > 1:
        measured = in_processes(measure, tasks, jobs, progress)
    else:
        measured = []
        for task in tasks:
            measured.append(measure(*task))
            if progress is not None:
                progress(len(measured))
    rows = [tuple(measured[start : start + len(seeds)]) for start in range(0, len(tasks), len(seeds))]
    return [Value(group, rows[0], row) for group, row in zip(groups, rows[1:], strict=True)]


def plain(found: Sequence[Value]) -> list[dict[str, Any]]:
    """Return values for JSON, in the order of the plan."""
    return [
        {
            "name": value.group.name,
            "num_peers": len(value.group.peers),
            "tokens_per_s": {
                "with": [m.tokens_per_s for m in value.with_it],
                "without": [m.tokens_per_s for m in value.without_it],
                "difference": value.tokens_per_s.plain(),
            },
            "usd_per_million_tokens": {
                "with": [m.usd_per_million_tokens for m in value.with_it],
                "without": [m.usd_per_million_tokens for m in value.without_it],
                "difference": None if (change := value.usd_per_million_tokens) is None else change.plain(),
            },
            "usd_per_hour": value.usd_per_hour,
            "break_even_usd_per_hour": value.break_even_usd_per_hour,
            "verdict": value.verdict,
        }
        for value in found
    ]


def _mean(numbers: Sequence[float]) -> float:
    return sum(numbers) / len(numbers)
