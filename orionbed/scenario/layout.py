"""Sections `model`, `batch`, `pipeline` and `peers`: what is trained, and how it is cut into stages and replicas."""

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator

from orionbed.scenario.distributions import Constant, NumberDist
from orionbed.scenario.fields import (
    Block,
    ByteRate,
    Count,
    Duration,
    Listed,
    Loc,
    NotNegative,
    Positive,
    conflicts,
)
from orionbed.scenario.groups import Efficiency, Group
from orionbed.scenario.schedules import Boundary, NoBoundary, Schedule


class Optimizer(Block):
    """What the inner optimizer keeps in memory."""

    name: str = Field(default="nadam", description="Name of the inner optimizer, for the report (default nadam).")
    state_bytes_per_parameter: Count = Field(
        default=8,
        description="Bytes per parameter of weights, gradients and both moments together (default 8: all in bf16).",
    )


class Model(Block):
    """A decoder-only transformer of the Llama or the GPT family."""

    layers: Count = Field(description="Number of transformer layers.")
    hidden: Count = Field(description="Width of the residual stream (values per token).")
    ffn: Count = Field(
        description="Inner width of the feed-forward network (SwiGLU, three matrices; in gpt blocks GELU, two)."
    )
    heads: Count = Field(description="Number of attention heads; must divide `hidden`.")
    kv_heads: Count = Field(description="Number of key/value heads; must divide `heads`.")
    vocab: Count = Field(description="Number of tokens in the vocabulary.")
    block: Literal["llama", "gpt"] = Field(
        default="llama",
        description="What a layer is: `llama` (default; RMSNorm, SwiGLU, no biases) or `gpt` (LayerNorm, GELU, "
        "dropout, biases).",
    )
    positions: Annotated[int, Field(ge=0)] = Field(
        default=0, description="Rows of the table of learned position embeddings (default 0: none)."
    )
    attention: Literal["flash", "unfused"] = Field(
        default="flash",
        description="`flash` (default): one fused causal kernel; `unfused`: scores, softmax, dropout and context one "
        "after the other over the full square.",
    )
    tied_embeddings: bool = Field(
        default=False, description="Whether the output head shares the embedding's weights (default false)."
    )
    dtype: Literal["bf16", "fp16", "fp32"] = Field(
        default="bf16", description="Number format of weights and activations: bf16 (default), fp16 or fp32."
    )
    optimizer: Optimizer = Field(default=Optimizer(), description="The inner optimizer, for the memory it needs.")

    @model_validator(mode="after")
    def _check(self) -> Self:
        problems: list[tuple[Loc, str]] = []
        if self.block == "llama" and self.positions:
            problems.append((("positions",), "are learned only in gpt blocks; remove the key, or use block: gpt"))
        if self.block == "llama" and self.attention == "unfused":
            problems.append((("attention",), "is known step by step only for gpt blocks; use flash, or block: gpt"))
        if self.hidden % self.heads:
            problems.append(
                (
                    ("heads",),
                    f"{self.heads} heads do not divide hidden {self.hidden}; choose a divisor of {self.hidden}",
                )
            )
        if self.heads % self.kv_heads:
            problems.append(
                (("kv_heads",), f"{self.kv_heads} does not divide heads {self.heads}; choose a divisor of {self.heads}")
            )
        if problems:
            raise conflicts(problems)
        return self


class Batch(Block):
    """One micro-batch."""

    sequence: Count = Field(description="Tokens per sequence.")
    sequences: Count = Field(description="Sequences per micro-batch.")

    @property
    def tokens(self) -> int:
        """Tokens of one micro-batch."""
        return self.sequence * self.sequences


def _split_tag(value: Any) -> str:
    return "=layers" if isinstance(value, list | tuple) else "=name"


Split = Annotated[
    Annotated[Literal["balanced", "by-speed"], Tag("=name")] | Annotated[tuple[Count, ...], Listed, Tag("=layers")],
    Discriminator(_split_tag),
]


class Pipeline(Block):
    """How the model is cut into stages, what crosses their boundaries and who works when."""

    stages: Count = Field(description="Number of pipeline stages.")
    replicas: Count = Field(description="Number of peers that hold each stage.")
    split: Split = Field(
        default="balanced",
        description="Layers per stage: `balanced` (default), `by-speed` (as many as the stage's peers are fast, within "
        "their memory), or a list with one number per stage.",
    )
    boundary: Boundary = Field(
        default=NoBoundary(kind="none"), description="What crosses a stage boundary (default: the full activation)."
    )
    schedule: Schedule = Field(description="The schedule policy and its parameters.")


def _per_chunk_tag(value: Any) -> str:
    return "=list" if isinstance(value, list | tuple) else "=duration"


PerChunk = Annotated[
    Annotated[Duration, Tag("=duration")] | Annotated[tuple[Duration, ...], Listed, Field(min_length=1), Tag("=list")],
    Discriminator(_per_chunk_tag),
]


class Measured(Block):
    """Times of one micro-batch, measured on the real machine."""

    forward: PerChunk = Field(
        description="Forward pass: one time for a whole stage, of which its pieces take equal shares, or a list with "
        "one per piece of the model."
    )
    input_gradient: PerChunk = Field(description="Backward pass as far as the gradient of the input, likewise.")
    weight_gradient: PerChunk = Field(description="Gradient of the weights, likewise.")

    def at(self, chunk: int, chunks_per_stage: int) -> tuple[float, float, float]:
        """Seconds of forward, input gradient and weight gradient of a chunk, counted along the model from 0."""
        forward, inputs, weights = (
            time[chunk] if isinstance(time, tuple) else time / chunks_per_stage
            for time in (self.forward, self.input_gradient, self.weight_gradient)
        )
        return forward, inputs, weights


def _measured_tag(value: Any) -> str:
    return "=null" if value is None else "=block"


MeasuredOrNull = Annotated[
    Annotated[None, Tag("=null")] | Annotated[Measured, Tag("=block")], Discriminator(_measured_tag)
]


# In a file null takes back what a parent says.
_Name = Annotated[str, BeforeValidator(lambda value: "" if value is None else value, json_schema_input_type=str | None)]
_Count = Annotated[int, Field(ge=0)]
_Counts = Annotated[
    dict[str, _Count],
    BeforeValidator(lambda value: {} if value is None else value, json_schema_input_type=dict[str, _Count] | None),
]


class Peers(Block):
    """The machines, placed on sites: one GPU each, or several that share a stage."""

    gpu: _Name = Field(
        default="",
        description="Name of a GPU profile, a file in scenarios/gpus without its ending; null (default) where there "
        "are `groups`.",
    )
    groups: Annotated[tuple[Group, ...], Listed] = Field(
        default=(),
        description="Peers of several kinds, in place of `gpu` and `sites`; what a group does not say is as for all "
        "(default: none, all peers are alike).",
    )
    assignment: Literal["in-order", "balanced"] = Field(
        default="in-order",
        description="Which peer gets which stage: `in-order` (default; as `placement` has them), or `balanced`, so "
        "that the peers of every stage are together about as fast for their work, and have the memory for it.",
    )
    efficiency: Efficiency = Field(
        default="by-shape",
        description="Share of peak inside a stage: `by-shape` (default; the GPU profile's) or one number in (0, 1].",
    )
    gpus: Count = Field(
        default=1, description="GPUs of one peer, over which its stage is cut by tensor parallelism (default 1)."
    )
    gpu_link: Annotated[ByteRate, Field(gt=0)] | None = Field(
        default=None,
        description="Rate between the GPUs of one peer, one direction, like 100 GB/s (default null: the profile's).",
    )
    sequence_parallel: bool = Field(
        default=False,
        description="Whether norms, dropout and residuals are cut over the GPUs of a peer too (default false).",
    )
    overlap_collectives: bool = Field(
        default=True,
        description="Whether all-reduces of the backward between the GPUs of a peer run beside the gradients of the "
        "weights (default true).",
    )
    measured: MeasuredOrNull = Field(
        default=None,
        description="Seconds per micro-batch measured on the real machine, used instead of the cost model "
        "(default null).",
    )
    kernel_scale: Positive = Field(
        default=1.0,
        description="Factor on the speed of all kernels, for hosts slower than the profile (default 1).",
    )
    sites: _Counts = Field(
        default={},
        description="Number of peers on each site; they add up to stages x replicas; null (default) where there are "
        "`groups`.",
    )
    placement: Literal["spread", "grouped", "packed"] = Field(
        default="spread",
        description="`spread` (default) puts neighbouring stages on different sites, `grouped` keeps them together, "
        "`packed` keeps the replicas of a stage together.",
    )
    rebalance_every: Annotated[Duration, Field(gt=0)] | None = Field(
        default=None,
        description="How often the stage with most peers gives one to the stage with fewest (default null: peers "
        "stay); for the queue-driven schedule.",
    )
    rejoin: Literal["own", "random", "poorest"] = Field(
        default="own",
        description="The stage that a peer comes back to: its `own` (default), a `random` one, or the `poorest` in "
        "peers; the latter two for the queue-driven schedule.",
    )
    speed: NumberDist = Field(
        default=Constant[NotNegative](value=1.0),
        description="Compute speed factor of each peer (default 1), drawn once.",
    )
    jitter: NotNegative = Field(
        default=0.0, description="Coefficient of variation of the time one operation takes (default 0)."
    )
    overhead: Duration = Field(default=0.0, description="Host time that every operation takes besides (default 0 s).")

    @model_validator(mode="after")
    def _one_kind_or_groups(self) -> Self:
        given = {"gpu": bool(self.gpu), "sites": any(self.sites.values())}
        problems: list[tuple[Loc, str]] = []
        for name, is_given in given.items():
            if self.groups and is_given:
                text = f"is for peers that are all alike, but there are `groups`; write {name}: null"
                problems.append(((name,), text))
            elif not self.groups and name == "sites" and name in self.model_fields_set and not self.sites:
                problems.append(((name,), "must not be empty"))
            elif not self.groups and not is_given and name not in self.model_fields_set:
                what = "name of a GPU profile" if name == "gpu" else "number of peers on each site"
                problems.append(((name,), f"is missing; add `{name}` ({what}), or describe the peers by `groups`"))
        if self.groups and self.measured is not None:
            problems.append((("measured",), "are times of one kind of machine, but there are `groups`; write null"))
        if problems:
            raise conflicts(problems)
        return self

    @property
    def counts(self) -> dict[str, int]:
        """Number of peers on each site, over all groups; sites without any left out."""
        found = {site: count for site, count in self.sites.items() if count}
        for group in self.groups:
            for site, count in group.places.items():
                found[site] = found.get(site, 0) + count
        return found

    @property
    def gpu_names(self) -> list[str]:
        """The GPU profiles of all peers, each once."""
        return list(dict.fromkeys(group.gpu for group in self.groups)) or [self.gpu]
