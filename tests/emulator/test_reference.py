"""The plain model that final weights are held against: how far they are off, whoever's they are."""

import base64
from collections.abc import Callable
from math import isnan, nan
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from emulator.reference import reference_difference
from orionbed.emulation import model_shape
from orionbed.plan import make_plan
from orionbed.scenario import Scenario


def test_the_peer_that_is_furthest_off_counts(tiny: Callable[..., Scenario]) -> None:
    pytest.importorskip("torch")
    from orionbed.training.serial import train_serially

    plan = make_plan(tiny())
    shape, nothing_applied = model_shape(plan), SimpleNamespace(entries=[])
    first = train_serially(shape, 0, [], plan.scenario.training.optimizer)

    def difference(*factors: float) -> float | None:
        weights = [np.float32(factor * w.numpy()).tobytes() for factor, w in zip(factors, first, strict=True)]
        members: Any = [
            SimpleNamespace(index=stage, final={"version": 0, "weights": base64.b64encode(body).decode()})
            for stage, body in enumerate(weights)
        ]
        return reference_difference(plan, 0, nothing_applied, members)  # type: ignore[arg-type]

    assert difference(1.0, 1.0, 1.0) == 0.0
    assert difference(1.0, 1.5, 1.25) == pytest.approx(0.5)
    for factors in ((nan, 1.0, 1.0), (1.0, 1.0, nan)):
        found = difference(*factors)
        assert found is not None
        assert isnan(found)
