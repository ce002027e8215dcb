"""What a run on hardware must say of itself: what it ran on, what its figures are shares of, what it leaves out."""

from typing import Any

from orionbed.processes import num_cores
from orionbed.warn import warning
from real.prepared import Prepared
from real.settings import is_shortened


def not_modelled(prepared: Prepared) -> list[dict[str, str]]:
    """Return warnings about what this run leaves out, or about what its figures stand on."""
    scenario, job = prepared.plan.scenario, prepared.job
    found = []
    if not prepared.profile_is_of_device:
        found.append(
            warning(
                "other-device",
                f"the profile {scenario.peers.gpu} is not of the device that ran ({prepared.peak_source}): predicted "
                "times and the split of operations into useful work and overheads are those of another machine, and "
                "there is no datacenter to compare with",
                "measure this device with `orionbed calibrate` and run with --profile",
            )
        )
    if is_shortened(scenario):
        found.append(
            warning(
                "shortened",
                "real.steps, real.training and real.merges cut the run short: its start and its merges weigh more in "
                "all averages than in the scenario's own run",
                "published figures of whole runs are not compared here",
            )
        )
    if job.device == "cpu" and len(prepared.layout.ranks(0)) * scenario.real.threads > num_cores():
        found.append(
            warning(
                "shared-cores",
                f"{len(prepared.layout.ranks(0))} processes of {scenario.real.threads} thread(s) share {num_cores()} "
                "cores: operations take longer than they would alone, and step times say little",
                "use as many processes as there are cores",
            )
        )
    return found


def common_block(prepared: Prepared) -> dict[str, Any]:
    """Return what the summary's `real` block has whatever the schedule."""
    job, block = prepared.job, prepared.plan.scenario.real
    return {
        "device_kind": job.device,
        "transport": job.transport,
        "encrypted": job.credentials is not None and job.transport == "tcp",
        "dtype": job.shape.dtype,
        "num_processes": prepared.layout.num_ranks,
        "num_nodes": prepared.layout.num_nodes,
        "threads": block.threads,
        "profile": {
            "name": prepared.plan.gpu.name,
            "is_of_device": prepared.profile_is_of_device,
            "peak_flops": prepared.plan.peak_flops / prepared.plan.num_gpus,
            "peak_source": prepared.peak_source,
        },
    }
