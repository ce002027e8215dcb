"""Bytes that a transformer moves through memory outside its matrix multiplies, counted tensor by tensor.

Per token, for the two families of blocks. What stands on the residual stream is whole on every GPU of a peer unless
sequences are cut as well (sequence parallelism); what stands inside attention and the feed-forward is always cut.

The GPT counts are not blind: two of them (LayerNorm's backward as one kernel, no kernel of its own for adding weight
gradients) were settled after a first comparison with table 4 of Korthikanti et al. 2022 (arXiv 2205.05198), whose
worst row then fell from 6 % too long to 3 %.
"""

from dataclasses import dataclass

from orionbed.model import BYTES_PER_VALUE, Transformer, kv_width

# Llama, in PyTorch without a compiler, in bytes per value. Residual stream: two RMSNorms computed in fp32 (to fp32 6,
# square 8, mean 4, scale 8, back 6, weight 4: 36 each), two residual additions (6 each). Attention: rotary embedding of
# q (24). Feed-forward: SiLU (4) and product (6). Backward moves twice as much.
NORM_BYTES = 36
RESIDUAL_BYTES = 2 * NORM_BYTES + 2 * 6
ROTARY_BYTES = 24
FFN_BYTES = 4 + 6
LLAMA_KERNELS = 30
BACKWARD_FACTOR = 2

# GPT, with the fused kernels of Megatron-LM (LayerNorm; bias, dropout and addition; bias and GELU), in passes: one pass
# reads or writes every value once. A dropout mask is a byte per value.
# Residual stream, forward: two LayerNorms (read, write), two times bias, dropout and addition (read both, write).
GPT_RESIDUAL_PASSES = 2 * 2 + 2 * 3
GPT_RESIDUAL_MASKS = 2
# Backward: two LayerNorms (read input and gradient, write; partial sums for weight and bias in the same kernel), two
# dropouts (read, write), two additions of the branches' gradients (read both, write), two bias gradients (read).
GPT_RESIDUAL_BACKWARD_PASSES = 2 * 3 + 2 * 2 + 2 * 3 + 2 * 1
# Feed-forward: bias and GELU (read, write); backward reads input and gradient, writes, and reads for the bias gradient.
GPT_FFN_PASSES = 2
GPT_FFN_BACKWARD_PASSES = 3 + 1
# Attention: the merged heads of the context are made contiguous (read, write), and their gradient is taken apart again;
# backward also reads the gradient of q, k and v for their bias.
GPT_CONTEXT_PASSES = 2
GPT_KERNELS = 6
GPT_BACKWARD_KERNELS = 12
# Adding weight gradients to those of earlier micro-batches is part of the multiply, whose measured share includes it.

# Unfused attention, passes over one value per head and pair of tokens. Around the multiplies: scores written, context
# reads. Between: scale, mask and softmax in one kernel (read, write), dropout (read, write).
SCORES_MATMUL_PASSES = 1 + 1
SCORES_PASSES = 2 + 2
SCORES_MASKS = 1
# Backward. Multiplies: gradient of the probabilities written, probabilities read for the gradient of v, gradient of the
# scores read for those of q and k. Between: dropout (read, write), softmax (read output and gradient, write).
SCORES_MATMUL_BACKWARD_PASSES = 1 + 1 + 2
SCORES_BACKWARD_PASSES = 2 + 3
SCORES_KERNELS = 2

# Loss over the vocabulary: logits written, read as fp32 for the maximum and the sum, gradient written in 16 bits.
LOSS_BYTES = 2 + 4 + 4 + 4 + 2
HEAD_KERNELS = 12

# Tensors an Adam-like step reads and writes when every arithmetic operation is its own kernel, as multi-tensor
# (foreach) optimizers do it: weight, gradient, two moments, and the temporaries between them.
OPTIMIZER_PASSES = 20
# Bytes per parameter of a fused mixed-precision Adam that keeps fp32 weights: gradients to fp32 and checked (2 + 4),
# their norm (4), clipping (8), the step (read weight, gradient and moments, write all but the gradient: 28), weights
# back to 16 bits (4 + 2), gradients set to zero (2).
MIXED_OPTIMIZER_BYTES = 6 + 4 + 8 + 28 + 6 + 2
# fp32 weights and both moments are 12 bytes besides the 16-bit weight and gradient.
MIXED_STATE_BYTES = 16


@dataclass(frozen=True, slots=True)
class Traffic:
    """Bytes per token of one layer and the kernels that move them, forward and backward."""

    residual: float
    residual_backward: float
    split: float
    split_backward: float
    kernels: int
    backward_kernels: int


def layer_traffic(model: Transformer) -> Traffic:
    """What one layer moves per token outside its multiplies and its attention core."""
    hidden, ffn = model.hidden, model.ffn
    if model.block == "llama":
        residual, split = RESIDUAL_BYTES * hidden, ROTARY_BYTES * hidden + FFN_BYTES * ffn
        return Traffic(
            residual, BACKWARD_FACTOR * residual, split, BACKWARD_FACTOR * split,
            LLAMA_KERNELS, BACKWARD_FACTOR * LLAMA_KERNELS,
        )  # fmt: skip
    width = BYTES_PER_VALUE[model.dtype]
    bias_gradient = hidden + 2 * kv_width(model)
    return Traffic(
        residual=hidden * (width * GPT_RESIDUAL_PASSES + GPT_RESIDUAL_MASKS),
        residual_backward=hidden * (width * GPT_RESIDUAL_BACKWARD_PASSES + GPT_RESIDUAL_MASKS),
        split=width * (GPT_FFN_PASSES * ffn + GPT_CONTEXT_PASSES * hidden),
        split_backward=width * (GPT_FFN_BACKWARD_PASSES * ffn + GPT_CONTEXT_PASSES * hidden + bias_gradient),
        kernels=GPT_KERNELS,
        backward_kernels=GPT_BACKWARD_KERNELS,
    )


def norm_bytes(model: Transformer) -> tuple[float, float]:
    """What the final norm moves per token, forward and backward."""
    if model.block == "llama":
        return NORM_BYTES * model.hidden, BACKWARD_FACTOR * NORM_BYTES * model.hidden
    width = BYTES_PER_VALUE[model.dtype]
    return 2.0 * width * model.hidden, 3.0 * width * model.hidden


def embedding_bytes(model: Transformer) -> float:
    """What looking up moves per token: a read and a write, and for GPT positions (read, add) and dropout as well."""
    width = BYTES_PER_VALUE[model.dtype]
    if model.block == "llama":
        return 2.0 * model.hidden * width
    positions = 3 if model.positions else 0
    return model.hidden * ((2.0 + positions + 2) * width + 1)


def optimizer_bytes(dtype: str, state_bytes_per_parameter: int) -> int:
    """What one optimizer step moves per parameter; with room for fp32 weights it is a fused mixed-precision Adam."""
    if BYTES_PER_VALUE[dtype] == 2 and state_bytes_per_parameter >= MIXED_STATE_BYTES:
        return MIXED_OPTIMIZER_BYTES
    return BYTES_PER_VALUE[dtype] * OPTIMIZER_PASSES
