"""What one GPU says of Orion-100B, unattended and in under ten minutes: `python -m real.gpu_check --out DIR`.

Times the pieces of a true middle stage (6 layers of width 9216, 8000 tokens, bf16 weights, gradients and two moments,
ResBM 144), the stage as a whole with its peak of memory, and recompute policies; writes the profile; says what MFU the
simulator makes of it. The last thing it prints is a table, whatever happens before.
"""

import argparse
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Final

from orionbed.backends import BackendError
from orionbed.scenario import Scenario, gpu_profile, load
from orionbed.training.shape import ModelShape
from orionbed.training.threads import with_threads
from real import gpu_pipeline
from real.calibration import api, check, copies, policies, profile_file, prospects
from real.calibration.devices import FoundDevice, clocks_of, find_device, typed_profile
from real.calibration.fitting import Room, free_bytes, largest_that_fits, peak_bytes, reset_peak, with_layers
from real.calibration.matmuls import SMALL_GRID, Grid, Rates, measure_rates
from real.calibration.measure import Effort, Times, clock_of, measure
from real.calibration.pieces import optimizer_steps, pieces_of
from real.calibration.table import GIGA, Table
from real.calibration.whole import HALVES, PLAIN, STEP, WholeStage
from real.settings import DeviceKind

STAGE: Final = 1
BUDGET_S: Final = 540.0
SHARES: Final = {"kernels": 0.15, "pieces": 0.35, "stage": 0.65, "policies": 0.85}
"""By which part of the budget each of the measurements must stop repeating itself."""
LEAST_FOR_PIPELINES_S: Final = 60.0
LEAST_TORCH: Final = (2, 13)
"""Before it, backwards in halves may be wrong where a weight is used twice."""
TINY: Final = (
    "model={layers: 6, hidden: 64, ffn: 128, heads: 4, kv_heads: 2, vocab: 128, dtype: fp32}",
    "batch={sequence: 16, sequences: 2}",
    "pipeline.stages=3",
    "pipeline.replicas=1",
    "pipeline.boundary={kind: resbm, width: 8}",
    "peers.sites={virginia: 2, oregon: 1}",
)


@dataclass(slots=True)
class Check:
    """One run of the script, and what it has found so far."""

    device: FoundDevice
    target: api.Target
    folder: Path
    table: Table
    repetitions: int
    started_s: float
    budget_s: float
    halves: bool
    grid: Grid | None = None
    found_room: Room | None = None
    timed_shape: ModelShape | None = None
    times: dict[str, Times] = field(default_factory=dict)
    wholes: dict[int, Times] = field(default_factory=dict)
    rates: Rates | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def kind(self) -> DeviceKind:
        """Kind of the device."""
        return self.device.kind

    @property
    def room(self) -> Room:
        """What fits."""
        if self.found_room is None:
            raise BackendError("what fits is not known, see above")
        return self.found_room

    def effort(self, part: str) -> Effort:
        """Return how often something is timed, and until when."""
        until_s = self.started_s + SHARES[part] * self.budget_s
        return Effort(self.repetitions, warm_up=min(10, self.repetitions), until_s=until_s)

    def run(self) -> None:
        """Do all parts, in the order of what matters most."""
        attempt = self.table.attempt
        attempt("memory", self.find_room)
        attempt("attention", self.find_attention)
        attempt("kernels", self.time_kernels)
        attempt("pieces", self.time_pieces)
        attempt("stage", self.time_stage)
        attempt("policies", self.compare_policies)
        attempt("profile", self.write_profile)
        attempt("pipeline", self.check_pipeline)

    def check_pipeline(self) -> None:
        """Hold pipelines of several processes on this one device against the plain model, in the time that is left."""
        api.free_memory(self.kind)
        left_s = self.started_s + self.budget_s - time.monotonic()
        shape, num_stages = (gpu_pipeline.WIDE, 4) if self.kind == "cuda" else (gpu_pipeline.TINY, 2)
        gpu_pipeline.compare(self.kind, num_stages, shape, self.table, patience_s=max(LEAST_FOR_PIPELINES_S, left_s))

    def find_room(self) -> None:
        """Measure what a layer keeps, and say what the plan says of the stage."""
        memory = self.target.plan.stages[STAGE].memory
        self.table.add(
            f"plan of stage {STAGE}",
            f"{memory.states_bytes / GIGA:.1f} GB weights, gradients, moments; {memory.working_bytes / GIGA:.1f} GB "
            f"working; {memory.in_flight_bytes / GIGA:.1f} GB in flight",
        )
        kept = policies.Layers(self.target.shape, 1, self.kind).kept_bytes()
        api.free_memory(self.kind)
        self.found_room = Room(free_bytes(self.device), kept)
        planned = memory.working_bytes / self.target.shape.layers_per_chunk[STAGE]
        self.table.add(
            "a layer keeps",
            f"{kept / GIGA:.3g} GB of a micro-batch between forward and backward; planned {planned / GIGA:.3g} GB",
        )

    def find_attention(self) -> None:
        """Say which kernel computes attention."""
        self.table.add("attention runs", policies.attention_kernel(self.target.shape, self.kind))

    def time_kernels(self) -> None:
        """Time multiplies, attention, copies in memory and launches."""
        clock, effort = clock_of(self.kind), self.effort("kernels")
        self.rates = measure_rates(self.target.shape, self.kind, clock, effort, grid=self.grid)
        api.free_memory(self.kind)
        self.table.add("best multiply", f"{self.rates.best_flops / 1e12:.4g} TFLOP/s")

    def time_pieces(self) -> None:
        """Time layer, embedding, head, encoder, decoder and optimizer steps, each alone."""
        clock, effort = clock_of(self.kind), self.effort("pieces")
        if self.kind == "cuda":
            self.times = api.time_alone(self.target, clock, effort)
        else:
            steps = optimizer_steps(self.target.shape, "cpu", (10**5,))
            self.times = measure([*pieces_of(self.target.shape, "cpu"), *steps], clock, effort)

    def time_stage(self) -> None:
        """Time the whole stage, with as many of its layers as fit, and take the peak of memory."""
        wanted = self.target.shape.layers_per_chunk[STAGE]
        shape = largest_that_fits(self.room, self.target.shape, STAGE)
        while True:
            layers = shape.layers_per_chunk[STAGE]
            try:
                self.wholes = {STAGE: self._time_whole(shape)}
            except RuntimeError as error:
                if "out of memory" not in str(error) or layers == 1:
                    raise
                self.table.add(f"stage of {layers} layers", "ran out of memory although by arithmetic it fits")
                shape = with_layers(shape, STAGE, layers - 1)
            else:
                break
            finally:
                api.free_memory(self.kind)
        self.table.add("stage timed", f"{layers} of {wanted} layers")
        if layers < wanted:
            self.notes.append(f"The whole stage that it was held against has {layers} of {wanted} layers.")
        self.timed_shape = shape

    def _time_whole(self, shape: ModelShape) -> Times:
        """Time a stage's passes, those in halves apart, for they take more memory."""
        passes = self.room.passes(shape, STAGE) or (PLAIN, STEP)
        stage = WholeStage(shape, STAGE, self.kind)
        states, clock = self.room.states_bytes(shape, STAGE), clock_of(self.kind)
        times: Times = {}
        plain = tuple(group for group in passes if group != HALVES)
        for title, some in (("peak memory", plain), ("peak memory, halves", (PLAIN, HALVES))):
            if not set(some) <= set(passes) or (HALVES in some and not self.halves):
                self.table.add(title, "not timed: by arithmetic it does not fit" if self.halves else "not timed")
                continue
            reset_peak(self.kind)
            times = measure([stage.timed("stage", some)], clock, self.effort("stage"))["stage"] | times
            needed = self.room.needed_bytes(shape, STAGE, halves=HALVES in some)
            peak = f"{peak_bytes(self.kind) / GIGA:.1f} GB" if self.kind == "cuda" else "not measured on a CPU"
            self.table.add(
                title, f"{peak}; by arithmetic {needed / GIGA:.1f} GB, of which {states / GIGA:.1f} GB states"
            )
        return times

    def compare_policies(self) -> None:
        """Time the stage's layers under each recompute policy that fits."""
        count = self.target.shape.layers_per_chunk[STAGE]
        layers, none = policies.Layers(self.target.shape, count, self.kind), None
        for policy in policies.POLICIES:
            if not self.room.policy_fits(self.target.shape, count, policy):
                self.table.add(f"recompute {policy}", "skipped: by arithmetic it does not fit")
                continue
            found = layers.time(policy, clock_of(self.kind), self.effort("policies"))
            none = found if policy == "none" else none
            against = f", {found.both_s / none.both_s:.3f} of none" if none is not None else ""
            memory = f", {found.peak_bytes / GIGA:.1f} GB" if found.peak_bytes else ""
            self.table.add(
                f"recompute {policy}",
                f"forward {check.milliseconds(found.forward_s)}, backward {check.milliseconds(found.backward_s)}"
                f"{against}{memory}" + ("; 8N/6N is 1.333" if policy == "full" else ""),
            )
        del layers
        api.free_memory(self.kind)

    def write_profile(self) -> None:
        """Write the profile, hold it against the whole stage, and simulate with it."""
        if self.rates is None or not self.times:
            raise BackendError("kernels or pieces are missing, see above")
        clock, shape = clock_of(self.kind), self.timed_shape or self.target.shape
        found = profile_file.Findings(
            device=self.device,
            shape=self.target.shape,
            rates=self.rates,
            pieces=api.pieces_in(self.times),
            optimizer=api.optimizer_of(shape, self.times, self.wholes),
            loopback=copies.measure_loopback(),
            copies=copies.measure_device_copies(clock, Effort(10, 2)) if self.kind == "cuda" else None,
            recompute_factor=api.recompute_of(self.wholes),
            clock=clocks_of(self.device),
            date=datetime.now(UTC).date().isoformat(),
            command="python -m real.gpu_check",
            notes=self.notes,
        )
        path = self.folder / f"{self.device.name}.yaml"
        path.write_text(profile_file.to_text(profile_file.build(found), found), encoding="utf-8")
        profile = gpu_profile(str(path))
        for line in profile_file.summary_lines(profile, found)[1:]:
            self.table.add(*(part.strip() for part in line.split("  ", 1)))
        self.table.add("profile", str(path))
        rows = check.compare(profile, self.target.scenario, shape, self.wholes)
        for row in rows:
            self.table.add(
                f"stage {row.chunk} {row.what}",
                f"measured {check.milliseconds(row.measured_s)}, predicted {check.milliseconds(row.predicted_s)} "
                f"({row.error:+.1%}{'' if row.passed else f', over {check.TOLERANCE:.0%}'})",
            )
        self.table.add("share of peak in a layer", f"{prospects.share_of_peak(profile, self.target.scenario):.1%}")
        typed = typed_profile(self.device)
        for prospect in (
            prospects.on_this(self.target.scenario, str(path)),
            prospects.on_reference(profile, typed, self.target.scenario),
        ):
            self.table.add(
                f"{self.target.scenario.name} on {prospect.gpu}",
                f"MFU {prospect.in_phase:.1%} while training, {prospect.wall_clock:.1%} with merges: {prospect.how}",
            )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the script; return 0 when every part went through, else 1."""
    options = _options(arguments)
    # Pieces of all sizes come and go; without this, what is free falls into parts that are too small.
    os.environ.setdefault("PYTORCH_ALLOC_CONF", "expandable_segments:True")
    table, started_s = Table(), time.monotonic()
    options.out.mkdir(parents=True, exist_ok=True)
    try:
        device = find_device(options.device, threads=1)
        scenario = load("minimal", TINY) if options.tiny else load("orion-100b")
        with with_threads(1):
            _introduce(table, device)
            target = _target(scenario, options.device)
            found = Check(
                device, target, options.out, table, options.repetitions, started_s, options.budget, has_halves(table)
            )
            found.grid = SMALL_GRID if options.tiny else None
            found.run()
    except BackendError as error:
        table.add("FAILED", str(error))
    finally:
        table.add("took", f"{time.monotonic() - started_s:.0f} s")
        table.print()
    return int(any("FAILED" in what for what, _ in table.rows))


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m real.gpu_check", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("gpu-check"), help="folder for the profile")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda")
    parser.add_argument("--tiny", action="store_true", help="a model of width 64 instead of Orion's, to try the script")
    parser.add_argument("--budget", type=float, default=BUDGET_S, help="seconds after which nothing is repeated")
    parser.add_argument("--repetitions", type=int, default=30)
    return parser.parse_args(arguments)


def _introduce(table: Table, device: FoundDevice) -> None:
    versions = f"torch {metadata.version('torch')}, orionbed {metadata.version('orionbed')}"
    table.add("versions", f"{versions}, python {sys.version.split()[0]}")
    table.add("device", f"{device.title}, {device.memory_bytes / GIGA:.1f} GB, {clocks_of(device)}")
    typed = typed_profile(device)
    table.add("typed profile", "none of this device" if typed is None else typed.name)


def has_halves(table: Table) -> bool:
    """Whether this torch does backwards in halves right; where it does not, the table says so."""
    found = tuple(int(part) for part in metadata.version("torch").split("+")[0].split(".")[:2])
    if found < LEAST_TORCH:
        least = ".".join(map(str, LEAST_TORCH))
        table.add(
            "halves",
            f"not timed in whole stages: torch is older than {least}, before which its split backward may be wrong; "
            "those of pieces are orionbed's own",
        )
    return found >= LEAST_TORCH


def _target(scenario: Scenario, device: DeviceKind) -> api.Target:
    return api.target_of(scenario, device, STAGE, lambda line: print(line, flush=True))  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())
