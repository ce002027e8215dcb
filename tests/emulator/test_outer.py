"""Merges of a whole run, with the outer optimizer, held against the plain model's in one process."""

import base64
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from emulator.api import run
from orionbed.emulation import model_shape
from orionbed.plan import Plan, make_plan
from orionbed.scenario import Scenario
from orionbed.training.outer import momentum_at, nesterov

Tiny = Callable[..., Scenario]
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("emulator")]

MERGING: dict[str, Any] = {
    "model__layers": 8,
    "pipeline__stages": 2,
    "pipeline__replicas": 2,
    "pipeline__schedule": {"kind": "1f1b", "microbatches": 2},
    "peers__sites": {"virginia": 3, "oregon": 1},
    "network__uplink": 10e9,
    "network__downlink": 10e9,
    "network__transport": {"window": 64.0 * 2**20},
    "merge": {"every": 8.0, "compute": 1.0},
    "run__tokens": None,
    "run__duration": 900.0,
    "emulator": {"clock": "paced", "merges": 2, "dtype": "float64", "reference": True},
    # The second pipeline does less, and weighs less.
    "faults": {"list": [{"id": "s1", "at": 1.0, "kind": "slow", "target": "replica:1", "compute_factor": 2.0}]},
}


def expected(plan: Plan, seed: int, record: Any) -> tuple[list[Any], list[list[int]]]:
    """Return the weights of each chunk after the last merge, and what each pipeline had done before every merge."""
    import torch

    from orionbed.training.serial import SerialModel

    shape = model_shape(plan)
    models = [
        SerialModel(shape, seed=seed, optimizer=plan.scenario.training.optimizer) for _ in range(plan.num_replicas)
    ]
    steps: list[dict[int, set[int]]] = [defaultdict(set) for _ in models]
    for entry in record.entries:
        if entry.event == "applied":
            steps[entry.replica][entry.step].add(entry.microbatch)
        elif entry.event == "dropped":  # with a step that was given up
            steps[entry.replica][entry.step].discard(entry.microbatch)
    versions = {entry.step for entry in record.entries if entry.event == "committed"}
    merges = sorted(version for version in versions if not any(each[version] for each in steps))
    parts = [len(part) for part in models[0].weights()]
    old = torch.cat(models[0].weights()).numpy()
    velocity, done, before = np.zeros_like(old), [], 0
    for number, version in enumerate(merges):
        batches = [[sorted(each[s]) for s in sorted(each) if before < s < version and each[s]] for each in steps]
        for model, mine in zip(models, batches, strict=True):
            for batch in mine:
                model.step(batch)
        works = [sum(map(len, mine)) for mine in batches]
        rows = [torch.cat(model.weights()).numpy() for model in models]
        gradient = old - np.average(rows, axis=0, weights=works)
        old, velocity = nesterov(old, gradient, velocity, momentum_at(number))
        for model in models:
            parameters = [parameter for module in model.modules for parameter in module.parameters()]
            values = torch.tensor(old).split([parameter.numel() for parameter in parameters])
            with torch.no_grad():
                for parameter, value in zip(parameters, values, strict=True):
                    parameter.copy_(value.view_as(parameter))
        done.append(works)
        before = version
    return np.split(old, np.cumsum(parts)[:-1]), done


def test_replicas_end_with_the_weights_that_one_process_would_have(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Any] = []
    monkeypatch.setattr("emulator.inspection.reference_difference", lambda *what: told.extend(what))
    result = run(make_plan(tiny(**MERGING)))
    assert not result.aborted
    plan, seed, record, members = told
    wanted, works = expected(plan, seed, record)
    assert len(works) == 2
    assert all(first > second > 0 for first, second in works)
    (store,) = (member.final for member in members if member.role == "store")
    assert (store["agreeing"], store["disagreeing"]) == (2 * 2, 0)  # both holders of the one slice of each stage, twice
    ends = [member for member in members if member.role == "peer"]
    assert len(ends) == 4
    for member in ends:
        chunks = plan.chunks_of(plan.peers[member.index].stage)
        there = np.frombuffer(base64.b64decode(member.final["weights"]))
        should = np.concatenate([wanted[chunk] for chunk in chunks])
        assert there == pytest.approx(should, rel=0.0, abs=1e-10 * np.abs(should).max())
    for stage in range(2):
        replicas = {m.final["weights"] for m in ends if plan.peers[m.index].stage == stage}
        assert len(replicas) == 1
