"""The outer optimizer: what the weights of a stage become when its replicas are merged.

DiLoCo's (Douillard et al., arXiv 2311.08105) with the constants of IOTA's public code (code, partition_merging.py): the
pseudo-gradient, old weights minus new ones, is averaged over the replicas, each with the work it contributed as weight,
and SGD with Nesterov momentum takes a step along it. In numpy, each operation rounded by itself, so that two peers that
merge the same slice get the same bits on any machines. Contraction to fused multiply-adds would spoil that.
"""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.floating[Any]]
Body = bytes | bytearray
RATE: Final = 0.7
FIRST_MOMENTUM: Final = 0.5
LAST_MOMENTUM: Final = 0.9
WARM_UP_MERGES: Final = 20
"""Over so many merges the momentum grows from the first value to the last."""


def momentum_at(merge: int) -> float:
    """Return the momentum of a merge; they are counted from 0."""
    return FIRST_MOMENTUM + (LAST_MOMENTUM - FIRST_MOMENTUM) * min(1.0, merge / WARM_UP_MERGES)


def weighted_mean(rows: Values, works: Sequence[int]) -> Values:
    """Return the mean of rows (members, values), each with its work as weight; all equal where nobody has worked."""
    parts = np.array(works) if any(works) else np.ones(len(works), dtype=int)
    parts //= np.gcd.reduce(parts)  # equal works are weights of 1, and the mean is the plain one to the bit
    weighted = rows * parts.astype(rows.dtype)[:, np.newaxis]
    return np.asarray(weighted.sum(axis=0) / rows.dtype.type(parts.sum()))


def nesterov(old: Values, gradient: Values, velocity: Values, momentum: float) -> tuple[Values, Values]:
    """Return weights and velocity after a step, as `torch.optim.SGD` with `nesterov=True` does it."""
    velocity = momentum * velocity + gradient
    return old - RATE * (gradient + momentum * velocity), velocity


def merged_slice(
    rows: Sequence[Body], works: Sequence[int], old: Body, velocity: Body, *, merge: int, number_format: str
) -> tuple[bytes, bytes]:
    """Return weights and velocity of a slice after a merge, from the weights of each member; all in one format.

    In between everything is float32, or float64 where the format is.
    """
    before = widened(old, number_format)
    gradients = before - np.stack([widened(row, number_format) for row in rows])
    gradient = weighted_mean(gradients, works)
    weights, after = nesterov(before, gradient, widened(velocity, number_format), momentum_at(merge))
    return narrowed(weights, number_format), narrowed(after, number_format)


def mean_slice(rows: Sequence[Body], works: Sequence[int], number_format: str) -> bytes:
    """Return the weighted mean of the members' weights: a merge without outer optimizer."""
    return narrowed(weighted_mean(np.stack([widened(row, number_format) for row in rows]), works), number_format)


def widened(body: Body, number_format: str) -> Values:
    """Return values to compute with."""
    if number_format != "bfloat16":
        return np.frombuffer(body, dtype=number_format)
    # numpy has none, but its bits are the upper half of a float32's
    return (np.frombuffer(body, dtype=np.uint16).astype(np.uint32) << 16).view(np.float32)


def narrowed(values: Values, number_format: str) -> bytes:
    """Return values in a format, to nearest, ties to even."""
    if number_format != "bfloat16":
        return values.astype(number_format).tobytes()
    bits = values.astype(np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16).tobytes()
