"""What a training has to say of itself: the block `train` of summary.json, beside all that the simulation says."""

from importlib import metadata
from math import exp, isfinite
from statistics import fmean
from typing import Any

from orionbed.learning.learning import Learning
from orionbed.training.parameters import hash_of
from orionbed.training.shape import parameters_of

Block = dict[str, Any]
_LARGEST_EXPONENT = 700.0


def training_block(learning: Learning, training_s: float, num_played: int) -> Block:
    """Return the block of a training that is over; the last `num_played` micro-batches of it took so many seconds."""
    num_learned, each = len(learning.curve.points), learning.planned.shape.tokens
    block = {
        "model": _model(learning),
        "microbatches": num_learned,
        "tokens": num_learned * each,
        "tokens_each": each,
        "tokens_per_s": num_played * each / training_s if training_s > 0.0 else 0.0,
        "training_s": training_s,
        "loss": _loss(learning),
        "held_out": _held_out(learning),
        "staleness": _staleness(learning),
        "steps": {
            "total": sum(learning.player.num_steps),
            "per_stage": list(learning.player.num_steps),
        },
        "merges": _merges(learning),
        "samples": learning.samples(),
        "weights_hash": _weights_hash(learning),
        "torch": metadata.version("torch"),
    }
    found: Block = _finite(block)
    return found


def _finite(value: Any) -> Any:
    """Return plain data with None for numbers that are none, as the losses of a training that has diverged."""
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not isfinite(value) else value


def _weights_hash(learning: Learning) -> str:
    """Return 16 hexadecimal digits of the weights of all peers."""
    return hash_of("".join(seat.worker.weights_hash() for seat in learning.player.seats).encode())


def _model(learning: Learning) -> Block:
    planned = learning.planned
    shape, plan = planned.shape, planned.plan
    return {
        "kind": plan.scenario.training.model,
        "data": plan.scenario.training.data.kind,
        "num_parameters": sum(parameters_of(shape, chunk) for chunk in range(shape.num_chunks)),
        "layers_per_chunk": list(shape.layers_per_chunk),
        "hidden": shape.hidden,
        "vocab": shape.vocab,
        "boundary_width": shape.boundary_width,
        "boundary_bytes": shape.boundary_bytes,
        "sequence": shape.sequence,
        "sequences": shape.sequences,
        "dtype": shape.dtype,
    }


def _loss(learning: Learning) -> Block:
    points, (first, last) = learning.curve.points, learning.curve.ends()
    return {
        "first": first,
        "last": last,
        "rolling": points[-1].rolling if points else None,
        "rolling_width": learning.training.rolling,
        "mean": fmean(point.loss for point in points) if points else None,
        "curve": [[point.at_s, point.loss] for point in points],
    }


def _held_out(learning: Learning) -> Block:
    loss = learning.held_out[-1].loss
    return {
        "loss": loss,
        "perplexity": exp(min(loss, _LARGEST_EXPONENT)),
        "bits_per_byte": learning.material.bits_per_byte(loss),
        "loss_of_one_replica": learning.loss_of_first(),
        "curve": [[point.tokens, point.loss] for point in learning.held_out],
    }


def _staleness(learning: Learning) -> Block:
    found = learning.player.staleness
    count = sum(each.count for each in found)
    return {
        "mean": sum(each.total for each in found) / count if count else 0.0,
        "largest": max(each.largest for each in found),
        "mean_per_stage": [each.total / each.count if each.count else 0.0 for each in found],
        "largest_per_stage": [each.largest for each in found],
    }


def _merges(learning: Learning) -> Block:
    merges = learning.player.merges
    drifts = [drift for _, _, drift in merges.drifts]
    return {
        "of_stages": sum(merges.num_merges.values()),
        "mean_drift": fmean(drifts) if drifts else None,
        "largest_drift": max(drifts, default=None),
    }
