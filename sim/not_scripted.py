"""What a script cannot say of a run, so that weights played from it would not be those that the run stands for."""

from orionbed.scenario import Scenario
from orionbed.scenario.merging import Merge
from orionbed.scenario.sections import Sync

_EXACT_BITS = 16


def not_scripted(scenario: Scenario) -> list[str]:
    """Return the keys whose values no line of a script follows, each with the reason and what to use instead."""
    merge, sync, orchestrator = scenario.merge, scenario.sync, scenario.orchestrator
    found = [] if isinstance(merge, str) else _of_merge(merge)
    kicks = not isinstance(orchestrator, str) and not isinstance(orchestrator.kick, str)
    if kicks and not isinstance(merge, str) and not merge.flush:
        found.append("merge.flush: a peer that is kicked begins anew, and cannot go on with what it held; use true")
    if not isinstance(sync, str):
        found += _of_sync(sync)
        if not isinstance(merge, str):
            found.append("merge: replicas that sync and merge besides have no one state to begin from; write none")
    return found


def _of_merge(merge: Merge) -> list[str]:
    found = []
    if merge.overlap:
        found.append("merge.overlap: what peers learn beside a merge is not joined to its result; use false")
    if merge.codec.kind != "none":
        found.append(f"merge.codec: contributions are averaged as they are, not as {merge.codec.kind}; use kind: none")
    if merge.outer != "none" and merge.algorithm in {"gossip", "grouped"}:
        found.append(f"merge.outer: with {merge.algorithm} peers have no common weights to step from; use none")
    return found


def _of_sync(sync: Sync) -> list[str]:
    found = []
    if sync.overlap:
        found.append("sync.overlap: gradients or weights that come later than their step are not played; use false")
    if sync.bits < _EXACT_BITS:
        found.append(f"sync.bits: gradients are summed as they are, not in {sync.bits:g} bits; use 32")
    return found
