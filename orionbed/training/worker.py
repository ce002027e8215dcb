"""One peer's piece or pieces of the model: forward, backward whole or in halves, and optimizer steps."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from orionbed.scenario.training import InnerOptimizer
from orionbed.training.boundaries.sending import Boundaries, senders_of
from orionbed.training.data import Batches, synthetic
from orionbed.training.kept import Forward, Half, measured, num_bytes
from orionbed.training.parameters import FlatParameters
from orionbed.training.shape import ModelShape

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Parameter

Key = tuple[int, int]
"""Chunk and micro-batch."""


class StageWorker:
    """The chunks that one peer holds, and the micro-batches it is at work on.

    A micro-batch is a number from which `batches` makes its data (default: synthetic text); it may be done again once
    it is finished or forgotten. Passes of different micro-batches may come in any order and interleaved with steps. The
    gradient of a micro-batch in a chunk is accumulated at once, when its whole backward or the weight half ends.
    Initial weights depend on the seed and the number of the chunk alone, so all replicas begin alike. All tensors that
    go in and out are what crosses a boundary, `boundary_shape` of `boundary_dtype`, and detached.

    Raises:
        ValueError: from every method, for a chunk that is not held, a pass out of turn or a tensor that does not fit.

    """

    def __init__(
        self,
        shape: ModelShape,
        chunks: Sequence[int],
        *,
        seed: int,
        optimizer: InnerOptimizer,
        batches: Batches | None = None,
        device: str = "cpu",
    ) -> None:
        from orionbed.training.modules import make_chunk

        if not chunks or len(set(chunks)) != len(chunks) or not set(chunks) <= set(range(shape.num_chunks)):
            raise ValueError(f"chunks must be distinct numbers from 0 to {shape.num_chunks - 1}, not {list(chunks)}")
        self.shape = shape
        self.chunks = tuple(sorted(chunks))
        self.seed = seed
        self.device = device
        self._batches = batches or synthetic(shape, seed)
        self.losses: dict[int, float] = {}
        self._modules = {chunk: make_chunk(shape, chunk, seed, device) for chunk in self.chunks}
        self._flat = FlatParameters(shape, self.chunks, list(self._modules.values()), optimizer)
        self._boundaries = Boundaries(shape)
        self._immediate = {chunk: module.immediate() for chunk, module in self._modules.items()}
        self._forwards: dict[Key, Forward] = {}
        self._halves: dict[Key, Half] = {}
        self._graph_bytes: dict[int, int] = {}
        self._accumulated = dict.fromkeys(self.chunks, 0)

    def forward(self, chunk: int, microbatch: int, inputs: "Tensor | None") -> "Tensor | None":
        """Return what crosses to the next chunk, or None at the last one, which notes the loss.

        `inputs` is what the previous chunk returned; chunk 0 takes None and draws its own tokens.
        """
        begun = self._begin(chunk, microbatch, inputs)
        output = self._run(chunk, begun, graph=not self.shape.recompute)
        self._forwards[chunk, microbatch] = begun
        return self._deliver(chunk, microbatch, output)

    def backward(self, chunk: int, microbatch: int, gradient: "Tensor | None") -> "Tensor | None":
        """Do the whole backward; return the gradient for the previous chunk, or None at chunk 0.

        `gradient` is what the next chunk returned, and None at the last one.
        """
        self._check_gradient(chunk, gradient)
        return self._backward(chunk, self._take_forward(chunk, microbatch), gradient)

    def backward_input(self, chunk: int, microbatch: int, gradient: "Tensor | None") -> "Tensor | None":
        """Do the half of the backward that others wait for, and return what `backward` returns.

        Gradients of norms and of the embedding are found on the way; they and the work on the matrices are kept.
        """
        import torch

        self._check_gradient(chunk, gradient)
        begun = self._take_forward(chunk, microbatch)
        output = begun.output if begun.output is not None else self._run(chunk, begun, graph=True)
        immediate = self._immediate[chunk]
        wanted = ([begun.inputs] if chunk else []) + immediate
        with self._modules[chunk].deferral.collecting() as pending:
            found = list(torch.autograd.grad(output, wanted, self._received(gradient)))
        result = found.pop(0) if chunk else None
        kept = found + [tensor for _, *tensors in pending for tensor in tensors]
        self._halves[chunk, microbatch] = Half(list(zip(immediate, found, strict=True)), pending, num_bytes(kept))
        return None if result is None else self._boundaries.send((chunk, "B"), result)

    def backward_weight(self, chunk: int, microbatch: int) -> None:
        """Do the other half: accumulate the gradient of the weights."""
        from orionbed.training.layers import weight_gradient

        half = self._halves.pop((chunk, microbatch), None)
        if half is None:
            raise ValueError(f"chunk {chunk} has no weight gradient of micro-batch {microbatch} to do")
        for parameter, gradient in half.finished:
            _accumulate(parameter, gradient)
        for parameter, inputs, gradient in half.pending:
            _accumulate(parameter, weight_gradient(inputs, gradient))
        self._accumulated[chunk] += 1

    def forward_backward(self, chunk: int, microbatch: int, inputs: "Tensor | None") -> "Tensor | None":
        """Do forward, loss and backward of the last chunk in one go, without recompute; return what `backward` does."""
        if not self.shape.is_last(chunk):
            raise ValueError(f"only the last chunk can turn round at once, and chunk {chunk} is not the last")
        begun = self._begin(chunk, microbatch, inputs)
        self._deliver(chunk, microbatch, self._run(chunk, begun, graph=True))
        return self._backward(chunk, begun, None)

    def take_loss(self, microbatch: int) -> float:
        """Return the mean loss per token of a micro-batch in nats, once."""
        if microbatch not in self.losses:
            raise ValueError(f"there is no loss of micro-batch {microbatch}")
        return self.losses.pop(microbatch)

    def step(self, num_microbatches: int) -> None:
        """Apply the accumulated gradients, divided by the number of micro-batches in them; with 0 do nothing."""
        if num_microbatches < 0:
            raise ValueError(f"a step applies 0 micro-batches or more, not {num_microbatches}")
        if num_microbatches:
            self._flat.step(num_microbatches)
            self._accumulated = dict.fromkeys(self.chunks, 0)

    def forget(self, microbatch: int) -> None:
        """Drop what is kept of a micro-batch here: activations, halves of gradients, and its loss.

        A chunk whose backward is done has accumulated its gradient, and that stays.
        """
        for chunk in self.chunks:
            self._forwards.pop((chunk, microbatch), None)
            self._halves.pop((chunk, microbatch), None)
        self.losses.pop(microbatch, None)

    def reset(self) -> None:
        """Drop what is kept of all micro-batches, the accumulated gradients, and what is left to send."""
        self._forwards.clear()
        self._halves.clear()
        self.losses.clear()
        self._boundaries.residuals.clear()
        self._flat.gradients.zero_()
        self._accumulated = dict.fromkeys(self.chunks, 0)

    @property
    def num_accumulated(self) -> int:
        """Micro-batches whose gradient is accumulated in every chunk held here since the last step."""
        return min(self._accumulated.values())

    @property
    def saved_bytes(self) -> int:
        """Bytes of tensors kept for backwards that have yet to come, each storage once per micro-batch and chunk.

        Weights, tables of positions and what torch allocates beside do not count. Without recompute it is what the
        graph of the chunk's first micro-batch held, as all have one shape.
        """
        return sum(kept.num_bytes for part in (self._forwards, self._halves) for kept in part.values())

    def gradients(self) -> "Tensor":
        """Return a copy of the accumulated gradients (sums over micro-batches) in one row, chunk after chunk."""
        return self._flat.gradients.clone()

    def set_gradients(self, flat: "Tensor") -> None:
        """Replace the accumulated gradients, as after a sum over replicas; `num_accumulated` stays."""
        self._flat.set_gradients(flat)

    @property
    def names(self) -> list[str]:
        """Names of the parameters in the order of `weights`, behind the place of their chunk among those held here."""
        modules = enumerate(self._modules.values())
        return [f"{place}.{name}" for place, module in modules for name, _ in module.named_parameters()]

    @property
    def sizes(self) -> list[int]:
        """Number of values of each parameter, in the same order."""
        return [parameter.numel() for module in self._modules.values() for parameter in module.parameters()]

    def weights(self) -> "Tensor":
        """Return a copy of the weights in one row, chunk after chunk."""
        return self._flat.weights.clone()

    def load_weights(self, flat: "Tensor") -> None:
        """Replace the weights, as after an average over replicas; the optimizer's memory stays."""
        self._flat.set_weights(flat)

    def state(self) -> bytes:
        """Return weights, optimizer state and number of steps; gradients and activations are not in it."""
        return self._flat.state()

    def load_state(self, data: bytes) -> None:
        """Continue from what `state` returned of a worker with the same chunks; a ValueError says what is wrong."""
        self._flat.load_state(data)
        self.reset()

    def residuals(self) -> bytes:
        """Return what error feedback has left to send, chunk after chunk: empty where there is none.

        It is not part of `state`: a peer that takes over another's begins without.
        """
        return self._boundaries.flat(senders_of(self.shape, self.chunks))

    def load_residuals(self, data: bytes) -> None:
        """Continue with what `residuals` returned of a worker with the same chunks, after its state is loaded."""
        self._boundaries.load(senders_of(self.shape, self.chunks), data, self.device)

    def kept_inputs(self) -> "dict[Key, Tensor | None]":
        """Return the inputs of the forwards that wait for their backward, None for a first chunk's tokens.

        Raises:
            ValueError: more than inputs is kept: there is no recompute, or halves of backwards are to be done.

        """
        if self._halves or any(begun.output is not None for begun in self._forwards.values()):
            raise ValueError("what is kept here is more than the inputs of forwards, and cannot be given away")
        return {key: begun.inputs if key[0] else None for key, begun in self._forwards.items()}

    def keep_inputs(self, kept: "Mapping[Key, Tensor | None]") -> None:
        """Go on with forwards that `kept_inputs` told of as if they had been done here; with recompute alone."""
        for key, inputs in kept.items():
            self._forwards[key] = self._begin(*key, inputs)

    def weights_hash(self) -> str:
        """Return 16 hexadecimal digits of the weights."""
        return self._flat.weights_hash()

    def state_hash(self) -> str:
        """Return 16 hexadecimal digits of the state."""
        return self._flat.state_hash()

    def _begin(self, chunk: int, microbatch: int, inputs: "Tensor | None") -> Forward:
        self._check_chunk(chunk)
        if (chunk, microbatch) in self._forwards or (chunk, microbatch) in self._halves:
            raise ValueError(f"chunk {chunk} is at work on micro-batch {microbatch} already; forget it first")
        targets = None
        if chunk == 0 or self.shape.is_last(chunk):
            drawn = self._batches(microbatch)
            tokens, targets = (each.to(self.device, non_blocking=True) for each in drawn)
        if chunk == 0:
            if inputs is not None:
                raise ValueError("chunk 0 draws its own tokens and takes no inputs")
            inputs = tokens
        else:
            self._check_crossing(inputs, f"inputs of chunk {chunk}")
            assert inputs is not None
            inputs = inputs.detach()
        return Forward(inputs, targets if self.shape.is_last(chunk) else None, None, num_bytes([inputs]))

    def _run(self, chunk: int, begun: Forward, *, graph: bool) -> "Tensor":
        """Return the output of a chunk, with the graph for its backward or without."""
        import torch

        module = self._modules[chunk]
        # Kept as they came, so that what waits for its backward takes no more memory than what crossed.
        entering = self._boundaries.receive(begun.inputs).requires_grad_() if chunk else begun.inputs
        with torch.set_grad_enabled(graph):
            if not graph:
                result: Tensor = module(entering, begun.targets)
                return result
            begun.inputs = entering
            if chunk in self._graph_bytes:
                result = module(begun.inputs, begun.targets)
            else:
                constant = [self._flat.weights, *module.buffers()]
                run = partial(module, begun.inputs, begun.targets)
                result, self._graph_bytes[chunk] = measured(run, begun.inputs, constant)
        begun.output = result
        begun.num_bytes = self._graph_bytes[chunk]
        return result

    def _deliver(self, chunk: int, microbatch: int, output: "Tensor") -> "Tensor | None":
        if self.shape.is_last(chunk):
            self.losses[microbatch] = output.item()
            return None
        return self._boundaries.send((chunk, "F"), output.detach())

    def _received(self, gradient: "Tensor | None") -> "Tensor | None":
        return None if gradient is None else self._boundaries.receive(gradient)

    def _backward(self, chunk: int, begun: Forward, gradient: "Tensor | None") -> "Tensor | None":
        import torch

        output = begun.output if begun.output is not None else self._run(chunk, begun, graph=True)
        torch.autograd.backward(output, self._received(gradient))
        self._accumulated[chunk] += 1
        result = begun.inputs.grad
        return None if result is None else self._boundaries.send((chunk, "B"), result)

    def _take_forward(self, chunk: int, microbatch: int) -> Forward:
        begun = self._forwards.pop((chunk, microbatch), None)
        if begun is None:
            raise ValueError(f"chunk {chunk} keeps no forward of micro-batch {microbatch}")
        return begun

    def _check_chunk(self, chunk: int) -> None:
        if chunk not in self._modules:
            raise ValueError(f"chunk {chunk} is not held here, but {', '.join(map(str, self.chunks))}")

    def _check_gradient(self, chunk: int, gradient: "Tensor | None") -> None:
        self._check_chunk(chunk)
        if not self.shape.is_last(chunk):
            self._check_crossing(gradient, f"gradient at chunk {chunk}")
        elif gradient is not None:
            raise ValueError(f"chunk {chunk} is the last and takes no gradient")

    def _check_crossing(self, tensor: "Tensor | None", what: str) -> None:
        shape, dtype = self.shape.boundary_shape, self.shape.boundary_dtype
        if tensor is None or tensor.shape != shape or tensor.dtype != dtype:
            found = "nothing" if tensor is None else f"{tuple(tensor.shape)} of {tensor.dtype}"
            raise ValueError(f"{what}: {found}, where {shape} of {dtype} is expected")


def _accumulate(parameter: "Parameter", gradient: "Tensor") -> None:
    assert parameter.grad is not None, "gradients are views of one flat tensor"
    parameter.grad.add_(gradient)
