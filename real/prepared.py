"""What a run is on this machine: its device, its transport, its secrets, and the peak that MFU is a share of."""

import secrets
from collections.abc import Callable
from dataclasses import dataclass, replace

from orionbed.backends import BackendError
from orionbed.fleet.certificates import Authority
from orionbed.plan import Plan, make_plan
from orionbed.training.shape import BYTES_PER_VALUE, ModelShape, parameters_of
from orionbed.training.text import require_text
from real.calibration.devices import find_device
from real.calibration.fitting import MOST_OF_MEMORY, TENSORS_OF_STATE
from real.job import Job, Transport
from real.launch import Layout, layout_of
from real.settings import DeviceKind, as_real, real_shape, refuse
from real.static.checkpoint import key_of


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
    runs = make_plan(as_real(plan), seed)
    device = _device(runs)
    transport = _transport(runs, device)
    shape = real_shape(runs, device)
    require_text(runs.scenario.training.data, shape, seed)
    layout = layout_of(runs)
    for index in layout.ranks(0):
        key_of(runs, index)  # refused here, before any process is started
    if device == "cpu":
        _refuse_too_large(shape, runs, layout)
    runs, of_device, source = _with_peak(runs, device, shape.dtype, say, measure=measure)
    # Between machines what the supervisor is told is encrypted whatever carries tensors.
    encrypts = runs.scenario.network.transport.tls and (transport == "tcp" or layout.num_nodes > 1)
    credentials = Authority().issue("a process of the run") if encrypts else None
    token = secrets.token_hex(16)
    job = Job(runs, seed, shape, device, transport, ("127.0.0.1", 0), token, credentials)
    return Prepared(job, layout, of_device, source)


def _refuse_too_large(shape: ModelShape, plan: Plan, layout: Layout) -> None:
    """Raise BackendError where the processes of this machine would not fit its memory."""
    width = BYTES_PER_VALUE[shape.dtype]
    here = [peer for peer in plan.peers if peer.index in layout.ranks(0)]
    chunks = [chunk for peer in here for chunk in plan.chunks_of(peer.stage)]
    needed = sum(TENSORS_OF_STATE * width * parameters_of(shape, chunk) for chunk in chunks)
    there = find_device("cpu", 1).memory_bytes
    if needed > MOST_OF_MEMORY * there:
        raise BackendError(
            f"{len(here)} processes need {needed / 1e9:.0f} GB for weights, gradients and moments, and this machine "
            f"has {there / 1e9:.0f}; make the model smaller with --set, or use more machines (real.nodes)"
        )


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
