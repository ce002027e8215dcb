"""What model is trained and how it is cut: everything from which pieces, batches and boundary tensors follow."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from orionbed import model as arithmetic

if TYPE_CHECKING:
    import torch

BYTES_PER_VALUE = {"bfloat16": 2, "float32": 4, "float64": 8}


@dataclass(frozen=True, slots=True)
class ModelShape:
    """A Llama-style model in pieces, and the micro-batch it is trained on.

    Chunk c holds `layers_per_chunk[c]` layers; the first one also the embedding, the last one the final norm, the head
    and the loss. A micro-batch is `sequences` sequences of `sequence` tokens. Between chunks crosses a tensor of shape
    (sequences, sequence, boundary_width): the whole activation, or with `boundary` one of that width, which the sender
    encodes and the receiver decodes. With `recompute` a chunk keeps only the inputs of its forward, which its backward
    does again. `layers`, `block` and the like are what `orionbed.model.Transformer` asks for.

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
    boundary: int | None
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
        if self.boundary is not None and not 1 <= self.boundary <= self.hidden:
            raise ValueError(f"boundary must lie between 1 and hidden {self.hidden}, not {self.boundary}")
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
        """Values per token that cross from chunk to chunk."""
        return self.hidden if self.boundary is None else self.boundary

    @property
    def boundary_shape(self) -> tuple[int, int, int]:
        """Shape of what crosses from chunk to chunk, activations and their gradients alike."""
        return self.sequences, self.sequence, self.boundary_width

    @property
    def boundary_bytes(self) -> int:
        """Bytes that cross from chunk to chunk for one micro-batch, in either direction."""
        return self.tokens * self.boundary_width * BYTES_PER_VALUE[self.dtype]

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
    count = arithmetic.stage_parameters(shape, shape.layers_per_chunk)[chunk]
    if shape.boundary is not None:
        num_ends = (chunk > 0) + (not shape.is_last(chunk))
        count += num_ends * shape.hidden * shape.boundary
    return count
