"""Transformer arithmetic: parameters, FLOPs, boundary bytes and memory, per layer and per stage.

A block is the Llama-3 one (grouped-query attention without biases, a SwiGLU feed-forward of three matrices and two
RMSNorms) or the GPT one (biases everywhere, a GELU feed-forward of two matrices and two LayerNorms, learned positions);
embedding and head are separate unless tied. Every count of parameters and FLOPs is exact integer arithmetic.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from orionbed.scenario.schedules import Boundary

BYTES_PER_VALUE = {"bf16": 2, "fp16": 2, "fp32": 4}


class Transformer(Protocol):
    """What the arithmetic needs to know of a model (the scenario's `model` block is one)."""

    @property
    def layers(self) -> int: ...
    @property
    def hidden(self) -> int: ...
    @property
    def ffn(self) -> int: ...
    @property
    def heads(self) -> int: ...
    @property
    def kv_heads(self) -> int: ...
    @property
    def vocab(self) -> int: ...
    @property
    def tied_embeddings(self) -> bool: ...
    @property
    def dtype(self) -> str: ...
    @property
    def block(self) -> str: ...
    @property
    def positions(self) -> int: ...
    @property
    def attention(self) -> str: ...


def kv_width(model: Transformer) -> int:
    """Width of the keys (and of the values): kv_heads x head dimension."""
    return model.kv_heads * (model.hidden // model.heads)


def layer_parameters(model: Transformer) -> int:
    """Parameters of one block: q, k, v, o, three feed-forward matrices and two norms; GPT has two, and biases."""
    attention = 2 * model.hidden**2 + 2 * model.hidden * kv_width(model)
    if model.block == "gpt":
        biases = 2 * model.hidden + 2 * kv_width(model) + model.ffn + model.hidden
        return attention + 2 * model.hidden * model.ffn + biases + 2 * norm_parameters(model)
    return attention + 3 * model.hidden * model.ffn + 2 * norm_parameters(model)


def norm_parameters(model: Transformer) -> int:
    """Parameters of one norm: a weight per value, and in a LayerNorm a bias."""
    return 2 * model.hidden if model.block == "gpt" else model.hidden


def embedding_parameters(model: Transformer) -> int:
    """Parameters of the table of tokens (the head has as many)."""
    return model.vocab * model.hidden


def position_parameters(model: Transformer) -> int:
    """Parameters of the table of learned positions, which stands beside that of tokens."""
    return model.positions * model.hidden


def num_parameters(model: Transformer) -> int:
    """All parameters of the model, without boundary encoders and decoders."""
    tables = (1 if model.tied_embeddings else 2) * embedding_parameters(model) + position_parameters(model)
    return model.layers * layer_parameters(model) + tables + norm_parameters(model)


def stage_parameters(model: Transformer, split: Sequence[int]) -> list[int]:
    """Parameters of each stage for a split of layers.

    The first stage holds the embeddings, the last one the final norm and the head. A tied table is needed at both ends
    of the pipeline, so with more than one stage it is counted on both.
    """
    counts = [num_layers * layer_parameters(model) for num_layers in split]
    counts[0] += embedding_parameters(model) + position_parameters(model)
    counts[-1] += norm_parameters(model)
    if not model.tied_embeddings or len(split) > 1:
        counts[-1] += embedding_parameters(model)
    return counts


def balanced_split(model: Transformer, num_stages: int) -> list[int]:
    """Layers per stage so that the fullest stage is as small as it can be.

    The embedding and the head count as so many layers as they have parameters. Layers go one at a time to the stage
    that stays lightest; ties go to the earliest stage, and to the first stage last. This meets every split published
    in the IOTA configurations: [4, 6 x 12, 5, 5, 4] (100B), [3, 4 x 21, 3] (100B in 23), [8, 11, 11, 11, 9] (15B)
    and [4, 8, 4] (1.5B).
    """
    end_load = embedding_parameters(model) / layer_parameters(model)
    load = [0.0] * num_stages
    load[0] += end_load
    load[-1] += end_load
    split = [0] * num_stages
    for _ in range(model.layers):
        stage = min(range(num_stages), key=lambda s: (load[s] + 1.0, s == 0, s))
        split[stage] += 1
        load[stage] += 1.0
    return split


def flops_per_token(model: Transformer) -> int:
    """Training FLOPs per token in the 6N convention, N being all parameters (forward 2N, backward 4N)."""
    return 6 * num_parameters(model)


def attention_flops_per_token(model: Transformer, sequence: int) -> int:
    """Training FLOPs per token of causal attention scores and values: 6 x layers x hidden x sequence.

    Forward is 2 x 2 x hidden x sequence per layer without a mask; the causal mask halves it; backward doubles it
    (Korthikanti et al., arXiv 2205.05198, halved for the mask).
    """
    return 6 * model.layers * model.hidden * sequence


def executed_flops_per_token(model: Transformer, split: Sequence[int], recompute: str, *, last_recomputes: bool) -> int:
    """FLOPs per token the pipeline executes: 6N, and 2 more per parameter of each stage that recomputes its forward.

    A queue-driven last stage runs forward, loss and backward in one go, so it has nothing to recompute.
    """
    total = flops_per_token(model)
    if recompute == "full":
        parameters = stage_parameters(model, split)
        total += 2 * sum(parameters if last_recomputes else parameters[:-1])
    return total


SCALE_BYTES = 4  # quantize: one fp32 scale per token


def boundary_bytes(tokens: int, hidden: int, dtype: str, boundary: "Boundary | None") -> int:
    """Bytes of one boundary tensor; `None` is the plain tensor tokens x hidden."""
    return tokens * boundary_token_bytes(hidden, BYTES_PER_VALUE[dtype], boundary)


def boundary_token_bytes(hidden: int, value_bytes: int, boundary: "Boundary | None") -> int:
    """Bytes of one token that cross a boundary, where a value of the residual stream has `value_bytes`.

    Quantize: whole bytes of rounded values and a scale. Topk: values as they are, each with its index.
    """
    if boundary is None or boundary.kind == "none":
        return hidden * value_bytes
    if boundary.kind == "quantize":
        return SCALE_BYTES - (-hidden * boundary.bits // 8)
    if boundary.kind == "topk":
        return boundary.keep * (value_bytes + index_bytes(hidden))
    return boundary.width * value_bytes


def index_bytes(hidden: int) -> int:
    """Bytes of the index of one of `hidden` values."""
    return 2 if hidden <= 2**16 else 4


def boundary_end_parameters(hidden: int, boundary: "Boundary | None") -> int:
    """Parameters of an encoder; a decoder has as many."""
    if boundary is None or boundary.kind not in {"resbm", "bottleneck"}:
        return 0
    inner = boundary.inner_width if boundary.kind == "resbm" else None
    return hidden * boundary.width if inner is None else inner * (hidden + boundary.width)


@dataclass(frozen=True, slots=True)
class StageMemory:
    """Bytes a peer of one stage must hold."""

    states_bytes: int
    in_flight_bytes: int
    working_bytes: int

    @property
    def total_bytes(self) -> int:
        """Weights, gradients and moments, activations in flight, and the working set of one micro-batch."""
        return self.states_bytes + self.in_flight_bytes + self.working_bytes


def layer_activation_bytes(
    model: Transformer,
    tokens: int,
    *,
    sequence: int = 0,
    gpus: int = 1,
    sequence_parallel: bool = False,
    selective: bool = False,
) -> int:
    """Bytes one block keeps for its backward on each of the `gpus` GPUs it is cut over, without full recompute.

    Llama with a fused attention kernel keeps per token: block input, two norm outputs, q, attention output, second
    residual (6 x hidden), k and v, and gate, up and their product (3 x ffn). GPT keeps what Korthikanti et al. 2022
    (arXiv 2205.05198, section 4) count: in 16 bits and four times as wide inside, for s = `sequence`, a heads and t
    GPUs, tokens x hidden x (10 + 24 / t + 5 a s / (hidden t)). The last term are the scores of unfused attention, which
    `selective` recompute does not keep; fused attention never keeps them. Dropout masks are a byte per value.
    """
    width = BYTES_PER_VALUE[model.dtype]
    # Block input, second residual and two norm outputs are whole on every GPU unless the sequence is cut as well.
    whole = 4 * model.hidden * width
    matrices = 3 if model.block == "llama" else 2
    cut = (2 * model.hidden + 2 * kv_width(model) + matrices * model.ffn) * width
    if model.block == "gpt":
        whole += 2 * model.hidden
    if model.attention == "unfused" and not selective:
        # Outputs of softmax and dropout, and the mask between them.
        cut += model.heads * sequence * (2 * width + 1)
    if sequence_parallel:
        return -(-tokens * (whole + cut) // gpus)
    return tokens * whole - (-tokens * cut // gpus)


LOSS_CHUNK_TOKENS = 1024  # IOTA computes the loss in chunks of 1024 tokens so that logits never exist whole


def logits_bytes(model: Transformer, tokens: int) -> int:
    """Bytes of the logits of one micro-batch while its loss is computed.

    Llama as in IOTA: a chunk of logits, their fp32 copy and its gradient. GPT as in Megatron-LM: all logits and their
    fp32 copy, which becomes the gradient.
    """
    width = BYTES_PER_VALUE[model.dtype]
    if model.block == "gpt":
        return tokens * model.vocab * (width + 4)
    return min(LOSS_CHUNK_TOKENS, tokens) * model.vocab * (width + 4 + 4)
