"""The loss of the model that a run of real processes trained: scaled down in an emulation, its own on hardware."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from reports.figures.drawing import Plot, look, new_figure, quiet
from reports.figures.timeline import rolling_mean, whole
from reports.formatting import number
from reports.palette import BLUE, INK, SKY
from reports.run_folder import Run

Floats = NDArray[np.float64]
_UNITS: Final = ((300.0, 1.0, "seconds"), (7200.0, 60.0, "minutes"), (np.inf, 3600.0, "hours"))
_LEAST_WIDTH: Final = 5
_MAX_POINTS: Final = 2000


def curve(run: Run) -> tuple[Floats, Floats]:
    """Return seconds of the run and losses, as far as both are numbers, in the order of time."""
    points = run.get(f"{run.block}.loss.curve")
    pairs = [p for p in points if isinstance(p, list) and len(p) == 2] if isinstance(points, list) else []
    numbers = np.array([[_float(at), _float(loss)] for at, loss in pairs], dtype=np.float64).reshape(-1, 2)
    numbers = numbers[np.isfinite(numbers).all(axis=1)]
    numbers = numbers[np.argsort(numbers[:, 0], kind="stable")]
    return numbers[:, 0], numbers[:, 1]


def draw(run: Run) -> Plot | None:
    """Draw the loss over the run, or return None when the run trained nothing."""
    at_s, loss = curve(run)
    if len(loss) < 2:
        return None
    width = max(_LEAST_WIDTH, len(loss) // 10)
    what = "step" if run.number("real.steps.measured") else "micro-batch"
    mean = rolling_mean(loss, width)
    unit_s, unit = next((size, name) for limit, size, name in _UNITS if at_s[-1] < limit)
    with look():
        figure = new_figure(2.8)
        axes = figure.add_subplot()
        every = -(-len(loss) // _MAX_POINTS)
        axes.plot(
            at_s[::every] / unit_s, loss[::every], linestyle="none", marker="o", markersize=3.0, color=SKY, alpha=0.7,
            markeredgewidth=0, label=f"each {what}" if every == 1 else f"every {every}th {what}",
        )  # fmt: skip
        axes.plot(at_s / unit_s, whole(mean, width), color=BLUE, linewidth=1.8, label=f"mean over {width}")
        tenth = max(1, len(loss) // 10)
        for value, part in zip(ends(run, loss), (at_s[:tenth], at_s[-tenth:]), strict=True):
            axes.hlines(value, part[0] / unit_s, part[-1] / unit_s, color=INK, linewidth=1.2, linestyle=(0, (4, 2)))
            axes.annotate(
                number(value, 2), ((part[0] + part[-1]) / 2 / unit_s, value), xytext=(0, 4),
                textcoords="offset points", ha="center", color=INK, bbox={"fc": "white", "ec": "none", "pad": 0.5},
            )  # fmt: skip
        axes.set_xlabel(f"{unit} of the run")
        axes.set_ylabel("loss, nats a token")
        axes.margins(x=0.01)
        quiet(axes, grid="y")
        axes.legend(loc="upper right", ncols=2)
        low, high = axes.get_ylim()
        axes.set_ylim(low, high + 0.18 * (high - low))
    rows = list(zip(at_s.tolist(), loss.tolist(), np.round(mean, 6).tolist(), strict=True))
    columns = ("at_s", "loss", f"loss_mean_{width}")
    return Plot("loss", f"The loss of the {_model(run)}", _reading(run, loss), figure, columns, rows)


def ends(run: Run, loss: Floats) -> tuple[float, float]:
    """Return the mean losses of the first and of the last tenth, the summary's where it has them."""
    tenth = max(1, len(loss) // 10)
    first, last = (run.number(f"{run.block}.loss.{key}") for key in ("first", "last"))
    return (
        float(loss[:tenth].mean()) if first is None else first,
        float(loss[-tenth:].mean()) if last is None else last,
    )


def _model(run: Run) -> str:
    return "scaled-down model" if run.block == "emulator" else "scenario’s model"


def _reading(run: Run, loss: Floats) -> str:
    first, last = ends(run, loss)
    if last < first:
        goes, shows = "falls", "shows that training works, not"
    else:
        goes, shows = "does not fall", "shows neither that training works nor"
    goes += f" (first tenth {number(first, 2)} on average, last tenth {number(last, 2)})"
    text = f"The loss of the {_model(run)} on synthetic text {goes}: it {shows} how well "
    text += "the scenario’s model learns" if run.block == "emulator" else "it learns from real text"
    given = run.get(f"{run.block}.loss.curve")
    broken = len(given) - len(loss) if isinstance(given, list) else 0
    return f"{text}; {number(broken)} losses were no finite numbers and are left out." if broken else f"{text}."


def _float(value: object) -> float:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else float("nan")
