"""Run a plan on hardware."""

import time
from collections.abc import Callable
from typing import Any

from orionbed.fleet.interrupts import run_interruptibly
from orionbed.plan import Plan
from orionbed.results import RunResult
from real.honesty import common_block, not_modelled
from real.prepared import Prepared, prepare


def run(
    plan: Plan,
    *,
    seed: int | None = None,
    progress: Callable[[Any], None] | None = None,
    say: Callable[[str], None] | None = None,
) -> RunResult:
    """Run `plan` with a process for each peer, to its number of tokens, its duration or its merges.

    Raises:
        BackendError: it cannot be run on hardware, or could not be started.

    """
    the_seed = plan.scenario.run.seed if seed is None else seed
    tell = say or (lambda _text: None)
    prepared = prepare(plan, the_seed, tell)
    started = time.perf_counter()
    result = run_interruptibly(_run(prepared, progress or (lambda _state: None), tell))
    result.wall_s = time.perf_counter() - started
    result.warnings += not_modelled(prepared)
    result.backend_block = common_block(prepared) | result.backend_block
    result.has_baseline = prepared.profile_is_of_device
    return result


async def _run(prepared: Prepared, progress: Callable[[Any], None], say: Callable[[str], None]) -> RunResult:
    if prepared.queue:
        from real.queued.run import run_queue

        return await run_queue(prepared, progress, say)
    from real.static.run import run_static

    return await run_static(prepared, progress, say)
