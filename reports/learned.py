"""What the report says of a training: how well the model has learned, through what, and what it writes."""

from __future__ import annotations

from typing import Any

from reports import formatting as fmt
from reports.run_folder import Run
from reports.sections import Line


def section(run: Run) -> dict[str, Any] | None:
    """Return lines and samples of a training, or None when nothing was trained."""
    if not isinstance(run.get("train"), dict):
        return None
    lines = [_model(run), _held_out(run), _staleness(run), _merges(run), _speed(run)]
    samples = run.get("train.samples")
    return {
        "lines": [line for line in lines if line.value != fmt.ABSENT],
        "samples": [str(text) for text in samples] if isinstance(samples, list) else [],
    }


def _model(run: Run) -> Line:
    layers = run.get("train.model.layers_per_chunk") or []
    note = f"{sum(layers)} layers of width {fmt.number(run.number('train.model.hidden'))} in {len(layers)} pieces"
    note += f"; {fmt.data(run.number('train.model.boundary_bytes'))} cross a boundary per micro-batch"
    return Line("the model", f"{fmt.count(run.number('train.model.num_parameters'))} parameters", note)


def _held_out(run: Run) -> Line:
    bits = run.number("train.held_out.bits_per_byte")
    parts = [
        f"perplexity {fmt.number(run.number('train.held_out.perplexity'), 2)}",
        f"{fmt.number(bits, 3)} bits a byte" if bits is not None else "",
        f"one replica alone {fmt.number(run.number('train.held_out.loss_of_one_replica'), 3)}",
    ]
    value = f"{fmt.number(run.number('train.held_out.loss'), 3)} nats a token"
    return Line("held-out text", value, "; ".join(part for part in parts if part))


def _staleness(run: Run) -> Line:
    value = f"{fmt.number(run.number('train.staleness.mean'), 2)} steps"
    note = f"optimizer steps between a forward and its backward; at most {run.get('train.staleness.largest')}"
    return Line("staleness", value, note)


def _merges(run: Run) -> Line:
    mean, largest = run.number("train.merges.mean_drift"), run.number("train.merges.largest_drift")
    if mean is None:
        return Line("merges of stages", fmt.ABSENT)
    note = f"before them the replicas’ weights lay {fmt.percent(mean)} from their mean, at most {fmt.percent(largest)}"
    return Line("merges of stages", fmt.number(run.number("train.merges.of_stages")), note)


def _speed(run: Run) -> Line:
    tokens = f"{fmt.number(run.number('train.tokens'))} tokens in {fmt.number(run.number('train.microbatches'))}"
    value = f"{fmt.number(run.number('train.tokens_per_s'))} tokens/s"
    return Line("on this machine", value, f"{tokens} micro-batches, on one thread")
