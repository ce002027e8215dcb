"""Section `real`: which hardware runs the scenario, over what, for how long, and what if a process is lost."""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from orionbed.scenario.emulation import an_address
from orionbed.scenario.fields import Block, Count, Duration, Loc, conflicts


class Real(Block):
    """Settings of the real backend."""

    device: Literal["auto", "cpu", "cuda"] = Field(
        default="auto", description="What computes: `auto` (default) takes GPUs where there are any, else the CPU."
    )
    transport: Literal["auto", "nccl", "gloo", "tcp"] = Field(
        default="auto",
        description="What carries boundary tensors: `auto` (default) is nccl on GPUs and gloo on CPUs with a fixed "
        "batch, tcp for queues; tcp is orionbed's own, for the internet.",
    )
    dtype: Literal["bfloat16", "float32", "float64"] | None = Field(
        default=None,
        description="Number format of weights and activations (default null: model.dtype on GPUs, float32 on CPUs).",
    )
    steps: Count | None = Field(
        default=None,
        description="Optimizer steps that are measured with a fixed batch (default null: to run.tokens or "
        "run.duration).",
    )
    warm_up: Annotated[int, Field(ge=0)] = Field(
        default=1, description="Steps, or with queues micro-batches of each peer, before anything counts (default 1)."
    )
    training: Annotated[Duration, Field(gt=0)] | None = Field(
        default=None,
        description="With queues: length of a training phase, instead of merge.every; without merges of the whole run "
        "(default null: as the scenario says).",
    )
    merges: Annotated[int, Field(ge=0)] | None = Field(
        default=None,
        description="With queues: training phases with merges that the run lasts (default null: to its end).",
    )
    compile: bool = Field(
        default=False,
        description="Whether torch.compile makes the layers of the model (default false); where it cannot, the run "
        "says so and goes on without.",
    )
    threads: Count = Field(default=1, description="Threads of one process on a CPU (default 1).")
    defer_receives: bool = Field(
        default=True,
        description="Whether receives are posted as late as the order allows, with a fixed batch (default true).",
    )
    nodes: Count = Field(
        default=1,
        description="Machines (default 1); those beside this one are started by hand, with the commands that are "
        "printed.",
    )
    listen: Annotated[str, AfterValidator(an_address)] | None = Field(
        default=None,
        description="Where this machine is found by the others, as address and port like 10.0.0.1:7777; the port "
        "after it is used as well (default null: all processes run on this machine).",
    )
    checkpoint: str | None = Field(
        default=None, description="Folder for checkpoints, with a fixed batch (default null: none are written)."
    )
    checkpoint_every: Count = Field(default=10, description="Steps between two checkpoints (default 10).")
    keys: str | None = Field(
        default=None,
        description="Folder with the peers' private keys, to sign checkpoints with and to refuse others' (default "
        "null: they are not signed).",
    )
    restarts: Annotated[int, Field(ge=0)] = Field(
        default=0,
        description="How often a run may go on from its last checkpoint after it has lost a process (default 0); with "
        "queues, how often a peer may be started again.",
    )
    silence: Annotated[Duration, Field(gt=0)] = Field(
        default=20.0,
        description="A process that is not heard of for so long is taken for dead, and the run ends (default 20 s).",
    )
    start_timeout: Annotated[Duration, Field(gt=0)] = Field(
        default=600.0, description="Longest wait for all processes to be there (default 10 min)."
    )
    reference: bool = Field(
        default=False,
        description="Whether one process trains on the same micro-batches afterwards, to hold the weights against it "
        "(default false).",
    )

    @model_validator(mode="after")
    def _can_be_run(self) -> Self:
        problems: list[tuple[Loc, str]] = []
        if self.nodes > 1 and self.listen is None:
            problems.append((("nodes",), "needs `listen`, where the other machines find this one, like 10.0.0.1:7777"))
        if self.transport == "nccl" and self.device == "cpu":
            problems.append((("transport",), "nccl is for GPUs; use gloo or tcp on CPUs"))
        if self.keys is not None and self.checkpoint is None:
            problems.append((("keys",), "is for signing checkpoints; give `checkpoint`, their folder"))
        if problems:
            raise conflicts(problems)
        return self
