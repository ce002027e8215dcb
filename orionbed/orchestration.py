"""What the orchestrator decides: when a phase is over, who goes where, who is kicked, how long a reset waits."""

from collections.abc import Mapping, Sequence
from typing import Final

from orionbed.scenario import Scenario
from orionbed.scenario.orchestrator import Retry

TRAINING: Final = "TRAINING"
UPLOADING: Final = "WEIGHTS_UPLOADING"
MERGING: Final = "MERGING_PARTITIONS"
"""The states of an epoch, in their order."""


def reset_wait_s(resets: int, first_s: float, cap_s: float, jitter: float, draw: float) -> float:
    """Return the wait before registering for the `resets`-th time in a row: 0, first, 2 x, 4 x ... up to the cap.

    `draw` in [0, 1) moves it by up to +-`jitter` of itself, but not above the cap. 0, 5, 10, 20 s up to about 5 min in
    IOTA's documents.
    """
    if resets < 2:
        return 0.0
    wait_s = min(cap_s, first_s * 2.0 ** min(resets - 2, 60))
    return min(cap_s, wait_s * (1.0 + jitter * (2.0 * draw - 1.0)))


def training_is_over(backwards: Sequence[int], share: float, enough: int) -> bool:
    """Whether at least `share` of the peers in training have `enough` backward passes in this epoch."""
    done = sum(number >= enough for number in backwards)
    return bool(backwards) and done >= share * len(backwards) - 1e-9


def poorest_stages(num_joiners: int, own: Sequence[int], counts: Sequence[int]) -> list[int]:
    """Return a stage for each joiner, one after the other: the one with fewest peers, its own among equals."""
    counts = list(counts)
    chosen = []
    for number in range(num_joiners):
        stage = min(range(len(counts)), key=lambda s: (counts[s], s != own[number], s))
        counts[stage] += 1
        chosen.append(stage)
    return chosen


def stages_by_speed(paces_s: Sequence[Sequence[float]], own: Sequence[int], capacity: Sequence[float]) -> list[int]:
    """Return a stage for each joiner: the fastest goes to the slowest stage, the next to what is then the slowest.

    `paces_s[joiner][stage]` is the time that a joiner would need for one micro-batch there, `capacity[stage]` how many
    micro-batches per second the stage's peers get through without joiners. Of joiners that are as fast as one another
    the one whose own stage it is goes there.
    """
    capacity = list(capacity)
    chosen = list(own)
    left = set(range(len(paces_s)))
    while left:
        fastest_s = min(sum(paces_s[number]) for number in left)
        fastest = [number for number in sorted(left) if sum(paces_s[number]) <= fastest_s * (1.0 + 1e-9)]
        mine = {own[number] for number in fastest}
        stage = min(range(len(capacity)), key=lambda s: (capacity[s], s not in mine, s))
        number = next((number for number in fastest if own[number] == stage), fastest[0])
        capacity[stage] += 1.0 / paces_s[number][stage]
        chosen[number] = stage
        left.remove(number)
    return chosen


def lowest(scores: Mapping[int, float], number: int) -> list[int]:
    """Return the `number` peers with the lowest scores, the lowest first."""
    return sorted(scores, key=lambda peer: (scores[peer], peer))[:number]


def below(scores: Mapping[int, float], share: float) -> list[int]:
    """Return the peers whose score is less than `share` of the median score, the lowest first."""
    ranked = sorted(scores.values())
    middle = len(ranked) // 2
    median = (ranked[middle] if len(ranked) % 2 else (ranked[middle - 1] + ranked[middle]) / 2.0) if ranked else 0.0
    return [peer for peer in lowest(scores, len(scores)) if scores[peer] < share * median]


def kicked(candidates: Sequence[int], stage_of: Mapping[int, int], counts: Sequence[int]) -> list[int]:
    """Return those of `candidates` who go, in their order: whoever is the last of a stage stays.

    `counts[stage]` is the number of peers that the stage can count on, the candidates among them.
    """
    counts = list(counts)
    gone = []
    for peer in candidates:
        stage = stage_of[peer]
        if counts[stage] > 1:
            counts[stage] -= 1
            gone.append(peer)
    return gone


def simulated_alone(scenario: Scenario) -> list[str]:
    """Return what the scenario asks for of the life of peers and of transports that only the simulator has."""
    found = []
    if not isinstance(scenario.orchestrator, str):
        found.append("orchestrator: only the simulator has one; write none, or use sim")
    schedule = scenario.pipeline.schedule
    if schedule.kind != "queue":
        return found
    if schedule.via != "p2p":
        found.append("pipeline.schedule.via: messages go from peer to peer here; write p2p, or use sim")
    if schedule.retry != Retry():
        found.append("pipeline.schedule.retry: sends have no limits of their own here; leave it out, or use sim")
    if not isinstance(schedule.knowledge, str):
        found.append("pipeline.schedule.knowledge: peers broadcast their load here; write broadcast, or use sim")
    return found
