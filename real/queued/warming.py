"""First-use costs, paid before anything is measured: libraries that load kernels, memory that is touched first."""

from orionbed.scenario.training import InnerOptimizer
from orionbed.training.compute import Compute
from orionbed.training.optimizers.build import make_optimizer
from orionbed.training.optimizers.layout import Matrix, one_piece
from real.queued.staging import Staging

_STAND_IN = one_piece(1024 + 32, (Matrix(0, 32, 32),))
"""What a step is tried on, a matrix and a norm: the weights of the model must stay as they are."""


def warm_up(compute: Compute, staging: Staging, num_microbatches: int, *, optimizer: InnerOptimizer) -> None:
    """Do the operations of some micro-batches at full shape on data that is thrown away.

    Afterwards the weights, the optimizer's memory and the counts are what they were: version 0.
    """
    import torch

    worker, shape = compute.worker, compute.shape
    if not num_microbatches:
        return
    (chunk,) = compute.chunks
    crossing = bytes(shape.boundary_bytes)
    for number in range(-num_microbatches, 0):
        if not shape.is_last(chunk):
            compute.run("F", chunk, number, staging.arrived(crossing) if chunk else None)
        compute.run("B", chunk, number, None if chunk == 0 == shape.num_chunks - 1 else staging.arrived(crossing))
    weights = torch.zeros(_STAND_IN.num_parameters, dtype=shape.torch_dtype, device=worker.device)
    make_optimizer(optimizer, weights, _STAND_IN).step(weights, torch.zeros_like(weights), 1)
    if worker.device == "cpu":
        worker.load_state(worker.state())  # memory that was given out but never written to costs time at first use
    worker.reset()
    compute.forget_times()
