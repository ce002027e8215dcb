"""Sections `sync`, `datacenter`, `cost`, `run`, `report` and `published`."""

from typing import Annotated, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator

from orionbed.scenario.fields import (
    DATE_PATTERN,
    KEY_PATTERN,
    Block,
    Count,
    DataRate,
    Duration,
    Fraction,
    Listed,
    MoneyPerGB,
    MoneyPerHour,
    Positive,
    conflicts,
    none_or,
)
from orionbed.scenario.schedules import Recompute

_Some = Annotated[Duration, Field(gt=0)]


class Sync(Block):
    """How the replicas of a stage agree on gradients, step by step or every so many steps (DiLoCo)."""

    algorithm: Literal["ring", "tree", "sharded-ps", "central-ps", "gather"] = Field(
        default="ring",
        description="ring (default) or tree all-reduce, sharded or central parameter server, or gather: everybody "
        "uploads to the object store and downloads all others.",
    )
    every: Count = Field(
        default=1, description="Optimizer steps between two syncs (default 1: gradients, each step; more: local SGD)."
    )
    bits: Annotated[float, Field(gt=0, le=64)] = Field(
        default=32.0, description="Bits per parameter on the wire (default 32; 8 for int8, 0.21875 for SparseLoCo)."
    )
    fragments: Count = Field(
        default=1, description="Parts of a stage that are synced in turn, every/fragments steps apart (default 1)."
    )
    overlap: bool = Field(
        default=False,
        description="Whether a sync hides behind work (default false): with `every: 1` behind the last backward, in "
        "`buckets` pieces; otherwise behind the next `behind` steps.",
    )
    buckets: Count = Field(
        default=8,
        description="Pieces of a stage's gradients that are sent as the last backward gives them (default 8).",
    )
    behind: Count = Field(
        default=1, description="Steps that may pass before an overlapped sync of local SGD must be through (default 1)."
    )
    compute: Duration = Field(
        default=0.0,
        description="Time to encode, decode and average what one sync moves; buckets share it, each fragment takes it "
        "anew (default 0 s).",
    )

    @model_validator(mode="after")
    def _check_fragments(self) -> Self:
        if self.every % self.fragments:
            text = f"{self.fragments} fragments do not divide every {self.every}; choose a divisor of {self.every}"
            raise conflicts([(("fragments",), text)])
        return self


SyncOrNone = Annotated[
    Annotated[Literal["none"], Tag("=none")] | Annotated[Sync, Tag("=block")], Discriminator(none_or)
]


class Baseline(Block):
    """A published datacenter run to compare with."""

    mfu: Annotated[Fraction, Field(gt=0)] = Field(description="Model FLOPs utilisation of the baseline (0 to 1).")
    source: str = Field(min_length=1, description="Where the number was published.")


class Datacenter(Block):
    """The same training in one datacenter, simulated by the same code, as the baseline for relative speed."""

    link: Annotated[DataRate, Field(gt=0)] = Field(description="Rate between two GPUs in each direction, like 25 GB/s.")
    delay: Duration = Field(description="One-way delay between two GPUs, like 5 us.")
    recompute: Recompute = Field(
        default="selective", description="What the backward pass computes again there (default selective)."
    )
    horizon: _Some = Field(default=2 * 3600.0, description="How long the baseline is simulated (default 2 h).")
    published: dict[str, Baseline] = Field(default={}, description="Published baselines to compare with, by name.")


class Cost(Block):
    """Prices in US dollars."""

    gpu_hour: MoneyPerHour = Field(description="Price of one peer's GPU, like $1.25/h.")
    egress_per_gb: MoneyPerGB = Field(description="Price of what peers send, like $0.09/GB (1e9 bytes).")
    storage_egress_per_gb: MoneyPerGB = Field(
        default=0.0, description="Price of what is read from the object store (default $0/GB)."
    )
    datacenter_gpu_hour: MoneyPerHour | None = Field(
        default=None, description="Price of one GPU in the datacenter (default null: not compared)."
    )
    pay_absent: bool = Field(
        default=True,
        description="Whether peers are paid while they are away (default true); liquid ones that left never are.",
    )
    prices_as_of: str = Field(
        default="", pattern=DATE_PATTERN, description="Month or day of the prices, like 2026-06 (default empty)."
    )


class Run(Block):
    """How long, how random, and what is kept."""

    tokens: Positive | None = Field(default=None, description="Stop after this many trained tokens (default null).")
    duration: _Some | None = Field(default=None, description="Stop after this time (default null).")
    seed: Annotated[int, Field(ge=0)] = Field(default=0, description="Seed of all random streams (default 0).")
    startup: Duration = Field(default=0.0, description="Time from having the first weights to training (default 0 s).")
    trace: Literal["full", "window", "summary"] = Field(
        default="window", description="What the trace keeps: everything, a window (default) or nothing but sums."
    )
    trace_from: Duration = Field(default=1800.0, description="Start of the trace window (default 30 min).")
    trace_for: _Some = Field(default=180.0, description="Length of the trace window (default 3 min).")
    peak_window: _Some = Field(default=6 * 3600.0, description="Window of the sustained peak of MFU (default 6 h).")
    samples_horizon: _Some = Field(
        default=8 * 3600.0, description="How long each draw of `run --samples` is simulated (default 8 h)."
    )

    @model_validator(mode="after")
    def _check_end(self) -> Self:
        if self.tokens is None and self.duration is None:
            raise conflicts([((), "needs `tokens` or `duration`; give at least one so that the run ends")])
        return self


class Report(Block):
    """What the report computes besides the run itself."""

    uplinks: Annotated[tuple[Annotated[DataRate, Field(gt=0)], ...], Listed] = Field(
        default=(1e7, 2e7, 5e7, 1e8, 2e8, 4e8, 8.56e8, 1.6e9, 3.2e9, 1e10),
        description="Median uplinks of the bandwidth curve (default 10 Mbps to 10 Gbps); an empty list: no curve.",
    )
    horizon: _Some = Field(
        default=75 * 60.0, description="How long each point of the curve is simulated (default 75 min)."
    )


class Published(Block):
    """A published number that the run is compared with."""

    quantity: str = Field(pattern=KEY_PATTERN, description="Dotted key of summary.json, like mfu.in_phase.")
    value: float = Field(description="The published value, in the unit of summary.json (fractions 0 to 1, SI).")
    source: str = Field(min_length=1, description="Where it was published.")
    kind: Literal["input", "prediction", "reading"] = Field(
        default="prediction",
        description="`prediction` (default): the run predicts it; `input`: the scenario was built from it; `reading`: "
        "only held against the other published figures.",
    )
    note: str = Field(default="", description="A remark for the report (default empty).")
