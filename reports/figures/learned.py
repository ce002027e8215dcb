"""The loss of a training, against the tokens learned from and against the time of the simulated run."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from reports.figures.drawing import Plot, look, new_figure, quiet
from reports.formatting import number
from reports.palette import BLUE, INK, SKY, VERMILLION
from reports.run_folder import Run

Floats = NDArray[np.float64]
_MAX_POINTS: Final = 1500
_UNITS: Final = ((600.0, 1.0, "seconds"), (14400.0, 60.0, "minutes"), (np.inf, 3600.0, "hours"))


def draw(run: Run) -> Plot | None:
    """Draw the loss of each micro-batch with its rolling mean, and held-out losses; None where nothing was trained."""
    curve, held_out = _pairs(run, "train.loss.curve"), _pairs(run, "train.held_out.curve")
    each, width = run.number("train.tokens_each"), int(run.number("train.loss.rolling_width") or 1)
    if len(curve) < 2 or not each:
        return None
    at_s, loss = curve[:, 0], curve[:, 1]
    tokens = each * np.arange(1, len(loss) + 1)
    mean = trailing_mean(loss, width)
    unit_s, unit = next((size, name) for limit, size, name in _UNITS if at_s[-1] < limit)
    scale, word = (1e6, "million tokens") if tokens[-1] >= 1e6 else (1e3, "thousand tokens")
    every = -(-len(loss) // _MAX_POINTS)
    with look():
        figure = new_figure(3.2)
        left, right = figure.subplots(1, 2, sharey=True)
        for axes, x in ((left, tokens / scale), (right, at_s / unit_s)):
            axes.plot(
                x[::every], loss[::every], linestyle="none", marker="o", markersize=2.2, color=SKY, alpha=0.5,
                markeredgewidth=0, label="each micro-batch" if every == 1 else f"one micro-batch in {every}",
            )  # fmt: skip
            axes.plot(x, mean, color=BLUE, linewidth=1.8, label=f"mean of the last {width}")
            axes.margins(x=0.01)
            quiet(axes, grid="y")
        if len(held_out):
            left.plot(
                held_out[:, 0] / scale, held_out[:, 1], color=VERMILLION, marker="D", markersize=4.0, linewidth=1.0,
                label="held out, mean of replicas",
            )  # fmt: skip
        left.set_xlabel(f"{word} learned from")
        right.set_xlabel(f"{unit} of the simulated run")
        left.set_ylabel("loss, nats a token", color=INK)
        left.legend(loc="upper right")
    rows = list(zip(at_s.tolist(), tokens.tolist(), loss.tolist(), np.round(mean, 6).tolist(), strict=True))
    columns = ("at_s", "tokens", "loss", f"loss_mean_{width}")
    return Plot("loss", "The loss of the trained model", _reading(run), figure, columns, rows)


def trailing_mean(values: Floats, width: int) -> Floats:
    """Return the mean of each value and the `width` - 1 before it, of fewer at the beginning."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    high = np.arange(1, len(values) + 1)
    low = np.maximum(high - width, 0)
    mean: Floats = (sums[high] - sums[low]) / (high - low)
    return mean


def _pairs(run: Run, key: str) -> Floats:
    points = run.get(key)
    pairs = [p for p in points if isinstance(p, list) and len(p) == 2] if isinstance(points, list) else []
    return np.array(pairs, dtype=np.float64).reshape(-1, 2)  # None is NaN, which is not drawn


def _reading(run: Run) -> str:
    first, last = run.number("train.loss.first"), run.number("train.loss.last")
    text = f"The loss goes from {number(first, 2)} in the first tenth to {number(last, 2)} in the last"
    if last is None:
        text = "The training has diverged: its last losses are no numbers"
    held_out = run.number("train.held_out.loss")
    if held_out is not None:
        text += f"; on held-out text it is {number(held_out, 2)} in the end"
    return f"{text}. Both axes show the same micro-batches, in the order in which the first stage used them."
