"""What the summary says of losses, also of a run that has diverged."""

import json
from math import inf, nan

from orionbed.fleet.losses import losses_of


def test_the_ends_are_means_of_a_tenth() -> None:
    curve = [(float(second), 100.0 - second) for second in range(20)]
    found = losses_of(curve)
    assert (found["first"], found["last"]) == (99.5, 81.5)
    assert found["curve"] == [list(point) for point in curve]
    assert losses_of([]) == {"first": None, "last": None, "curve": []}


def test_a_run_that_has_diverged_can_be_written_down() -> None:
    found = losses_of([(0.0, 4.0), (1.0, inf), (2.0, nan)])
    assert found == {"first": 4.0, "last": None, "curve": [[0.0, 4.0], [1.0, None], [2.0, None]]}
    json.dumps(found, allow_nan=False)
