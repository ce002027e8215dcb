"""What `check` says before a run: limits by hand."""

import pytest

from orionbed.estimate import estimate
from orionbed.plan import Plan, make_plan
from orionbed.scenario import apply, load


def plan(*, speed: object = 1.0, **run: object) -> Plan:
    values = {"tokens": None, "duration": None, **run}
    changes = {"run.duration": 7200.0, "peers.speed": speed} | {f"run.{key}": value for key, value in values.items()}
    return make_plan(apply(load("minimal"), changes))


def tokens_per_s_of_one_peer() -> float:
    """Of a peer of average speed on the stage with most to do."""
    made = plan(duration=7200.0)
    return made.tokens_per_microbatch / max(stage.microbatch_s for stage in made.stages)


def test_the_fullest_stage_limits_the_rate() -> None:
    found = estimate(plan(duration=7200.0))
    assert found["max_tokens_per_s"] == pytest.approx(2 * tokens_per_s_of_one_peer())
    per_peer = 6 * found["num_parameters"] * found["max_tokens_per_s"] / 8
    assert found["max_mfu"] == pytest.approx(per_peer / 312e12)
    assert 0.0 < found["max_mfu"] < 1.0


def test_fast_peers_raise_the_limit() -> None:
    """A limit that a run can exceed is none."""
    twice = estimate(plan(duration=7200.0, speed=2.0))
    assert twice["max_tokens_per_s"] == pytest.approx(2 * 2 * tokens_per_s_of_one_peer())
    drawn = plan(duration=7200.0, speed={"dist": "uniform", "low": 0.5, "high": 1.5})
    by_stage = [
        sum(peer.speed for peer in drawn.peers if peer.stage == stage.index) / stage.microbatch_s
        for stage in drawn.stages
    ]
    assert estimate(drawn)["max_tokens_per_s"] == pytest.approx(drawn.tokens_per_microbatch * min(by_stage))


def test_a_run_that_ends_by_time() -> None:
    found = estimate(plan(duration=7200.0))
    assert found["min_hours"] == pytest.approx(2.0)
    assert found["min_gpu_usd"] == pytest.approx(2 * 8 * 1.25)
    assert found["estimate_line"] == "2.0 h on 8 GPUs cost $20.00"


def test_a_run_that_ends_by_tokens() -> None:
    found = estimate(plan(tokens=1e12))
    assert found["min_hours"] == pytest.approx(1e12 / found["max_tokens_per_s"] / 3600)
    assert found["min_gpu_usd"] == pytest.approx(found["min_hours"] * 10.0)
    assert found["estimate_line"].startswith("1000 B tokens take at least ")


@pytest.mark.parametrize(("tokens", "hours"), [(1e15, 2.0), (1.0, 0.0)])
def test_a_run_with_two_ends_ends_at_the_first(tokens: float, hours: float) -> None:
    found = estimate(plan(tokens=tokens, duration=7200.0))
    assert found["min_hours"] == pytest.approx(hours, abs=1e-6)


def test_memory_line() -> None:
    made = plan(duration=7200.0)
    found = estimate(made)
    fullest = max(stage.memory.total_bytes for stage in made.stages)
    assert found["fits"] is True
    assert fullest < found["memory_bytes"] == 80e9
    assert f"{fullest / 1e9:.1f} of 80 GB" in found["memory_line"]
    assert "does not fit" not in found["memory_line"]
