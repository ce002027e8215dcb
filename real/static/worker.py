"""What one process of a pipeline does: it joins the others, trains step after step, and reports each."""

import base64
import time
from collections.abc import Callable
from datetime import timedelta
from math import ceil, inf
from typing import TYPE_CHECKING, Any, Final

from orionbed.fleet.reaching import own_address
from real.job import Job
from real.launch import layout_of
from real.line import Line, introduced, offset_s
from real.static.reports import StepReport

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

    from real.static.checkpoint import Checkpoints
    from real.static.training import PipelineTraining

PATIENCE: Final = timedelta(minutes=30)
"""Longest wait for a message of another process that is alive; those that are dead are found by the supervisor."""
ESTIMATED_FROM: Final = 2
"""Measured steps from which on it is estimated how many fit into run.duration."""


def run(job: Job, rank: int, local_rank: int, life: int) -> None:
    """Be a process until the run is over."""
    with introduced(job, rank, life) as line:
        _Worker(job, rank, local_rank, life, line).run()


class _Worker:
    """One process of one life. Seconds are those of the run; second 0 is when the first measured step began."""

    def __init__(self, job: Job, rank: int, local_rank: int, life: int, line: Line) -> None:
        self.job, self.plan, self.rank, self.line = job, job.plan, rank, line
        self.local_rank, self.life = local_rank, life
        self.block = job.plan.scenario.real
        self.me = job.plan.peers[rank]
        self.offset_s = self.uncertain_s = self.origin_s = 0.0
        self.num_steps = self._num_steps()

    def _num_steps(self) -> float:
        """Return the steps to measure, as far as tokens say; infinite when only time does."""
        plan = self.plan
        assert plan.order is not None
        tokens = plan.scenario.run.tokens
        per_step = plan.order.num_microbatches * plan.num_replicas * plan.tokens_per_microbatch
        return inf if tokens is None else ceil(tokens / per_step)

    def now_s(self) -> float:
        """Return the second of the run, on the supervisor's clock."""
        return time.monotonic() + self.offset_s - self.origin_s

    def run(self) -> None:
        """Join, train, report, leave."""
        import torch.distributed as dist

        self._join()
        try:
            training = self._training()
            self._train(training)
            final = self._final(training)
        finally:
            dist.destroy_process_group()
        self.line.tell_last(final)

    # ---------------------------------------------------------------- joining

    def _join(self) -> None:
        import torch.distributed as dist

        from real.devices import Device

        self.device = Device.choose(self.job.device, self.local_rank, threads=self.block.threads)
        self.line.doing = "joining the others"
        # Over gloo everything else is agreed on; boundary tensors have groups of their own.
        store, rank, world = next(dist.rendezvous("env://", timeout=PATIENCE))  # type: ignore[attr-defined]
        # torchrun's store outlives the processes, and in it the addresses of those that are gone.
        store = dist.PrefixStore(f"life/{self.life}", store)  # type: ignore[attr-defined]
        dist.init_process_group("gloo", store=store, rank=rank, world_size=world, timeout=PATIENCE)
        if rank not in layout_of(self.plan).ranks(0):
            self.offset_s, self.uncertain_s = offset_s(self.line)

    def _group(self, members: Callable[[int], bool]) -> "ProcessGroup":
        """Return the group of all peers that `members` wants; every process must ask for every group."""
        import torch.distributed as dist

        ranks = [peer.index for peer in self.plan.peers if members(peer.index)]
        group: ProcessGroup = dist.new_group(ranks, timeout=PATIENCE, backend=self._backend())
        return group

    def _backend(self) -> str:
        if self.job.transport != "tcp":
            return self.job.transport
        from orionbed.transport.group import BACKEND, register

        register(self.job.token.encode(), self.job.credentials, own_address(self.job.control[0]))
        return BACKEND

    def _training(self) -> "PipelineTraining":
        from real.static.training import PipelineTraining

        plan, peers = self.plan, self.plan.peers
        assert plan.order is not None
        synced = not isinstance(plan.scenario.sync, str) and plan.num_replicas > 1
        pipelines = [self._group(lambda i, r=r: peers[i].replica == r) for r in range(plan.num_replicas)]  # type: ignore[misc]
        stages = []
        if synced:
            stages = [self._group(lambda i, s=s: peers[i].stage == s) for s in range(plan.num_stages)]  # type: ignore[misc]
        self.line.doing = "making its pieces of the model"
        return PipelineTraining(
            self.job.shape,
            plan.order,
            stage=self.me.stage,
            replica=self.me.replica,
            num_replicas=plan.num_replicas,
            pipeline_group=pipelines[self.me.replica],
            replica_group=stages[self.me.stage] if synced else None,
            device=self.device,
            clock=self.now_s,
            seed=self.job.seed,
            optimizer=plan.scenario.training.optimizer,
            batches=self.job.batches,
            recompute=plan.scenario.pipeline.schedule.recompute,
            compile_blocks=self.block.compile,
            defer_receives=self.block.defer_receives,
        )

    # ---------------------------------------------------------------- training

    def _train(self, training: "PipelineTraining") -> None:
        checkpoints = self._checkpoints()
        step = self._resumed(training, checkpoints)
        begun = False
        while step - self.block.warm_up < self.num_steps:
            measured = step - self.block.warm_up
            if measured >= 0 and not begun:
                self._begin(measured)
                begun = True
            self._step(training, step, measured)
            step += 1
            if checkpoints is not None and step % self.block.checkpoint_every == 0:
                checkpoints.write(step, training.flat)
            self._estimate(measured)

    def _step(self, training: "PipelineTraining", step: int, measured: int) -> None:
        def doing(action: str) -> None:
            self.line.at(f"{action} of step {step}")

        report: StepReport = training.step(step, doing)
        if measured >= 0:
            self.line.tell(StepReport(measured, report.operations, report.sync_s, report.losses).as_message())

    def _checkpoints(self) -> "Checkpoints | None":
        if self.block.checkpoint is None:
            return None
        from real.static.checkpoint import Checkpoints

        return Checkpoints.of(self.plan, self.job.seed, self.rank)

    def _resumed(self, training: "PipelineTraining", checkpoints: "Checkpoints | None") -> int:
        """Go on from the last version that all processes have kept; return the step to go on with."""
        if checkpoints is None:
            return 0
        import torch.distributed as dist

        from real.static.checkpoint import newest_common

        self.line.doing = "looking for a checkpoint"
        known: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(known, checkpoints.versions())
        version = newest_common(known)
        if version:
            checkpoints.read(version, training.flat)
        return version

    def _begin(self, measured: int) -> None:
        """Let second 0 be now, or where it was when an earlier life of the processes began."""
        import torch.distributed as dist

        told = self.line.ask_clock()["origin_s"]
        dist.barrier()
        origin: list[Any] = [time.monotonic() + self.offset_s if told is None else told]
        dist.broadcast_object_list(origin, src=0)
        self.origin_s = float(origin[0])
        if self.rank == 0:
            self.line.tell({"t": "began", "origin_s": self.origin_s, "step": measured})

    def _estimate(self, measured: int) -> None:
        """Agree once on how many steps fit into the run's duration."""
        import torch.distributed as dist

        duration_s = self.plan.scenario.run.duration
        if duration_s is None or measured + 1 != ESTIMATED_FROM:
            return
        fits: list[Any] = [max(measured + 1, ceil(duration_s / (self.now_s() / (measured + 1))))]
        dist.broadcast_object_list(fits, src=0)
        self.num_steps = min(self.num_steps, fits[0])

    def _final(self, training: "PipelineTraining") -> dict[str, Any]:
        found: dict[str, Any] = {
            "t": "final",
            "device": self.device.describe(),
            "peak_memory_bytes": self.device.peak_memory_bytes(),
            "receive_buffer_bytes": training.receive_buffer_bytes,
            "weights_hash": training.flat.weights_hash(),
            "clock_uncertain_s": self.uncertain_s,
            "warnings": training.warnings,
        }
        if self.block.reference:
            from orionbed.training.parameters import to_bytes

            found["weights"] = base64.b64encode(to_bytes(training.flat.weights)).decode()
        return found
