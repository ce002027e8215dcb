"""What calibration offers to the command line: measure, write the profile, check it."""

import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from orionbed import measured as lookup
from orionbed import model as arithmetic
from orionbed.backends import BackendError
from orionbed.plan import Plan, make_plan
from orionbed.runs import command_line
from orionbed.scenario import GpuProfile, Scenario, apply, gpu_profile
from orionbed.scenario.measurements import OptimizerStep, PassTimes, Piece
from orionbed.training.shape import BYTES_PER_VALUE, ModelShape, parameters_of
from orionbed.training.threads import with_threads
from real.calibration import check, copies
from real.calibration import profile_file as profile
from real.calibration.caches import emptying
from real.calibration.devices import FoundDevice, clocks_of, find_device
from real.calibration.fitting import MOST_OF_MEMORY, TENSORS_OF_STATE, Room, free_bytes
from real.calibration.matmuls import measure_rates
from real.calibration.measure import (
    Clock,
    Effort,
    HostClock,
    Timed,
    Times,
    clock_of,
    held_up,
    measure,
    median_of,
    spread_of,
)
from real.calibration.pieces import LAYERS_IN_A_GRAPH, STEP_SIZES, optimizer_steps, pass_times, pieces_of
from real.calibration.policies import Layers
from real.calibration.table import GIGA
from real.calibration.whole import RECOMPUTE, WholeStage, recompute_factor
from real.settings import DeviceKind, real_shape

Say = Callable[[str], None]
_WHOLE, _STEP = "stage ", "step "


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of it: lines for a terminal, data for JSON, and whether the profile predicts whole stages."""

    lines: list[str]
    plain: dict[str, Any]
    passed: bool


@dataclass(frozen=True, slots=True)
class Target:
    """What is measured: the pieces of a scenario's model, and the stages that the profile is held against."""

    scenario: Scenario
    plan: Plan
    shape: ModelShape
    chunks: tuple[int, ...]


def calibrate(
    scenario: Scenario,
    *,
    device: DeviceKind,
    stage: int | None,
    threads: int,
    out: Path | None,
    check_only: Path | None,
    repetitions: int,
    say: Say,
) -> Outcome:
    """Measure the pieces of a scenario's stages on a device, write a profile, and check it on whole stages.

    With `check_only` a profile that is there is checked and nothing is written.

    Raises:
        BackendError: there is no such device or stage, or the scenario cannot run on hardware.

    """
    found = find_device(device, threads)
    target = target_of(scenario, device, stage, say)
    if device == "cpu":
        refuse_too_large(target, found)
    clock, effort = clock_of(device, threads), Effort(repetitions, warm_up=min(5, repetitions))
    with with_threads(threads):
        if check_only is not None:
            given = gpu_profile(str(check_only))
            refuse_uncovered(given, target, check_only)
            say(f"timing whole stages of {target.scenario.name}, {repetitions} times")
            with_empty_caches(clock)
            wholes = time_stages(target, found, clock, effort, say)
            rows = check.compare(given, target.scenario, target.shape, wholes)
            return outcome(rows, target, remarks(clock), {"profile": str(check_only)})
        findings, wholes = measure_all(found, target, clock, effort, say)
    path = out or Path(f"{found.name}.yaml")
    findings.notes += remarks(clock)
    findings.kept = profile.kept_entries(path, found, target.shape)
    made = profile.build(findings)
    path.write_text(profile.to_text(made, findings), encoding="utf-8")
    # What is checked is the file that others will read.
    written = gpu_profile(str(path))
    rows = check.compare(written, target.scenario, target.shape, wholes)
    lines = [*profile.summary_lines(made, findings), f"profile    {path}", *remarks(clock)]
    return outcome(rows, target, lines, {"profile": str(path), "name": made.name})


def with_empty_caches(clock: Clock) -> None:
    """Have everything that a CPU's clock times from now on begin with empty caches, as in a pipeline."""
    if isinstance(clock, HostClock):
        clock.between = emptying()


def remarks(clock: Clock) -> list[str]:
    """Return what a reader of the measurement should know of it."""
    said = held_up(clock)
    return [said] if said else []


def target_of(scenario: Scenario, device: DeviceKind, stage: int | None, say: Say) -> Target:
    """Return what is measured for a scenario on a device: in bf16 on a GPU and in fp32 on a CPU, unless it says so."""
    plan = make_plan(scenario)
    shape = real_shape(plan, device)
    if shape.dtype not in profile.FORMATS:
        raise BackendError(f"real.dtype {shape.dtype} has no place in a profile; use bfloat16 or float32")
    if scenario.model.block != "llama" or scenario.peers.gpus != 1:
        raise BackendError("only llama blocks on one GPU per peer can be measured; set model.block and peers.gpus")
    dtype = profile.FORMATS[shape.dtype]
    if scenario.model.dtype != dtype:
        say(
            f"{scenario.name} has model.dtype {scenario.model.dtype}, and {dtype} is what runs on this device: "
            f"the profile covers it with --set model.dtype={dtype}"
        )
        scenario = apply(scenario, {"model.dtype": dtype})
        plan = make_plan(scenario)
    if stage is not None and not 0 <= stage < shape.num_chunks:
        raise BackendError(f"--stage {stage}: {scenario.name} has stages 0 to {shape.num_chunks - 1}")
    return Target(scenario, plan, shape, (stage,) if stage is not None else _kinds_of_stages(shape))


def _kinds_of_stages(shape: ModelShape) -> tuple[int, ...]:
    """Return the first stage, one in the middle and the last, as far as they are different."""
    last = shape.num_chunks - 1
    return tuple(sorted({0, (last + 1) // 2, last}))


def refuse_too_large(target: Target, device: FoundDevice) -> None:
    """Raise BackendError where the stages to be checked and the pieces would not fit the memory of this machine."""
    shape, width = target.shape, BYTES_PER_VALUE[target.shape.dtype]
    stages = sum(TENSORS_OF_STATE * width * parameters_of(shape, chunk) for chunk in target.chunks)
    ends = 2 * arithmetic.embedding_parameters(target.scenario.model)
    layers = LAYERS_IN_A_GRAPH * arithmetic.layer_parameters(target.scenario.model)
    needed = stages + 2 * width * (ends + layers)
    if needed > MOST_OF_MEMORY * device.memory_bytes:
        raise BackendError(
            f"stages {', '.join(map(str, target.chunks))} of {target.scenario.name} and their pieces take "
            f"{needed / GIGA:.0f} GB for weights, gradients and moments, and this machine has "
            f"{device.memory_bytes / GIGA:.0f}; choose one with --stage, or make the model smaller with --set"
        )


def refuse_uncovered(given: GpuProfile, target: Target, path: Path) -> None:
    """Raise BackendError where a profile has not measured what it is to be checked on."""
    missing = lookup.uncovered(given, target.scenario) if given.measured else ["anything"]
    if missing:
        raise BackendError(
            f"{path} has no measurement of {', '.join(missing)} at {lookup.shape_in_words(target.scenario)}; "
            f"calibrate that scenario first"
        )


def measure_all(
    device: FoundDevice, target: Target, clock: Clock, effort: Effort, say: Say
) -> tuple[profile.Findings, dict[int, Times]]:
    """Return what a calibration finds, and the times of the whole stages that it is checked on.

    On a CPU pieces and stages take turns, so that a change of the machine's load bears on both; a GPU that is large
    enough for a stage may have no room for its pieces besides.
    """
    started_s = time.monotonic()
    say(f"multiplies and other kernels, {effort.repetitions} times each")
    rates = measure_rates(target.shape, device.kind, clock, effort)
    say(f"pieces of stages and whole stages ({', '.join(map(str, target.chunks))}) in turn")
    with_empty_caches(clock)
    if device.kind == "cpu":
        timed = [*pieces_of(target.shape, "cpu"), *_steps(target, "cpu"), *stages_of(target)]
        times = measure(timed, clock, effort)
        wholes = _by_chunk(times)
    else:
        times = time_alone(target, clock, effort)
        wholes = time_stages(target, device, clock, effort, say)
    say("copies and the loopback")
    found = profile.Findings(
        device=device,
        shape=target.shape,
        rates=rates,
        pieces=pieces_in(times),
        optimizer=optimizer_of(target.shape, times, wholes),
        loopback=copies.measure_loopback(),
        copies=copies.measure_device_copies(clock, effort) if device.kind == "cuda" else None,
        recompute_factor=recompute_of(wholes),
        clock=clocks_of(device),
        date=datetime.now(UTC).date().isoformat(),
        command=shlex.join(command_line()),
    )
    say(f"measured in {time.monotonic() - started_s:.0f} s")
    return found, wholes


def time_alone(target: Target, clock: Clock, effort: Effort) -> dict[str, Times]:
    """Return the times of the pieces and of optimizer steps on a GPU, the former gone before the latter come."""
    free_memory("cuda")
    times = measure(pieces_of(target.shape, "cuda"), clock, effort)
    free_memory("cuda")
    for timed in _steps(target, "cuda"):
        times |= measure([timed], clock, effort)
    free_memory("cuda")
    return times


def _steps(target: Target, device: DeviceKind) -> list[Timed]:
    sizes = {parameters_of(target.shape, chunk) for chunk in target.chunks}
    return optimizer_steps(target.shape, device, sorted(set(STEP_SIZES[device]) - sizes))


def optimizer_of(shape: ModelShape, times: Mapping[str, Times], wholes: Mapping[int, Times]) -> list[OptimizerStep]:
    """Return optimizer steps by number of parameters: those timed alone, and those of whole stages."""
    steps = {int(name.removeprefix(_STEP)): found["step"] for name, found in times.items() if name.startswith(_STEP)}
    steps |= {parameters_of(shape, chunk): found["step"] for chunk, found in wholes.items() if "step" in found}
    return [
        OptimizerStep(parameters=size, per_parameter=spread_of(seconds, per=size))
        for size, seconds in sorted(steps.items())
    ]


def recompute_of(wholes: Mapping[int, Times]) -> float | None:
    """Return what recompute adds to a backward, in forwards: the median over the whole stages that did it."""
    factors = [each for times in wholes.values() if RECOMPUTE[0] in times for each in recompute_factor(times)]
    return median_of(factors) if factors else None


def stages_of(target: Target) -> list[Timed]:
    """Return the whole stages of a target on a CPU, ready to be timed."""
    return [WholeStage(target.shape, chunk, "cpu").timed(f"{_WHOLE}{chunk}") for chunk in target.chunks]


def time_stages(target: Target, device: FoundDevice, clock: Clock, effort: Effort, say: Say) -> dict[int, Times]:
    """Return the times of whole stages; on a CPU they take turns, on a GPU one after the other is in memory.

    Raises:
        BackendError: none of them fits the GPU.

    """
    if device.kind == "cpu":
        return _by_chunk(measure(stages_of(target), clock, effort))
    kept = Layers(target.shape, 1, device.kind).kept_bytes()
    free_memory(device.kind)
    room = Room(free_bytes(device), kept)
    found: dict[int, Times] = {}
    for chunk in target.chunks:
        passes = room.passes(target.shape, chunk)
        needed = room.needed_bytes(target.shape, chunk, halves=False)
        if not passes:
            say(f"stage {chunk} is left out: it needs {needed / GIGA:.1f} of {room.free_bytes / GIGA:.1f} GB")
            continue
        timed = WholeStage(target.shape, chunk, device.kind).timed(f"{_WHOLE}{chunk}", passes)
        found |= _by_chunk(measure([timed], clock, effort))
        del timed
        free_memory(device.kind)
    if not found:
        raise BackendError(
            "no whole stage fits this GPU, so the profile cannot be checked; `python -m real.gpu_check` times as many "
            "layers as fit"
        )
    return found


def _by_chunk(times: dict[str, Times]) -> dict[int, Times]:
    return {int(name.removeprefix(_WHOLE)): found for name, found in times.items() if name.startswith(_WHOLE)}


def pieces_in(times: Mapping[str, Times]) -> dict[Piece, PassTimes]:
    """Return what a profile says of the pieces that were timed."""
    names: tuple[Piece, ...] = ("layer", "embedding", "head", "encoder", "decoder")
    return {name: pass_times(name, times[name]) for name in names if name in times}


def free_memory(device: DeviceKind) -> None:
    """Give the GPU's memory that nothing holds any more back to it."""
    import gc

    import torch

    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()


def outcome(rows: Sequence[check.Row], target: Target, lines: list[str], plain: dict[str, Any]) -> Outcome:
    """Return the end of a calibration, its table last."""
    passed = all(row.passed for row in rows)
    worst = max((row for row in rows if row.what in check.HELD), key=lambda row: abs(row.error))
    verdict = (
        f"{'ok' if passed else 'FAILED'}: furthest off is the {worst.what} of stage {worst.chunk}, "
        f"{worst.error:+.1%}; {check.TOLERANCE:.0%} are allowed"
    )
    return Outcome(
        [*lines, *check.lines_of(rows, target.shape), verdict],
        {**plain, "passed": passed, "tolerance": check.TOLERANCE, "rows": check.plain(rows)},
        passed,
    )
