"""Peers with different GPUs on the emulator: each takes as long as its own GPU."""

from collections.abc import Callable

import pytest

from emulator.honesty import not_modelled
from orionbed.crosscheck import crosscheck
from orionbed.plan import make_plan
from orionbed.scenario import Scenario

Tiny = Callable[..., Scenario]


def mixed(tiny: Tiny, natted: float = 0.0) -> Scenario:
    groups = [
        {"name": "large", "count": 1, "gpu": "a100-80gb", "sites": "virginia"},
        {"name": "small", "count": 2, "gpu": "rtx-4090-24gb", "sites": "oregon", "speed": 0.7, "natted": natted},
    ]
    return tiny(peers__gpu=None, peers__sites=None, peers__groups=groups, run__tokens=4 * 16384.0)


@pytest.mark.slow
@pytest.mark.xdist_group("emulator")
def test_unequal_gpus_take_what_the_simulator_says(tiny: Tiny) -> None:
    (found,), _ = crosscheck(mixed(tiny), [0])
    assert not found.void
    assert found.same_order
    assert found.error == pytest.approx(0.0, abs=1e-9)


def test_relays_are_said_not_to_be_emulated(tiny: Tiny) -> None:
    plan = make_plan(mixed(tiny, natted=1.0))
    assert any("relays are not emulated" in entry["message"] for entry in not_modelled(plan, {}))
    assert not any("relays" in entry["message"] for entry in not_modelled(make_plan(mixed(tiny)), {}))
