"""The profile that a calibration writes: its numbers, and the file with the source of each."""

import platform
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from orionbed import quantity
from orionbed.kernels import peak_of
from orionbed.quantity import Dimension
from orionbed.scenario import GpuProfile, ScenarioError, gpu_profile
from orionbed.scenario.measurements import MeasuredPieces, MeasuredShape, Measurement, OptimizerStep, PassTimes, Piece
from orionbed.training.shape import ModelShape
from real.calibration.copies import DeviceCopies, Loopback
from real.calibration.devices import FoundDevice, typed_profile
from real.calibration.matmuls import Rates
from real.calibration.measure import rounded

FORMATS: Final = {"bfloat16": "bf16", "float32": "fp32"}
"""Number formats that can be measured, as a profile names them."""

Numbers = dict[str, Any]


@dataclass(slots=True)
class Findings:
    """Everything that a calibration has found; `date` is a day, `command` what was typed."""

    device: FoundDevice
    shape: ModelShape
    rates: Rates
    pieces: dict[Piece, PassTimes]
    optimizer: list[OptimizerStep]
    loopback: Loopback | None
    copies: DeviceCopies | None
    recompute_factor: float | None
    clock: str
    date: str
    command: str
    kept: tuple[MeasuredPieces, ...] = ()
    notes: list[str] = field(default_factory=list)


def shape_of(shape: ModelShape) -> MeasuredShape:
    """Return a shape as a profile names it."""
    return MeasuredShape(
        hidden=shape.hidden,
        ffn=shape.ffn,
        heads=shape.heads,
        kv_heads=shape.kv_heads,
        vocab=shape.vocab,
        sequence=shape.sequence,
        sequences=shape.sequences,
        boundary=shape.matrix_width,
        dtype=FORMATS[shape.dtype],  # type: ignore[arg-type]
    )


def kept_entries(path: Path, device: FoundDevice, shape: ModelShape) -> tuple[MeasuredPieces, ...]:
    """Return what a profile that is already there has measured of other shapes on the same device."""
    if not path.is_file():
        return ()
    try:
        before = gpu_profile(str(path))
    except ScenarioError:
        return ()
    if before.name != device.name:
        return ()
    return tuple(entry for entry in before.measured if entry.shape != shape_of(shape))


def build(found: Findings) -> GpuProfile:
    """Return the profile."""
    typed = typed_profile(found.device)
    dtype = FORMATS[found.shape.dtype]
    best = rounded(found.rates.best_flops)
    reference = best if typed is None else peak_of(typed, dtype)
    of_peak = {
        size: {direction: _share(rate, reference) for direction, rate in rates.items()}
        for size, rates in found.rates.by_smallest_dimension().items()
    }
    streamed = rounded(found.rates.streamed_bytes_per_s)
    source = f"derived: measured on {found.date} on {found.device.title} with orionbed calibrate"
    by_datasheet = {} if typed is None else {key: typed.provenance[key] for key in ("peak", "memory_bandwidth")}
    if typed is not None and "peak_fp32" in typed.provenance:
        by_datasheet["peak_fp32"] = typed.provenance["peak_fp32"]
    measured_peak = f"{source}: the best rate of any multiply that was timed, squares of {_squares(found)} among them"
    entry = MeasuredPieces(
        shape=shape_of(found.shape), date=found.date, pieces=found.pieces, optimizer=tuple(found.optimizer)
    )
    return GpuProfile.model_validate(
        {
            "name": found.device.name,
            "title": f"{found.device.title}, measured",
            "peak": best if typed is None else typed.peak,
            "peak_fp32": None if typed is None else typed.peak_fp32,
            "memory": float(found.device.memory_bytes),
            "memory_bandwidth": streamed if typed is None else typed.memory_bandwidth,
            "memory_efficiency": 1.0 if typed is None else _share(streamed, typed.memory_bandwidth),
            "launch": rounded(found.rates.launch_s),
            "matmul": [{"smallest_dimension": size, **shares} for size, shares in of_peak.items()],
            "attention": {way: _share(rate, reference) for way, rate in found.rates.attention_flops.items()},
            "device": found.device.kind,
            "measured": [*found.kept, entry],
            "measurement": _measurement(found),
            "provenance": {
                "peak": measured_peak,
                "memory": f"{source}: what the system says it has",
                "memory_bandwidth": f"{source}: a copy of a large tensor, bytes read and written",
                "memory_efficiency": f"{source}: that copy's share of `memory_bandwidth`",
                "launch": f"{source}: additions of eight numbers, one after the other",
                "matmul": f"{source}: shares of `peak` of multiplies in the layouts of linear layers",
                "attention": f"{source}: torch's fused causal attention at the shape under `measured`",
                "device": source,
                "measured": f"{source}: medians with 5th and 95th percentiles, warmed up{_clock_of(found.device)}",
                "measurement": source,
                **by_datasheet,
            },
        }
    )


def _share(rate: float, whole: float) -> float:
    return min(1.0, rounded(rate / whole, 4))


def _clock_of(device: FoundDevice) -> str:
    single = device.kind == "cpu" and device.threads == 1
    said = "; seconds in which the one thread had a core" if single else ""
    return said + ("; caches emptied before each, as in a pipeline" if device.kind == "cpu" else "")


def _squares(found: Findings) -> str:
    return " and ".join(map(str, found.rates.square_flops))


def _measurement(found: Findings) -> Measurement:
    from importlib import metadata

    return Measurement(
        device=found.device.title,
        clock=found.clock,
        threads=found.device.threads,
        date=found.date,
        python=platform.python_version(),
        torch=metadata.version("torch"),
        cuda=_cuda_version(),
        loopback=None if found.loopback is None else rounded(found.loopback.rate_bps, 4),
        loopback_delay=None if found.loopback is None else rounded(found.loopback.delay_s, 4),
        to_device=None if found.copies is None else rounded(found.copies.to_device, 4),
        to_host=None if found.copies is None else rounded(found.copies.to_host, 4),
        recompute_factor=None if found.recompute_factor is None else rounded(found.recompute_factor, 4),
    )


def _cuda_version() -> str:
    import torch

    return torch.version.cuda or ""


def to_text(profile: GpuProfile, found: Findings) -> str:
    """Return the file: YAML that reads back to the same profile."""
    plain = profile.model_dump(mode="json", exclude_none=True)
    lines = [
        f"# {found.device.title}, measured on {found.date} with",
        f"#     {found.command}",
        *(f"# {note}" for note in found.notes),
        f"name: {plain['name']}",
        f"title: {quoted(plain['title'])}",
        f"device: {plain['device']}",
        f"peak: {plain['peak']}{_peak_remark(profile, found)}",
    ]
    if "peak_fp32" in plain:
        lines.append(f"peak_fp32: {plain['peak_fp32']}")
    keys = ("memory", "memory_bandwidth", "memory_efficiency", "launch")
    lines += [f"{key}: {plain[key]}" for key in keys]
    lines.append("matmul:                          # share of peak by the smallest of m, n and k")
    lines += [f"  - {inline(point)}" for point in plain["matmul"]]
    lines.append(f"attention: {inline(plain['attention'])}")
    lines.append("measured:                        # pieces of stages; the optimizer's step per parameter")
    for entry in plain["measured"]:
        lines += _entry_lines(entry)
    lines.append("measurement:")
    lines += [f"  {key}: {quoted(value)}" for key, value in plain["measurement"].items() if value != ""]
    lines += ["provenance:", *(f"  {key}: {quoted(text)}" for key, text in plain["provenance"].items())]
    return "\n".join(lines) + "\n"


def _peak_remark(profile: GpuProfile, found: Findings) -> str:
    best = quantity.show(rounded(found.rates.best_flops, 4), quantity.FLOP_RATE)
    if profile.provenance["peak"].startswith("published"):
        return f"  # the datasheet's; the best multiply that was timed reached {best}"
    return "  # measured: the best multiply that was timed"


def _entry_lines(entry: Numbers) -> list[str]:
    lines = [f"  - shape: {inline(entry['shape'])}", f"    date: {quoted(entry['date'])}", "    pieces:"]
    for name, passes in entry["pieces"].items():
        lines.append(f"      {name}:")
        lines += [f"        {way}: {inline(spread)}" for way, spread in passes.items()]
    if entry["optimizer"]:
        lines.append("    optimizer:")
        for step in entry["optimizer"]:
            step_s = inline(step["per_parameter"])
            lines.append(f"      - {{parameters: {step['parameters']}, per_parameter: {step_s}}}")
    return lines


def inline(mapping: Numbers) -> str:
    """Return a mapping as one line of YAML."""
    return "{" + ", ".join(f"{key}: {value}" for key, value in mapping.items()) + "}"


def quoted(value: object) -> str:
    """Return a value as YAML; text in quotes."""
    if not isinstance(value, str):
        return str(value)
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def shown(value: float, dimension: Dimension) -> str:
    """Return a quantity to four digits."""
    return quantity.show(rounded(value, 4), dimension)


def summary_lines(profile: GpuProfile, found: Findings) -> Sequence[str]:
    """Return what was found, for a terminal."""
    best = shown(found.rates.best_flops, quantity.FLOP_RATE)
    peak = f"{best}, the best multiply" if profile.peak == rounded(found.rates.best_flops) else (
        f"{shown(profile.peak, quantity.FLOP_RATE)} by the datasheet; the best multiply reached {best}"
    )  # fmt: skip
    lines = [
        f"device     {found.device.title}" + (f", {found.clock}" if found.clock else ""),
        f"peak       {peak}",
        (
            f"memory     {shown(found.rates.streamed_bytes_per_s, quantity.BYTE_RATE)} streamed, "
            f"launch {shown(found.rates.launch_s, quantity.DURATION)}"
        ),
    ]
    if found.loopback is not None:
        lines.append(
            f"loopback   {shown(found.loopback.rate_bps, quantity.DATA_RATE)}, "
            f"{shown(found.loopback.delay_s, quantity.DURATION)} one way"
        )
    if found.copies is not None:
        lines.append(
            f"copies     {shown(found.copies.to_device, quantity.BYTE_RATE)} to the device, "
            f"{shown(found.copies.to_host, quantity.BYTE_RATE)} back"
        )
    if found.recompute_factor is not None:
        lines.append(f"recompute  adds {found.recompute_factor:.3f} forwards to a backward")
    return lines
