"""Which of a scenario's pieces a calibrated profile has measured, and which it has not."""

from math import log

import numpy as np

from orionbed.model import Transformer
from orionbed.scenario import GpuProfile, Scenario
from orionbed.scenario.measurements import MeasuredPieces, PassTimes, Piece
from orionbed.scenario.schedules import NarrowBoundary

OPTIMIZER = "optimizer"


def times_of(
    gpu: GpuProfile,
    piece: Piece,
    model: Transformer,
    tokens: int,
    *,
    sequence: int | None = None,
    boundary: int | None = None,
) -> PassTimes | None:
    """Return the measured times of a piece on one GPU, or None where no entry has its shape and number format.

    Only what the piece's time depends on must be equal: all of the model but its vocabulary for a `layer`, width and
    vocabulary for the ends, width and `boundary` for encoder and decoder; the tokens of a micro-batch always.
    """
    for entry in gpu.measured:
        shape = entry.shape
        if piece not in entry.pieces or not _same_family(entry, model) or shape.tokens != tokens:
            continue
        if piece == "layer":
            same = (shape.ffn, shape.heads, shape.kv_heads) == (model.ffn, model.heads, model.kv_heads)
            same &= shape.sequence == sequence and model.attention == "flash"
        elif piece in {"embedding", "head"}:
            same = shape.vocab == model.vocab
        else:
            same = shape.boundary == boundary
        if same:
            return entry.pieces[piece]
    return None


def step_per_parameter_s(gpu: GpuProfile, model: Transformer, parameters: int) -> float | None:
    """Return the seconds of an optimizer step per parameter as measured with stages of such layers, or None.

    Between two measured numbers of parameters it is interpolated over their logarithm; outside the nearest holds.
    """
    for entry in gpu.measured:
        if entry.optimizer and _same_family(entry, model) and entry.shape.ffn == model.ffn:
            sizes = [log(step.parameters) for step in entry.optimizer]
            return float(np.interp(log(parameters), sizes, [step.per_parameter.median for step in entry.optimizer]))
    return None


def _same_family(entry: MeasuredPieces, model: Transformer) -> bool:
    """Whether an entry is of Llama blocks of the model's width and number format, the only ones that are measured."""
    return model.block == "llama" and (entry.shape.hidden, entry.shape.dtype) == (model.hidden, model.dtype)


def uncovered(gpu: GpuProfile, scenario: Scenario) -> list[str]:
    """Return the pieces of a scenario that a calibrated profile has not measured.

    Empty for profiles made by hand, and where the scenario gives an efficiency or times of its own.
    """
    if not gpu.measured:
        return []
    peers, model, tokens = scenario.peers, scenario.model, scenario.batch.tokens
    if not isinstance(peers.efficiency, str) or peers.measured is not None:
        return []
    pieces: list[Piece] = ["layer", "embedding", "head"]
    boundary = scenario.pipeline.boundary
    # Only single matrices are ever measured.
    width = boundary.matrix_width if isinstance(boundary, NarrowBoundary) else None
    if isinstance(boundary, NarrowBoundary) and scenario.pipeline.stages > 1:
        pieces += ["encoder", "decoder"]
    sequence = scenario.batch.sequence
    missing: list[str] = [
        piece
        for piece in pieces
        if peers.gpus > 1 or times_of(gpu, piece, model, tokens, sequence=sequence, boundary=width) is None
    ]
    if peers.gpus > 1 or step_per_parameter_s(gpu, model, 1) is None:
        missing.append(OPTIMIZER)
    return missing


def shape_in_words(scenario: Scenario) -> str:
    """Return the shape of a scenario's stages, as a measurement names it."""
    model, batch, boundary = scenario.model, scenario.batch, scenario.pipeline.boundary
    narrow = f", boundary {boundary.width}" if isinstance(boundary, NarrowBoundary) else ""
    gpus = f", cut over {scenario.peers.gpus} GPUs" if scenario.peers.gpus > 1 else ""
    return (
        f"hidden {model.hidden}, ffn {model.ffn}, heads {model.heads}/{model.kv_heads}, vocab {model.vocab}, "
        f"{batch.sequences} x {batch.sequence} tokens{narrow}, {model.dtype}{gpus}"
    )
