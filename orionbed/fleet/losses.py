"""The losses of a run as its summary has them."""

from collections.abc import Sequence
from math import isfinite
from typing import Any, Final

_SHARES: Final = 10


def losses_of(curve: Sequence[tuple[float, float]]) -> dict[str, Any]:
    """Return the mean losses of the first and the last tenth of a curve of (second of the run, loss), and the curve.

    A loss that is no finite number, as of a run that has diverged, is None: JSON cannot say it.
    """
    losses = [loss for _, loss in curve]
    part = max(1, len(losses) // _SHARES)
    return {
        "first": _mean(losses[:part]),
        "last": _mean(losses[-part:]),
        "curve": [[at_s, _told(loss)] for at_s, loss in curve],
    }


def _mean(losses: Sequence[float]) -> float | None:
    return _told(sum(losses) / len(losses)) if losses else None


def _told(loss: float) -> float | None:
    return loss if isfinite(loss) else None
