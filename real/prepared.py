"""What a run is on this machine: its device, its transport, its secrets, and the peak that MFU is a share of."""

import secrets
from collections.abc import Callable
from dataclasses import dataclass, replace

from orionbed.backends import BackendError
from orionbed.fleet.certificates import Authority
from orionbed.plan import Plan, make_plan
from real.job import DeviceKind, Job, Transport
from real.launch import Layout, layout_of
from real.settings import as_real, real_shape, refuse


@dataclass(frozen=True, slots=True)
class Prepared:
    """A run before its processes are started.

    `profile_is_of_device`: whether the times and the peak of `peers.gpu` are those of the device that runs; without it
    predicted times are of another machine. `peak_source` says where the peak comes from.
    """

    job: Job
    layout: Layout
    profile_is_of_device: bool
    peak_source: str

    @property
    def plan(self) -> Plan:
        """The plan that runs."""
        return self.job.plan

    @property
    def queue(self) -> bool:
        """Whether the schedule is queue-driven."""
        return self.plan.order is None


def prepare(plan: Plan, seed: int, say: Callable[[str], None], *, measure: bool = True) -> Prepared:
    """Return what running `plan` on this machine comes to; without `measure` the peak of a CPU stays unknown.

    Raises:
        BackendError: it cannot be run on hardware.

    """
    refuse(plan.scenario)
    runs = make_plan(as_real(plan.scenario), seed)
    device = _device(runs)
    transport = _transport(runs, device)
    shape = real_shape(runs, device)
    runs, of_device, source = _with_peak(runs, device, shape.dtype, say, measure=measure)
    others = 1 if runs.order is None and not isinstance(runs.scenario.merge, str) else 0
    encrypts = transport == "tcp" and runs.scenario.real.encrypt
    credentials = Authority().issue("a process of the run") if encrypts else None
    token = secrets.token_hex(16)
    job = Job(runs, seed, shape, device, transport, ("127.0.0.1", 0), token, credentials)
    return Prepared(job, layout_of(runs, num_others=others), of_device, source)


def _device(plan: Plan) -> DeviceKind:
    wanted = plan.scenario.real.device
    if wanted == "cpu":
        return "cpu"
    import torch

    if torch.cuda.is_available():
        return "cuda"
    if wanted == "cuda":
        raise BackendError("real.device cuda: torch sees no GPU here; use real.device cpu, or install torch for CUDA")
    return "cpu"


def _transport(plan: Plan, device: DeviceKind) -> Transport:
    wanted = plan.scenario.real.transport
    if wanted != "auto":
        if wanted == "nccl" and device == "cpu":
            raise BackendError("real.transport nccl is for GPUs, and there is none here; use gloo or tcp")
        return wanted
    if plan.order is None:
        return "tcp"
    return "nccl" if device == "cuda" else "gloo"


def _with_peak(
    plan: Plan, device: DeviceKind, dtype: str, say: Callable[[str], None], *, measure: bool
) -> tuple[Plan, bool, str]:
    """Return the plan with the peak of the device, whether its profile is of this device, and the peak's source."""
    if device == "cuda":
        from real.calibration.devices import matches

        return plan, matches(plan.gpu), f"peak of the profile {plan.gpu.name}"
    if plan.gpu.device == "cpu":
        return plan, True, f"measured, in the profile {plan.gpu.name}"
    if not measure:
        return plan, False, f"peak of the profile {plan.gpu.name}, which is not this machine"
    from real.calibration.matmuls import measured_peak

    peak = measured_peak(dtype, threads=plan.scenario.real.threads)
    say(f"matrix multiplies reach {peak / 1e9:.1f} GFLOP/s here on {plan.scenario.real.threads} thread(s), in {dtype}")
    gpu = plan.gpu.model_copy(update={"peak": peak, "peak_fp32": peak})
    return replace(plan, gpu=gpu), False, "measured before this run"
