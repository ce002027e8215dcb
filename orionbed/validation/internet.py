"""Runs over the internet: INTELLECT-1, Covenant-72B, Petals, SWARM and DT-FM worldwide, each a packaged scenario."""

from collections.abc import Iterable
from functools import partial
from typing import Any

from orionbed import backends
from orionbed.plan import make_plan
from orionbed.results import RunResult
from orionbed.scenario import apply, load
from orionbed.summary import summarise
from orionbed.validation.case import Case, Source

PERCENT = 100.0
INTELLECT_ROUNDS = 4
"""Whole rounds of 38 min and an exchange are simulated, and some seconds to fetch the first weights."""
INTELLECT_MFU_FACTOR = 75.0 / 61.3
"""Its code counts attention over the full square and no input embedding: 75.0 instead of 61.3 GFLOP per token."""


def _run(name: str, changes: dict[str, Any] | None = None) -> tuple[RunResult, dict[str, Any]]:
    scenario = apply(load(name), {"run.trace": "summary"} | (changes or {}))
    result = backends.load("sim").run(make_plan(scenario))
    return result, summarise(result, None, git="", started_at="")


def _computing(summary: dict[str, Any]) -> float:
    """Share of the time, in percent, that no peer waits for an exchange; fetching the first weights is not counted."""
    shares = {row["cause"]: row["fraction"] for row in summary["waterfall"]}
    waits = shares["merge_transfer"] + shares["merge_wait"] + shares["merge_compute"]
    return PERCENT * (1.0 - float(waits) / (1.0 - float(shares["startup"])))


def intellect() -> list[Case]:
    """All-reduce times (the links are fitted to them), utilisation and MFU within the USA and beyond."""
    cases = []
    for where, rate_bps, exchange_s, utilisation, mfu in (
        ("USA", 1478e6, 103.0, 95.7, 41.4),
        ("USA and Europe", 397e6, 382.0, 85.6, 37.1),
        ("three continents", 323e6, 469.0, 83.0, 36.0),
    ):
        rounds_s = INTELLECT_ROUNDS * (38.0 * 60.0 + exchange_s)
        _, summary = _run("peers/intellect-1", {"network.uplink": rate_bps, "run.duration": rounds_s + 20.0})
        ours = PERCENT * summary["mfu"]["in_phase"] * INTELLECT_MFU_FACTOR
        cases += [
            Case(f"{where}, all-reduce, s", exchange_s, summary["syncs"]["mean_s"], calibration=True),
            Case(f"{where}, computing, %", utilisation, _computing(summary)),
            Case(f"{where}, MFU, %", mfu, ours),
        ]
    return cases


def covenant() -> list[Case]:
    """What a peer uploads, how long the exchange takes (the links are fitted to it), and utilisation."""
    result, summary = _run("peers/covenant-72b")
    bits = 0.21875
    uploaded = result.plan.num_parameters * bits / 8.0 / 1e9
    return [
        Case("uploaded per peer and exchange, GB", 1.97, uploaded),
        Case("compression against 32 bits", 146.0, 32.0 / bits),
        Case("exchange, s", 70.0, summary["syncs"]["mean_s"], calibration=True),
        Case("computing, %", 94.5, _computing(summary)),
    ]


def petals() -> list[Case]:
    """Steps per second of generation, on quick links (fitted) and on slow ones."""
    slow = {"network.uplink": 1e8, "network.downlink": 1e8, "network.delay": 0.05}
    cases = []
    for label, changes, published, fitted in (
        ("70B, 1 Gbit/s, 5 ms", {}, 2.29, True),
        ("70B, 100 Mbit/s, 100 ms", slow, 1.57, False),
    ):
        _, summary = _run("peers/petals-70b", changes)
        cases.append(Case(label, published, summary["tokens"]["per_s"]["in_phase"], calibration=fitted))
    return cases


_STAY = ("peers stay", None, 82.7)
_MOVE = ("a peer moves every 300 s", 300.0, 95.8)


def swarm(settings: Iterable[tuple[str, float | None, float]] = (_STAY, _MOVE)) -> list[Case]:
    """Share of the best possible throughput, when peers stay (churn is fitted to it) and when they move."""
    cases = []
    for label, every_s, published in settings:
        _, summary = _run("peers/swarm-rebalancing", {"peers.rebalance_every": every_s})
        shares = {row["cause"]: row["fraction"] for row in summary["waterfall"]}
        present = 1.0 - shares["down"] - shares["benched"] - shares["startup"]
        lost = sum(shares[cause] for cause in ("upstream", "window", "transfer", "polling", "fill", "thrown_away"))
        cases.append(Case(f"{label}, %", published, PERCENT * (1.0 - lost / present), calibration=every_s is None))
    return cases


def dtfm_worldwide() -> list[Case]:
    """Seconds per step of 1024 sequences in eight regions, placed as the paper does and at random, and their ratio."""
    seconds = []
    for placement in ("packed", "spread"):
        _, summary = _run("peers/dtfm-worldwide", {"peers.placement": placement})
        seconds.append(1024 * 2048 / summary["tokens"]["per_s"]["in_phase"])
    placed, at_random = seconds
    published_at_random = (92.29 + 89.64) / 2.0
    return [
        Case("the paper's placement, s", 43.78, placed),
        Case("at random, s (published: the mean of two)", published_at_random, at_random),
        Case("at random against placed", published_at_random / 43.78, at_random / placed),
    ]


def subspace() -> list[Case]:
    """By what factor full boundaries are slower than those of a subspace of 40 dimensions."""
    rates = []
    for boundary in ({"kind": "subspace", "width": 40}, {"kind": "none"}):
        _, summary = _run("peers/subspace-8b", {"pipeline.boundary": boundary})
        rates.append(summary["tokens"]["per_s"]["in_phase"])
    return [Case("8B on 64 L4, full boundaries slower by", 13.0, rates[0] / rates[1])]


SOURCES = (
    Source(
        "intellect-1", "INTELLECT-1, 14 nodes of 8 H100", "Jaghouar et al., arXiv 2412.01152 (second-hand)", "s, %",
        intellect, "shown", fitted="the ring's rate in each setting, to its all-reduce time (marked)",
    ),
    Source(
        "covenant-72b", "Covenant-72B, 20 peers of 8 B200", "Lidin et al., arXiv 2603.08163", "GB, s, %", covenant,
        "shown", fitted="downlinks, to the 70 s of the exchange (marked), which are a constant of the protocol; and "
        "computing takes what the published share leaves, so that its share is no independent prediction",
    ),
    Source(
        "petals-70b", "Petals, generation with 70B on three T4", "Borzunov et al., NeurIPS 2023, arXiv 2312.08361 "
        "(second-hand)", "steps/s", petals, "shown", fitted="the servers' time, to the quick links (marked)",
    ),
    Source(
        "dtfm-worldwide", "DT-FM, 64 V100 in eight regions", "Yuan et al., NeurIPS 2022, arXiv 2206.01288, notes of "
        "DS3Lab/Decentralized_FM_alpha", "s, ratio", dtfm_worldwide, "shown",
        assumed="asynchronous messages over one socket each; synchronous ones would be two fifths too slow",
    ),
    Source(
        "subspace-8b", "Subspace networks, 8B on 64 L4", "Ramasinghe et al., arXiv 2506.01260 (second-hand)", "ratio",
        subspace, "shown", assumed="layout, batches and delays, which are guesses",
    ),
    Source(
        "swarm-rebalancing", "SWARM, peers that move between stages", "Ryabinin et al., ICML 2023, arXiv 2301.11913 "
        "(second-hand)", "%", swarm, "shown", fitted="how long machines stay, to the run in which peers stay (marked)",
        assumed="machines that come back go to a random stage; a lost micro-batch is lost, while SWARM sends it again",
        brief=partial(swarm, [_MOVE]),
    ),
)  # fmt: skip
