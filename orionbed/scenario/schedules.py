"""Blocks `pipeline.boundary` and `pipeline.schedule`, both told apart by their `kind`."""

from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag

from orionbed.scenario.fields import Block, Count, Duration
from orionbed.scenario.orchestrator import Knowledge, Retry, Store

Recompute = Literal["full", "selective", "none"]
_RECOMPUTE = (
    "What the backward pass computes again: the whole stage forward (`full`, default), attention only (`selective`) "
    "or nothing (`none`)."
)


class NoBoundary(Block):
    """The full activation crosses the boundary."""

    kind: Literal["none"] = Field(description="none: the full activation crosses the boundary.")


class NarrowBoundary(Block):
    """Fewer values per token cross than the residual stream has."""

    kind: str
    width: Count = Field(description="Values per token that cross the boundary; less than `model.hidden`.")

    @property
    def matrix_width(self) -> int | None:
        """`width` if there is one trained matrix to it and one from it, else None."""
        return self.width


class ResBMBoundary(NarrowBoundary):
    """A residual bottleneck (ResBM): encoder and decoder, both beside an identity path, trained with the model."""

    kind: Literal["resbm"] = Field(description="resbm: a trained encoder and decoder at each boundary, beside a cut.")
    encoder: Literal["linear", "mlp"] = Field(
        default="linear",
        description="What encoder and decoder are: one matrix (`linear`, default), or two with SiLU between (`mlp`).",
    )
    encoder_width: Count | None = Field(
        default=None, description="Values between the two matrices of an `mlp` (default null: 4 times `width`)."
    )

    @property
    def inner_width(self) -> int | None:
        """Values between the two matrices of encoder and decoder, or None where there is one."""
        if self.encoder == "linear":
            return None
        return 4 * self.width if self.encoder_width is None else self.encoder_width

    @property
    def matrix_width(self) -> int | None:
        """`width` if encoder and decoder are linear, else None."""
        return self.width if self.encoder == "linear" else None


class BottleneckBoundary(NarrowBoundary):
    """The older bottleneck of IOTA: the layers next to a cut end and begin narrow, trained with the model."""

    kind: Literal["bottleneck"] = Field(
        description="bottleneck: the layers next to a boundary end and begin narrow, as in IOTA before ResBM."
    )


class SubspaceBoundary(NarrowBoundary):
    """Coordinates in a fixed random subspace that all share, not trained."""

    kind: Literal["subspace"] = Field(
        description="subspace: the projection onto a fixed subspace that all boundaries share."
    )

    @property
    def matrix_width(self) -> None:
        """None: nothing is trained."""
        return


class QuantizeBoundary(Block):
    """Activations and gradients are rounded to few bits."""

    kind: Literal["quantize"] = Field(description="quantize: values are rounded to few bits.")
    bits: Annotated[int, Field(ge=1, le=32)] = Field(
        description="Bits per value that crosses the boundary (1 to 32; training for real: 8 or 4)."
    )
    error_feedback: bool = Field(
        default=True,
        description="Whether a sender adds to each tensor what rounding left out of the one before (default true).",
    )


class TopKBoundary(Block):
    """Only the largest values of each token cross the boundary."""

    kind: Literal["topk"] = Field(
        description="topk: only the largest values of each token are sent, with their indices."
    )
    keep: Count = Field(description="Values kept per token; less than `model.hidden`.")
    error_feedback: bool = Field(
        default=False,
        description="Whether a sender adds to each tensor what it left out of the one before (default false).",
    )


Boundary = Annotated[
    NoBoundary | ResBMBoundary | BottleneckBoundary | SubspaceBoundary | QuantizeBoundary | TopKBoundary,
    Field(discriminator="kind"),
]


def _window_tag(value: object) -> str:
    return "=name" if isinstance(value, str) else "=number"


Window = Annotated[
    Annotated[Literal["auto"], Tag("=name")] | Annotated[Count, Tag("=number")], Discriminator(_window_tag)
]


class QueueSchedule(Block):
    """Asynchronous and queue-driven: backward first, forward while fewer than `window` micro-batches are in flight."""

    kind: Literal["queue"] = Field(description="queue: asynchronous, backward first.")
    window: Window = Field(
        default=16,
        description="Micro-batches in flight at one peer at most (default 16), or `auto`: open until the peer has "
        "finished 3 backwards, then the number in flight at that moment.",
    )
    router: Literal["replica", "random", "swarm", "shortest-queue", "fastest"] = Field(
        default="swarm", description="How a peer of the next stage is chosen (default swarm: by free cache and queue)."
    )
    status_every: Annotated[Duration, Field(gt=0)] = Field(
        default=5.0, description="How often peers report their load (default 5 s)."
    )
    local_step_every: Count = Field(
        default=4, description="Backward passes between two local optimizer steps of a peer (default 4)."
    )
    recompute: Recompute = Field(default="full", description=_RECOMPUTE)
    cache_ttl: Duration = Field(
        default=300.0,
        description="Life of a cached activation, times the stages from here to the end (default 300 s).",
    )
    connect_timeout: Duration = Field(default=5.0, description="Wait for a peer that does not answer (default 5 s).")
    attempts: Count = Field(default=5, description="Failed sends after which a micro-batch is given up (default 5).")
    poll_loop: Duration = Field(default=0.010, description="Pause of a peer's loop between two looks (default 10 ms).")
    poll_empty: Duration = Field(default=0.100, description="Pause when the queue was empty (default 100 ms).")
    poll_full: Duration = Field(default=1.0, description="Pause of a peer with a full window (default 1 s).")
    via: Literal["p2p", "object-storage"] = Field(
        default="p2p",
        description="How boundary tensors travel: from peer to peer (`p2p`, default), or uploaded to the object store "
        "and fetched from there (`object-storage`).",
    )
    store: Store = Field(default=Store(), description="How they go through the store, if they do.")
    retry: Retry = Field(default=Retry(), description="What happens to a send that fails.")
    knowledge: Knowledge = Field(
        default="broadcast",
        description="What peers know of one another: the last `broadcast` of each (default; every `status_every`, at "
        "once), or a block: what they last read from a registry that each writes to.",
    )


_MICROBATCHES = "Micro-batches per replica and optimizer step."


class StaticSchedule(Block):
    """A fixed order of operations per peer; one optimizer step per batch of micro-batches."""

    kind: Literal["gpipe", "1f1b", "zb-h1", "zb-h2", "zb-1p", "zb-2p", "zb-v", "dualpipe-v"] = Field(
        description="gpipe, 1f1b, zb-h1, zb-h2, zb-1p, zb-2p, zb-v or dualpipe-v: a fixed order of operations."
    )
    microbatches: Count = Field(description=_MICROBATCHES)
    recompute: Recompute = Field(default="full", description=_RECOMPUTE)


class InterleavedSchedule(Block):
    """1F1B with several pieces of the model per peer."""

    kind: Literal["interleaved-1f1b"] = Field(description="interleaved-1f1b: 1F1B, several pieces of the model a peer.")
    microbatches: Count = Field(description=_MICROBATCHES)
    chunks: Annotated[int, Field(ge=1)] = Field(
        default=2, description="Pieces of the model that each peer holds (default 2)."
    )
    recompute: Recompute = Field(default="full", description=_RECOMPUTE)


class OpportunisticSchedule(Block):
    """Whatever is ready, backward first, within a memory limit."""

    kind: Literal["opportunistic"] = Field(description="opportunistic: whatever is ready, backward first.")
    microbatches: Count = Field(description=_MICROBATCHES)
    memory_limit: Count | None = Field(
        default=None, description="Micro-batches that a peer may hold activations of (default null: all of a step)."
    )
    split_backward: bool = Field(
        default=False,
        description="Whether weight gradients wait until nothing else is ready (default false: backwards are whole).",
    )
    recompute: Recompute = Field(default="full", description=_RECOMPUTE)


class FileSchedule(Block):
    """The order of a CSV file, in the form of PyTorch's pipelining runtime."""

    kind: Literal["csv"] = Field(description="csv: the order that a file lists.")
    file: str = Field(description="Path of the CSV: a row per stage, a cell per action, like 0F0, 0B0, 1I3 or 1W3.")
    recompute: Recompute = Field(default="full", description=_RECOMPUTE)


FixedBatch = StaticSchedule | InterleavedSchedule | OpportunisticSchedule | FileSchedule
"""Schedules with a fixed batch per optimizer step, after which all replicas agree on their gradients."""
Schedule = Annotated[
    QueueSchedule | StaticSchedule | InterleavedSchedule | OpportunisticSchedule | FileSchedule,
    Field(discriminator="kind"),
]
