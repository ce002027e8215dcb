"""Warnings: check this before trusting the numbers."""

import json
from typing import Any

from orionbed.advice import best_of, title_of
from orionbed.estimate import fullest, gpus_in_words
from orionbed.hardware import makes_of
from orionbed.measured import shape_in_words, uncovered
from orionbed.plan import Plan
from orionbed.results import RunResult
from orionbed.scenario import GpuProfile, Scenario

PARTIAL_SHARE = 0.01
DROPPED_SHARE = 0.02
WINDOW_SHARE = 0.05
MISSED_SHARE = 0.05
COVERED_SHARE = 0.9
"""IOTA's code refuses a merge of which fewer slices were averaged."""
SCHEDULE_GAIN = 0.05


def warning(code: str, message: str, advice: str) -> dict[str, str]:
    """Return one warning."""
    return {"code": code, "message": message, "advice": advice}


def warnings_of(result: RunResult, summary: dict[str, Any], baseline_fits: bool) -> list[dict[str, str]]:  # noqa: FBT001
    """Return what a reader should check before trusting this run's numbers."""
    found = []
    plan = result.plan
    if summary["aborted"]:
        found.append(
            warning("aborted", summary["aborted"], "look at the waterfall and the ledger for what holds it up")
        )
    if not plan.fits:
        worst, room = fullest(plan)
        found.append(
            warning(
                "memory",
                f"stage {worst.index} needs {worst.memory.total_bytes / 1e9:.1f} GB and does not fit the "
                f"{room / 1e9:.0f} GB of {gpus_in_words(plan)}",
                "use more stages, fewer bytes per parameter, full recompute or a smaller micro-batch",
            )
        )
    if not baseline_fits:
        found.append(
            warning(
                "datacenter-memory",
                "the datacenter baseline would not fit the same GPUs: without full recompute every micro-batch in "
                "flight keeps its activations",
                "read its speed as that of a datacenter with memory to spare, or set datacenter.recompute: full",
            )
        )
    found += about_profile(plan)
    found += _about_length(result, summary)
    found += _about_microbatches(summary)
    found += _about_merges(result, summary)
    found += _about_schedule(result, summary)
    found += _about_faults(summary)
    found += [
        warning(
            "published-unknown",
            f"the run measures no '{row['quantity']}', so the published figure has nothing beside it",
            "see docs/reference.md for the keys of summary.json",
        )
        for row in summary["published"]
        if row["ours"] is None
    ]
    window = next(row["fraction"] for row in summary["waterfall"] if row["cause"] == "window")
    if window > WINDOW_SHARE:
        found.append(
            warning(
                "window",
                f"{window:.1%} of all GPU-seconds wait because the in-flight window is full",
                "raise pipeline.schedule.window if memory allows, or shorten the round trip of a micro-batch",
            )
        )
    egress = summary["cost"]
    travels = len(plan.site_names) > 1
    if travels and egress["egress_usd"] == 0.0 and egress["egress_usd_at_list_price"] > 0.1 * egress["gpu_usd"]:
        found.append(
            warning(
                "egress-free",
                f"traffic is taken as free of charge; at the list price of large clouds it would cost "
                f"${egress['egress_usd_at_list_price']:,.0f} beside ${egress['gpu_usd']:,.0f} for the GPUs",
                "set cost.egress_per_gb to what the peers' hosts charge",
            )
        )
    return found


def _about_faults(summary: dict[str, Any]) -> list[dict[str, str]]:
    missed = [row for row in summary["faults"] if row["hit"] is False]
    if not missed:
        return []
    remarks = sorted({row["remark"] for row in missed if row.get("remark")})
    return [
        warning(
            "fault-hit-nothing",
            f"{len(missed)} of {len(summary['faults'])} faults hit nothing: "
            + ", ".join([row["id"] for row in missed[:5]] + ["..."] * (len(missed) > 5))
            + "".join(f"; {remark}" for remark in remarks),
            "the run shows nothing about them: look whether they come within it, and whether anybody was there",
        )
    ]


def about_profile(plan: Plan) -> list[dict[str, str]]:
    """Return a warning for each calibrated profile that has not measured what the scenario runs."""
    found = []
    for kind, gpu in enumerate((plan.gpu, *(other.gpu for other in plan.others))):
        if gpu.measured:
            found += _about_gpu(gpu, makes_of(plan.scenario)[kind].gpu, plan.scenario)
    return found


def _about_gpu(gpu: GpuProfile, file: str, scenario: Scenario) -> list[dict[str, str]]:
    missing = uncovered(gpu, scenario)
    if not missing:
        return []
    others = [entry.shape.dtype for entry in gpu.measured]
    advice = f"measure it: orionbed calibrate {scenario.name} --device {gpu.device or 'cpu'} --out {file}"
    if scenario.peers.gpus > 1:
        advice = "a calibration is of one GPU: set peers.gpus: 1, or take a profile made by hand"
    elif scenario.model.dtype not in others:
        advice = f"what was measured is {others[0]}: set model.dtype={others[0]}; or {advice}"
    return [
        warning(
            "profile-not-covered",
            f"the profile {gpu.name} has no measurement of {', '.join(missing)} at {shape_in_words(scenario)}; they "
            "are taken from its efficiencies by shape",
            advice,
        )
    ]


def _about_length(result: RunResult, summary: dict[str, Any]) -> list[dict[str, str]]:
    window_s = result.plan.scenario.run.peak_window
    if summary["mfu"]["peak_window_s"] < window_s - 1.0:
        return [
            warning(
                "short-run",
                f"the run lasted {result.duration_s / 3600.0:.2f} h, less than the {window_s / 3600.0:.1f} h over "
                "which the peak is defined: its peak is its average",
                "simulate longer, or set run.peak_window",
            )
        ]
    return []


def _about_merges(result: RunResult, summary: dict[str, Any]) -> list[dict[str, str]]:
    merges = summary["merges"]
    found = []
    share = merges["missed"] / max(1, merges["count"] * len(result.plan.peers))
    if share > MISSED_SHARE:
        found.append(
            warning(
                "merges-missed",
                f"in {share:.0%} of all cases a peer was too late with its upload for a merge: what it had learnt "
                "since the last one is lost, although its micro-batches count as applied",
                "wait longer (merge.quorum_relax, merge.quorum_every), merge less often, or leave slow uplinks out",
            )
        )
    if merges["count"] and merges["covered"] is not None and merges["covered"] < COVERED_SHARE:
        found.append(
            warning(
                "merge-coverage",
                f"a merge averages {merges['covered']:.0%} of a stage's weights; replicas drift apart in the rest",
                "wait longer (merge.deadline), or choose another merge.algorithm; see docs/how-to/choose-a-merge.md",
            )
        )
    return found


def _about_schedule(result: RunResult, summary: dict[str, Any]) -> list[dict[str, str]]:
    schedule, plan = summary["schedule"], result.plan
    if schedule is None:
        return []
    found = []
    if schedule["gain"] > SCHEDULE_GAIN and result.has_baseline:
        best = best_of(schedule["advice"])
        assert best is not None
        found.append(
            warning(
                "schedule",
                f"a step of {schedule['name']}, sync apart, could be {schedule['gain']:.0%} shorter: "
                f"{title_of(best)} fits the memory and takes {best['step_s']:.4g} s on these times and hops instead of "
                f"{schedule['step_s_without_contention']:.4g} s",
                f"set pipeline.schedule to {_as_yaml(best['settings'])}; over the internet hops count: with p stages "
                "and m micro-batches 1F1B pays 2 (p-1)(m/p+1) - 2 hop times per step, GPipe 2 (p-1)",
            )
        )
    if plan.num_replicas > 1 and plan.scenario.sync == "none" and plan.scenario.merge == "none":
        found.append(
            warning(
                "no-sync",
                f"the {plan.num_replicas} replicas never exchange gradients or weights: each trains a model of its own",
                "give sync (each step) or merge (now and then) a block; without either, speed is that of separate runs",
            )
        )
    return found


def _as_yaml(settings: dict[str, Any]) -> str:
    """Write settings as one line of YAML, without those that are null."""
    written = (
        f"{key}: {value if isinstance(value, str) else json.dumps(value)}"
        for key, value in settings.items()
        if value is not None
    )
    return f"{{{', '.join(written)}}}"


def _about_microbatches(summary: dict[str, Any]) -> list[dict[str, str]]:
    counts = summary["microbatches"]
    created = max(1, counts["created"])
    found = []
    if counts["applied"] == 0:
        found.append(
            warning("nothing-applied", "no micro-batch was completed", "simulate longer: run.duration or run.tokens")
        )
    if counts["dropped"] / created > DROPPED_SHARE:
        found.append(
            warning(
                "dropped",
                f"{counts['dropped'] / created:.1%} of all micro-batches were dropped",
                "see the ledger for the reasons; merges flush what is in flight, crashes lose what a peer holds",
            )
        )
    if counts["partially_applied"] / created > PARTIAL_SHARE:
        found.append(
            warning(
                "partially-applied",
                f"{counts['partially_applied'] / created:.1%} of all micro-batches were used by later stages but never "
                "by earlier ones",
                "the asynchronous schedule allows this; it mixes gradients of different batches",
            )
        )
    return found
