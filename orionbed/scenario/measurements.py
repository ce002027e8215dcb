"""What `orionbed calibrate` measures of a device: pieces of stages of one shape, and on what they were measured."""

from typing import Annotated, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator

from orionbed.scenario.fields import (
    DATE_PATTERN,
    Block,
    ByteRate,
    Count,
    DataRate,
    Duration,
    Listed,
    Loc,
    Positive,
    conflicts,
)

Piece = Literal["layer", "embedding", "head", "encoder", "decoder"]
NARROWING: tuple[Piece, ...] = ("encoder", "decoder")


class Spread(Block):
    """A time, measured many times over."""

    median: Duration = Field(description="Half of the repetitions took no longer.")
    p5: Duration = Field(description="5 % of the repetitions took no longer.")
    p95: Duration = Field(description="95 % of the repetitions took no longer.")

    @model_validator(mode="after")
    def _rises(self) -> Self:
        if not self.p5 <= self.median <= self.p95:
            raise conflicts([(("median",), "must lie between p5 and p95")])
        return self


class PassTimes(Block):
    """Times of one piece of the model: its forward and the two halves of its backward."""

    forward: Spread = Field(description="Forward pass.")
    input_gradient: Spread = Field(description="Backward pass as far as the gradient of the input.")
    weight_gradient: Spread = Field(description="Gradient of the weights.")


class MeasuredShape(Block):
    """The model, the micro-batch and the number format of a measurement."""

    hidden: Count = Field(description="Width of the residual stream.")
    ffn: Count = Field(description="Inner width of the feed-forward network.")
    heads: Count = Field(description="Attention heads.")
    kv_heads: Count = Field(description="Heads of keys and values.")
    vocab: Count = Field(description="Tokens in the vocabulary.")
    sequence: Count = Field(description="Tokens per sequence.")
    sequences: Count = Field(description="Sequences per micro-batch.")
    boundary: Count | None = Field(
        default=None, description="Width of the narrow boundary tensor (default null: boundaries are not narrowed)."
    )
    dtype: Literal["bf16", "fp16", "fp32"] = Field(description="Number format of weights and activations.")

    @property
    def tokens(self) -> int:
        """Tokens of one micro-batch."""
        return self.sequence * self.sequences


def _null_or_block(value: object) -> str:
    return "=null" if value is None else "=block"


class OptimizerStep(Block):
    """One optimizer step, which per parameter takes longer where caches are too small for it."""

    parameters: Count = Field(description="Parameters of the stage.")
    per_parameter: Spread = Field(description="Time of the step per parameter.")


class MeasuredPieces(Block):
    """Times of the pieces that stages of one shape are put together from."""

    shape: MeasuredShape = Field(description="The shape that was measured.")
    date: str = Field(default="", pattern=DATE_PATTERN, description="Day of the measurement (default empty).")
    pieces: dict[Piece, PassTimes] = Field(
        min_length=1,
        description="Times by piece: `layer`, `embedding`, `head` (final norm, logits and loss), and the boundary's "
        "`encoder` and `decoder`.",
    )
    optimizer: Annotated[tuple[OptimizerStep, ...], Listed] = Field(
        default=(),
        description="Optimizer steps over so many parameters, rising (default: none); in between interpolated in their "
        "logarithm.",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        problems: list[tuple[Loc, str]] = []
        if self.shape.boundary is None:
            text = "needs `shape.boundary`, the width it narrows to"
            problems += [(("pieces", piece), text) for piece in NARROWING if piece in self.pieces]
        sizes = [step.parameters for step in self.optimizer]
        problems += [
            (("optimizer", index, "parameters"), "must rise from entry to entry")
            for index in range(1, len(sizes))
            if sizes[index] <= sizes[index - 1]
        ]
        if problems:
            raise conflicts(problems)
        return self


class Measurement(Block):
    """On what a profile was measured, and what else was measured beside the pieces. For readers; nothing uses it."""

    device: str = Field(min_length=1, description="Name of the device.")
    clock: str = Field(default="", description="Its clocks while it was measured, in words (default empty).")
    threads: Count = Field(default=1, description="Threads on a CPU (default 1).")
    date: str = Field(pattern=DATE_PATTERN, description="Day of the measurement.")
    python: str = Field(default="", description="Version of Python (default empty).")
    torch: str = Field(default="", description="Version of torch (default empty).")
    cuda: str = Field(default="", description="Version of CUDA (default empty: none).")
    loopback: Annotated[DataRate, Field(gt=0)] | None = Field(
        default=None, description="Rate of one TCP connection of the machine to itself (default null: not measured)."
    )
    loopback_delay: Duration | None = Field(
        default=None, description="Half the round trip of a small message over it (default null: not measured)."
    )
    to_device: Annotated[ByteRate, Field(gt=0)] | None = Field(
        default=None, description="Rate of copies from pinned memory to the device (default null: not measured)."
    )
    to_host: Annotated[ByteRate, Field(gt=0)] | None = Field(
        default=None, description="Rate of copies from the device to pinned memory (default null: not measured)."
    )
    recompute_factor: Positive | None = Field(
        default=None,
        description="What a backward that does the forward again takes longer, in forwards (default null: not "
        "measured); the model says 1.",
    )


MeasurementOrNull = Annotated[
    Annotated[None, Tag("=null")] | Annotated[Measurement, Tag("=block")], Discriminator(_null_or_block)
]
