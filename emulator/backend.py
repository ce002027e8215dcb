"""Run a plan on the emulator."""

import time
from collections.abc import Callable
from typing import Any

from emulator.coordinator import Coordinator
from emulator.honesty import emulation_block, not_modelled, refuse
from emulator.inspection import inspect
from emulator.supervisor import Supervisor
from orionbed.emulation import as_emulated, model_shape
from orionbed.fleet.interrupts import run_interruptibly
from orionbed.fleet.orchestra import Orchestra
from orionbed.fleet.outcome import Outcome
from orionbed.fleet.progress import Progress
from orionbed.fleet.supervising import AbortedRunError
from orionbed.journal import in_order
from orionbed.plan import Plan, make_plan
from orionbed.results import RunResult
from orionbed.training.text import require_text


def run(
    plan: Plan,
    *,
    seed: int | None = None,
    progress: Callable[[Any], None] | None = None,
    say: Callable[[str], None] | None = None,
) -> RunResult:
    """Run `plan` with a process for each peer, to its number of tokens, its duration or its merges.

    `say` hears what a user should know while processes start. Raises BackendError for what cannot be emulated.
    """
    the_seed = plan.scenario.run.seed if seed is None else seed
    emulated = make_plan(as_emulated(plan.scenario), the_seed)
    refuse(emulated)
    require_text(emulated.scenario.training.data, model_shape(emulated), the_seed)
    return run_interruptibly(_run(emulated, the_seed, progress, say or (lambda _text: None)))


async def _run(plan: Plan, seed: int, progress: Callable[[Any], None] | None, say: Callable[[str], None]) -> RunResult:
    started = time.perf_counter()
    block = plan.scenario.emulator
    supervisor = Supervisor(plan, seed, say)

    def tell(now_s: float, applied: int, target: int | None, share: float | None = None) -> None:
        if progress is not None:
            progress(Progress(now_s, applied, target, share))

    aborted = ""
    conductor = (Orchestra if block.clock == "paced" else Coordinator)(supervisor, tell)
    end_s = 0.0
    try:
        await supervisor.start()
        if block.clock == "paced":
            scales = supervisor.scales
            say(f"a second of the run takes {scales.time_dilation:g} s here; bytes / {scales.payload_scale:.4g}")
        try:
            end_s = await conductor.run()
        except AbortedRunError as error:
            aborted = str(error)
            end_s = supervisor.last_s()
    finally:
        await supervisor.close()
    done = {m.index for m in supervisor.peers if m.final is not None}
    supervisor.record.close(end_s, done, len(plan.peers))
    outcome = Outcome(plan, supervisor.record, supervisor.members, end_s)
    result = outcome.result(
        "emulator",
        seed=seed,
        wall_s=time.perf_counter() - started,
        scale=supervisor.scales.payload_scale,
        aborted=aborted,
        num_missed=conductor.num_missed,
    )
    result.warnings += not_modelled(plan, supervisor.measured)
    result.backend_block = emulation_block(plan, supervisor, result)
    result.journal = in_order(supervisor.record.entries)
    found = inspect(plan, seed, supervisor.record, supervisor.members, conductor.faults, end_s)
    result.backend_block["audit"] = found.as_json()
    result.faults = conductor.fault_rows(end_s)
    result.aborted = result.aborted or found.void
    result.backend_block["void"] = result.aborted.startswith("void")
    return result
