"""What model is trained and how it is cut: everything from which pieces, batches and boundary tensors follow."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from orionbed import model as arithmetic
from orionbed.scenario.schedules import (
    BottleneckBoundary,
    Boundary,
    NarrowBoundary,
    NoBoundary,
    QuantizeBoundary,
    TopKBoundary,
)

if TYPE_CHECKING:
    import torch

    from orionbed.plan import Plan

BYTES_PER_VALUE = {"bfloat16": 2, "float32": 4, "float64": 8}
NUMBER_FORMATS = {"bf16": "bfloat16", "fp32": "float32"}
"""By `model.dtype`. fp16 is not among them: without a loss scale, which no peer has, gradients would vanish."""
BITS = (4, 8)
"""What values can be rounded to; the simulator counts the bytes of all others as well."""


@dataclass(frozen=True, slots=True)
class ModelShape:
    """A Llama-style model in pieces, and the micro-batch it is trained on.

    Chunk c holds `layers_per_chunk[c]` layers; the first one also the embedding, the last one the final norm, the head
    and the loss. A micro-batch is `sequences` sequences of `sequence` tokens. A chunk returns and takes
    (sequences, sequence, boundary_width) values: whole activations, or what a narrow `boundary` leaves of them. What
    crosses is `boundary_shape` of `boundary_dtype`: those values, or bytes that they are packed into. No boundary is
    None. With `recompute` a chunk keeps only the inputs of its forward, which its backward does again. `layers`,
    `block` and the like are what `orionbed.model.Transformer` asks for.

    Raises:
        ValueError: the numbers do not fit together.

    """

    layers_per_chunk: tuple[int, ...]
    hidden: int
    ffn: int
    heads: int
    kv_heads: int
    vocab: int
    sequence: int
    sequences: int
    boundary: Boundary | None
    dtype: str = "float32"
    recompute: bool = False

    tied_embeddings: ClassVar[bool] = False
    block: ClassVar[str] = "llama"
    positions: ClassVar[int] = 0
    attention: ClassVar[str] = "flash"

    def __post_init__(self) -> None:
        if not self.layers_per_chunk or min(self.layers_per_chunk) < 0:
            raise ValueError(f"layers_per_chunk must be one count or more, none negative, not {self.layers_per_chunk}")
        for name in ("hidden", "ffn", "heads", "kv_heads", "vocab", "sequence", "sequences"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.hidden % self.heads or self.head_width % 2:
            raise ValueError(
                f"hidden {self.hidden} must be an even multiple of heads {self.heads}: rotation takes pairs"
            )
        if self.heads % self.kv_heads:
            raise ValueError(f"kv_heads {self.kv_heads} must divide heads {self.heads}")
        if isinstance(self.boundary, NoBoundary):
            object.__setattr__(self, "boundary", None)  # one word for one thing
        problem = problem_of(self.boundary, self.hidden, self.layers_per_chunk)
        if problem is not None:
            raise ValueError(problem)
        if self.dtype not in BYTES_PER_VALUE:
            raise ValueError(f"dtype must be one of {', '.join(BYTES_PER_VALUE)}, not '{self.dtype}'")

    @property
    def num_chunks(self) -> int:
        """Pieces the model is cut into."""
        return len(self.layers_per_chunk)

    @property
    def layers(self) -> int:
        """Layers of the whole model."""
        return sum(self.layers_per_chunk)

    @property
    def head_width(self) -> int:
        """Values per token of one attention head."""
        return self.hidden // self.heads

    @property
    def tokens(self) -> int:
        """Tokens of one micro-batch."""
        return self.sequence * self.sequences

    @property
    def boundary_width(self) -> int:
        """Values per token that a chunk hands over to the next, before they are packed."""
        return self.boundary.width if isinstance(self.boundary, NarrowBoundary) else self.hidden

    @property
    def is_packed(self) -> bool:
        """Whether bytes cross instead of values."""
        return isinstance(self.boundary, QuantizeBoundary | TopKBoundary)

    @property
    def boundary_shape(self) -> tuple[int, int, int]:
        """Shape of what crosses from chunk to chunk, activations and their gradients alike."""
        each = BYTES_PER_VALUE[self.dtype]
        across = arithmetic.boundary_token_bytes(self.hidden, each, self.boundary)
        return self.sequences, self.sequence, across if self.is_packed else across // each

    @property
    def boundary_dtype(self) -> "torch.dtype":
        """The number format of what crosses, as torch's."""
        import torch

        return torch.uint8 if self.is_packed else self.torch_dtype

    @property
    def boundary_bytes(self) -> int:
        """Bytes that cross from chunk to chunk for one micro-batch, in either direction."""
        return self.tokens * arithmetic.boundary_token_bytes(self.hidden, BYTES_PER_VALUE[self.dtype], self.boundary)

    @property
    def matrix_width(self) -> int | None:
        """Width of boundaries with one trained matrix on either side, else None."""
        return self.boundary.matrix_width if isinstance(self.boundary, NarrowBoundary) else None

    @property
    def torch_dtype(self) -> "torch.dtype":
        """The number format of weights, activations and gradients as torch's."""
        import torch

        found: torch.dtype = getattr(torch, self.dtype)
        return found

    def is_last(self, chunk: int) -> bool:
        """Whether `chunk` is the last one, which computes the loss."""
        return chunk == self.num_chunks - 1


def parameters_of(shape: ModelShape, chunk: int) -> int:
    """Parameters of one chunk, with the decoder at its entrance and the encoder at its exit."""
    num_ends = (chunk > 0) + (not shape.is_last(chunk))
    whole = arithmetic.stage_parameters(shape, shape.layers_per_chunk)[chunk]
    return whole + num_ends * arithmetic.boundary_end_parameters(shape.hidden, shape.boundary)


def problem_of(boundary: Boundary | None, hidden: int, layers_per_chunk: Sequence[int] = ()) -> str | None:
    """Return why a boundary cannot be trained through in such a model, or None if it can."""
    if isinstance(boundary, NarrowBoundary) and boundary.width > hidden:
        return f"boundary width must be at most hidden {hidden}, not {boundary.width}"
    if isinstance(boundary, TopKBoundary) and boundary.keep > hidden:
        return f"boundary keep must be at most hidden {hidden}, not {boundary.keep}"
    if isinstance(boundary, QuantizeBoundary) and boundary.bits not in BITS:
        return f"boundary bits: values are rounded to {' or '.join(map(str, BITS))} bits, not to {boundary.bits}"
    if isinstance(boundary, BottleneckBoundary) and not all(layers_per_chunk):
        return f"boundary kind bottleneck is made of a layer on either side: no chunk without layers {layers_per_chunk}"
    return None


def own_shape(plan: "Plan", dtype: str) -> ModelShape:
    """Return the shape of the scenario's own model at its true size, in a number format.

    Raises:
        ValueError: its numbers do not fit together.

    """
    scenario = plan.scenario
    model = scenario.model
    return ModelShape(
        layers_per_chunk=plan.split,
        hidden=model.hidden,
        ffn=model.ffn,
        heads=model.heads,
        kv_heads=model.kv_heads,
        vocab=model.vocab,
        sequence=scenario.batch.sequence,
        sequences=scenario.batch.sequences,
        boundary=scenario.pipeline.boundary,
        dtype=dtype,
        recompute=scenario.pipeline.schedule.recompute == "full",
    )
