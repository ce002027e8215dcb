"""How long one stage's operations take on a peer of one or several GPUs of one type.

A stage is a list of kernels (`orionbed/kernels.py`); what they move through memory is counted in `orionbed/traffic.py`.
Nothing here looks at a pipeline or a network.
"""

from dataclasses import dataclass, replace

from orionbed import measured, traffic
from orionbed import model as arithmetic
from orionbed.kernels import Kernels, Work, peak_of
from orionbed.model import BYTES_PER_VALUE, Transformer
from orionbed.scenario import GpuProfile
from orionbed.scenario.measurements import Piece

__all__ = ["Cost", "CostModel", "Work", "peak_of"]


@dataclass(frozen=True, slots=True)
class Cost:
    """Seconds and executed FLOPs of one operation, by purpose.

    `model_s` is work any training of this model needs; `recompute_s`, `boundary_s` and `optimizer_s` are the others.
    """

    model_s: float = 0.0
    recompute_s: float = 0.0
    boundary_s: float = 0.0
    optimizer_s: float = 0.0
    model_flops: float = 0.0
    recompute_flops: float = 0.0
    boundary_flops: float = 0.0

    @property
    def duration_s(self) -> float:
        """Seconds from start to end."""
        return self.model_s + self.recompute_s + self.boundary_s + self.optimizer_s

    @property
    def executed_flops(self) -> float:
        """All FLOPs the GPU executes."""
        return self.model_flops + self.recompute_flops + self.boundary_flops

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(*(a + b for a, b in zip(self.as_tuple(), other.as_tuple(), strict=True)))

    def as_tuple(self) -> tuple[float, ...]:
        """All fields in order."""
        return (
            self.model_s,
            self.recompute_s,
            self.boundary_s,
            self.optimizer_s,
            self.model_flops,
            self.recompute_flops,
            self.boundary_flops,
        )


class CostModel(Kernels):
    """Times the pieces of a transformer on one peer.

    The pieces are cut over the peer's `gpus` by tensor parallelism as in Megatron-LM (Shoeybi et al., arXiv
    1909.08053): q, k, v and the feed-forward's first matrices by columns, o and its last matrix by rows, the embedding
    and the head by vocabulary. Seconds are those of each GPU, FLOPs those of all GPUs together. `sequence_parallel`
    cuts norms, dropout and residuals over the sequence as well (Korthikanti et al., arXiv 2205.05198).
    `overlap_collectives` lets the backward's all-reduces run beside weight gradients. The other arguments are those of
    `Kernels`. A piece that the profile has measured in this shape and number format takes the seconds measured, on one
    GPU and with the efficiency `by-shape`; FLOPs stay counted.
    """

    def __init__(
        self,
        gpu: GpuProfile,
        efficiency: str | float = "by-shape",
        kernel_scale: float = 1.0,
        *,
        gpus: int = 1,
        sequence_parallel: bool = False,
        overlap_collectives: bool = True,
        link_bytes_per_s: float | None = None,
    ) -> None:
        super().__init__(gpu, efficiency, kernel_scale, gpus=gpus, link_bytes_per_s=link_bytes_per_s)
        self.sequence_parallel = sequence_parallel
        self.overlap_collectives = overlap_collectives

    def layer(self, model: Transformer, tokens: int, sequence: int) -> Work:
        """One block: its matrix multiplies, attention, memory-bound rest, and collectives between the GPUs."""
        return self._as_measured(
            "layer", self._layer_by_shape(model, tokens, sequence), model, tokens, sequence=sequence
        )

    def _layer_by_shape(self, model: Transformer, tokens: int, sequence: int) -> Work:
        into_attention, into_ffn = self._column_parallel(model, tokens)
        work = self.attention_core(model, tokens, sequence)
        for part in (into_attention, *self._row_parallel(model, tokens), into_ffn):
            work += part.on(self.gpus)
        work += self._rest_of_layer(model, tokens)
        return work + self._collectives(model, tokens, (into_attention, into_ffn))

    def _as_measured(
        self,
        piece: Piece,
        work: Work,
        model: Transformer,
        tokens: int,
        *,
        sequence: int | None = None,
        boundary: int | None = None,
    ) -> Work:
        """Replace modelled seconds by those that the profile has measured of this very piece, if it has."""
        if self.flat is not None or self.gpus > 1:
            return work
        times = measured.times_of(self.gpu, piece, model, tokens, sequence=sequence, boundary=boundary)
        if times is None:
            return work
        found = (times.forward.median, times.input_gradient.median, times.weight_gradient.median)
        return work.taking(*(seconds / self.kernel_scale for seconds in found))

    def _column_parallel(self, model: Transformer, tokens: int) -> tuple[Work, Work]:
        """Work on one GPU of q, k and v, and of the feed-forward's first matrices."""
        queries = self._share(model.hidden)
        keys = max(self._share(arithmetic.kv_width(model)), model.hidden // model.heads)
        inner = self._share(model.ffn)
        if model.block == "gpt":
            # One multiply for q, k and v together.
            return (
                self.matmul(tokens, model.hidden, queries + 2 * keys, model.dtype),
                self.matmul(tokens, model.hidden, inner, model.dtype),
            )
        attention = self.matmul(tokens, model.hidden, queries, model.dtype)
        attention += self.matmul(tokens, model.hidden, keys, model.dtype).times(2)
        return attention, self.matmul(tokens, model.hidden, inner, model.dtype).times(2)

    def _row_parallel(self, model: Transformer, tokens: int) -> tuple[Work, Work]:
        """Work on one GPU of o, and of the feed-forward's last matrix."""
        return (
            self.matmul(tokens, self._share(model.hidden), model.hidden, model.dtype),
            self.matmul(tokens, self._share(model.ffn), model.hidden, model.dtype),
        )

    def _rest_of_layer(self, model: Transformer, tokens: int) -> Work:
        moved = traffic.layer_traffic(model)
        residual_parts = self.gpus if self.sequence_parallel else 1
        return self.elementwise(
            tokens * (moved.residual / residual_parts + moved.split / self.gpus),
            moved.kernels,
            tokens * (moved.residual_backward / residual_parts + moved.split_backward / self.gpus),
            moved.backward_kernels,
        )

    def _collectives(self, model: Transformer, tokens: int, column_parallel: tuple[Work, Work]) -> Work:
        """Two all-reduces forward and two backward, the latter beside the weight gradients of `column_parallel`.

        With sequence parallelism each is a reduce-scatter and an all-gather. Only the former has a weight gradient to
        run beside; a further all-gather of the layer's input runs beside the input gradient and is left out.
        """
        all_reduce_s = self._all_reduce_stream_s(model, tokens)
        exposed_s = 2 * all_reduce_s
        if self.overlap_collectives:
            can_hide_s = all_reduce_s / 2 if self.sequence_parallel else all_reduce_s
            exposed_s -= sum(min(can_hide_s, part.weight_gradient_s) for part in column_parallel)
        return Work(2 * all_reduce_s, exposed_s)

    def _all_reduce_stream_s(self, model: Transformer, tokens: int) -> float:
        """Seconds of an all-reduce of one micro-batch's residual stream."""
        num_bytes = float(tokens * model.hidden * BYTES_PER_VALUE[model.dtype])
        return self.all_reduce_s(num_bytes, kernels=2 if self.sequence_parallel else 1)

    def attention_core(self, model: Transformer, tokens: int, sequence: int) -> Work:
        """Scores, softmax and values of one block: causal in one fused kernel, or step by step over the full square."""
        width = self._share(model.hidden)
        if model.attention == "unfused":
            return self._unfused_attention(model, tokens, sequence).on(self.gpus)
        forward = 2.0 * width * sequence * tokens
        backward = 2.0 * forward
        if self.flat is not None:
            seconds = forward / (peak_of(self.gpu, model.dtype) * self.flat)
            return Work(seconds, 2 * seconds, 0.0, forward, backward).on(self.gpus)
        scale = peak_of(self.gpu, model.dtype) * self.kernel_scale
        share = self.gpu.attention
        return Work(
            forward / (scale * share.forward) + self.gpu.launch,
            backward / (scale * share.backward) + self.gpu.launch,
            0.0,
            forward,
            backward,
        ).on(self.gpus)

    def _unfused_attention(self, model: Transformer, tokens: int, sequence: int) -> Work:
        """Two batched multiplies with softmax and dropout between them, on one GPU; four multiplies backward."""
        width = BYTES_PER_VALUE[model.dtype]
        flops = 4.0 * self._share(model.hidden) * sequence * tokens
        values = float(tokens * sequence * self._share(model.heads))
        masks = traffic.SCORES_MASKS * values
        forward = self.traffic_s(width * traffic.SCORES_PASSES * values + masks, traffic.SCORES_KERNELS)
        backward = self.traffic_s(width * traffic.SCORES_BACKWARD_PASSES * values + masks, traffic.SCORES_KERNELS)
        forward += self.batched_matmuls_s(flops, width * traffic.SCORES_MATMUL_PASSES * values, 2, model.dtype)
        backward += self.batched_matmuls_s(
            2 * flops, width * traffic.SCORES_MATMUL_BACKWARD_PASSES * values, 4, model.dtype
        )
        return Work(forward, backward, 0.0, flops, 2 * flops)

    def embedding(self, model: Transformer, tokens: int) -> Work:
        """Table look-up: no FLOPs, one read and one write per value; backward adds into the table.

        Cut by vocabulary, every GPU looks up its own tokens and an all-reduce brings them together.
        """
        work = self.elementwise(tokens * traffic.embedding_bytes(model), 1)
        # Nothing waits for the gradient of the first stage's input: all of its backward is for the weights.
        work = replace(work, input_gradient_s=0.0, weight_gradient_s=work.input_gradient_s)
        work += Work(self._all_reduce_stream_s(model, tokens))
        return self._as_measured("embedding", work, model, tokens)

    def head(self, model: Transformer, tokens: int) -> Work:
        """Final norm, logits and loss; the backward's input gradient is an all-reduce between the GPUs."""
        vocab = self._share(model.vocab)
        norm, norm_backward = traffic.norm_bytes(model)
        norm_tokens = tokens / (self.gpus if self.sequence_parallel else 1)
        loss = float(tokens * traffic.LOSS_BYTES * vocab)
        work = self.matmul(tokens, model.hidden, vocab, model.dtype).on(self.gpus)
        work += self.elementwise(
            norm_tokens * norm + loss,
            traffic.HEAD_KERNELS,
            norm_tokens * norm_backward + traffic.BACKWARD_FACTOR * loss,
            traffic.BACKWARD_FACTOR * traffic.HEAD_KERNELS,
        )
        # Maximum, sum and the target's logit of every token, in fp32.
        loss_s = 3 * self.all_reduce_s(4.0 * tokens)
        work += Work(loss_s, self._all_reduce_stream_s(model, tokens))
        return self._as_measured("head", work, model, tokens)

    def encoder(self, model: Transformer, tokens: int, width: int) -> Work:
        """What narrows the residual stream to `width` before it is sent."""
        return self._as_measured("encoder", self.narrowing(model, tokens, width), model, tokens, boundary=width)

    def decoder(self, model: Transformer, tokens: int, width: int) -> Work:
        """What widens a tensor of `width` that has been received."""
        return self._as_measured("decoder", self.narrowing(model, tokens, width), model, tokens, boundary=width)

    def narrowing(self, model: Transformer, tokens: int, width: int) -> Work:
        """One boundary encoder or decoder: a multiply between the model's width and the narrow one, cut by tokens."""
        return self.matmul(self._share(tokens), model.hidden, width, model.dtype).on(self.gpus)

    def optimizer_step_s(
        self, parameters: int, dtype: str, state_bytes_per_parameter: int = 0, *, model: Transformer | None = None
    ) -> float:
        """One local optimizer step over `parameters`, which are cut over the GPUs of the peer.

        `model` is what they belong to: with it, a step that the profile has measured takes the time measured.
        """
        if model is not None and parameters and self.flat is None and self.gpus == 1:
            each_s = measured.step_per_parameter_s(self.gpu, model, parameters)
            if each_s is not None:
                return parameters * each_s / self.kernel_scale
        per_parameter = traffic.optimizer_bytes(dtype, state_bytes_per_parameter)
        return self.traffic_s(float(self._share(parameters) * per_parameter), 100)

    def _share(self, size: int) -> int:
        """A dimension as one GPU sees it, rounded up."""
        return -(-size // self.gpus)
