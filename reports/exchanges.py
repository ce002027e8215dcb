"""What went over the network, what merges did, and what became of peers that came, left or were lost."""

from __future__ import annotations

from reports import formatting as fmt
from reports.run_folder import Run
from reports.sections import Line, line


def traffic(run: Run) -> list[Line]:
    """Return what went over the network and what merges did."""
    return _there(
        line(run, "all traffic", "network.bytes_total", "everything peers sent"),
        line(run, "stage boundaries", "network.bytes_boundary", "activations and their gradients"),
        line(run, "merges", "network.bytes_merge", "every way they go"),
        *_syncs(run),
        line(run, "read from the object store", "network.bytes_storage_read"),
        line(run, "uplinks in use", "network.mean_uplink_utilisation", "of their capacity over the whole run"),
        line(run, "merges done", "merges.count", _each(run)),
        _if_any(run, "averaged by a merge", "merges.covered", "of a stage's weights, on average"),
        line(run, "merges missed by a peer", "merges.missed"),
        _if_any(run, "merges refused", "merges.refused", "of a stage: too few slices were averaged"),
    )


def peers_lost(run: Run) -> list[Line]:
    """Return how peers came and went, and what was done about what they had in hand."""
    reasons = run.get("churn.departures_by_reason")
    by_reason = ", ".join(f"{name} {count}" for name, count in reasons.items()) if isinstance(reasons, dict) else ""
    policy = run.get("recovery.in_flight")
    return _there(
        line(run, "departures of peers", "churn.departures", by_reason),
        line(run, "peers there", "churn.availability", "of the time, on average"),
        _if_any(run, "lost several at a time", "churn.bulk_losses"),
        _seconds(run, "a stage without peers", "churn.empty_stage_s"),
        line(run, "GPU time down", "churn.down_gpu_s", "of all peers together"),
        line(run, "GPU time on the bench", "churn.benched_gpu_s", "of peers that wait for an epoch or for weights"),
        _if_any(run, "peers lost with work in hand", "recovery.losses", f"policy {policy}" if policy else ""),
        _if_any(run, "· begun again", "recovery.begun_again", "micro-batches"),
        _if_any(run, "· redone by a replacement", "recovery.spliced", "micro-batches"),
        _if_any(run, "· done by a neighbour", "recovery.taken_over", "micro-batches"),
        _if_any(run, "· past the lost stage", "recovery.with_skipped_stages", "micro-batches"),
        _if_any(run, "· taken back", "recovery.taken_back", "micro-batches that were applied already"),
        _if_any(run, "registrations", "orchestrator.registrations", "each with a speed test"),
        _if_any(run, "updates discarded", "orchestrator.updates_discarded", "of peers that were warming up"),
        _if_any(run, "kicked", "orchestrator.kicks"),
        _if_any(run, "forwards to peers that were gone", "orchestrator.forwards_to_absent"),
    )


def _there(*lines: Line | None) -> list[Line]:
    return [one for one in lines if one is not None and one.value != fmt.ABSENT]


def _if_any(run: Run, label: str, key: str, note: str = "") -> Line | None:
    return line(run, label, key, note) if run.number(key) else None


def _seconds(run: Run, label: str, key: str) -> Line | None:
    seconds = run.number(key)
    return Line(label, fmt.duration(seconds)) if seconds else None


def _each(run: Run) -> str:
    if not run.number("merges.count"):
        return ""
    mean, up, down = (run.number(f"merges.{key}") for key in ("mean_s", "bytes_up_per_peer", "bytes_down_per_peer"))
    return f"{fmt.duration(mean)} each; {fmt.data(up)} up and {fmt.data(down)} down per peer"


def _syncs(run: Run) -> list[Line]:
    if not run.number("syncs.count"):
        return []
    mean, each = run.number("syncs.mean_s"), run.number("syncs.bytes_per_peer_and_step")
    note = f"{fmt.duration(mean)} each on average; {fmt.data(each)} per peer and step"
    return [
        line(run, "syncs of replicas", "network.bytes_sync", "gradients or weights, every way they go"),
        line(run, "syncs done", "syncs.count", note),
    ]
