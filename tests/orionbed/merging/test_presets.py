"""Named merges: each is a scenario, and who but the simulator can run it."""

import pytest

from orionbed.merging.presets import PRESETS
from orionbed.scenario import apply, load
from orionbed.scenario.merging import Merge


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_makes_a_scenario(name: str) -> None:
    orion = load("orion-100b")
    changed = apply(orion, PRESETS[name].changes(orion.pipeline.replicas))
    assert isinstance(changed.merge, Merge)
    assert isinstance(orion.merge, Merge)
    assert changed.merge.every == orion.merge.every
    assert bool(changed.merge.only_simulated) == (not name.startswith("butterfly"))
    assert PRESETS[name].about


def test_the_butterfly_is_what_orion_does() -> None:
    orion = load("orion-100b")
    assert isinstance(orion.merge, Merge)
    changed = apply(orion, PRESETS["butterfly"].changes(3)).merge
    assert isinstance(changed, Merge)
    assert changed.model_copy(update={"via": "object-storage"}) == orion.merge
    assert changed.through_storage


@pytest.mark.parametrize(("replicas", "size"), [(1, 2), (3, 2), (4, 2), (9, 3), (10, 4)])
def test_moshpits_grid_has_two_dimensions(replicas: int, size: int) -> None:
    assert PRESETS["moshpit"].changes(replicas)["merge.group_size"] == size


def test_a_deadline_stays_where_somebody_waits() -> None:
    patient = apply(load("orion-100b"), {"merge.deadline": {"kind": "all"}})
    kept = apply(patient, PRESETS["butterfly"].changes(3)).merge
    none = apply(patient, PRESETS["noloco"].changes(3)).merge
    assert isinstance(kept, Merge)
    assert isinstance(none, Merge)
    assert kept.gate.kind == "all"
    assert none.deadline is None
