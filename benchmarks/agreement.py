"""How far the simulator is from emulator and hardware: the tables of docs/fidelity.md.

    python -m benchmarks.agreement [NAME...]                # the emulator, on the scenarios of scenarios/agreement
    python -m benchmarks.agreement --hardware [NAME...]     # this machine, on those of scenarios/hardware

Each takes about a quarter of an hour on two cores. Not part of `make bench`, which is about speed.
"""

import sys
import tempfile
import time
from pathlib import Path

from orionbed.backends import load_calibrating
from orionbed.crosscheck import Agreement, crosscheck, median_error, with_clock
from orionbed.scenario import load

FOLDER = Path(__file__).resolve().parent.parent / "scenarios" / "agreement"
HARDWARE = FOLDER.parent / "hardware"
SEEDS = 3


def main(names: list[str]) -> None:
    """Run the named scenarios, all by default, on every clock that suits them, and print a row for each."""
    for path in _chosen(FOLDER, "base", names):
        scenario = load(path)
        queue = scenario.pipeline.schedule.kind == "queue"
        for clock in ("paced",) if queue else ("virtual", "paced"):
            started = time.monotonic()
            found, tolerance = crosscheck(with_clock(scenario, clock), list(range(SEEDS if queue else 1)))
            print(_row(path.stem, clock, found, tolerance, time.monotonic() - started), flush=True)


def on_hardware(names: list[str]) -> None:
    """Measure this machine for what the scenarios have in common, then run each; print a row for each."""
    with tempfile.TemporaryDirectory() as folder:
        profile = Path(folder) / "here.yaml"
        calibrated = load_calibrating().calibrate(
            load(HARDWARE / "small.yaml"), device="cpu", stage=None, threads=1, out=profile, check_only=None,
            repetitions=30, say=print,
        )  # fmt: skip
        print("\n".join(calibrated.lines))
        for path in _chosen(HARDWARE, "small", names):
            started = time.monotonic()
            found, tolerance = crosscheck(load(path, profile=profile), [0], backend="real")
            print(_row(path.stem, "real", found, tolerance, time.monotonic() - started), flush=True)


def _chosen(folder: Path, common: str, names: list[str]) -> list[Path]:
    return [path for path in sorted(folder.glob("*.yaml")) if path.stem != common and (not names or path.stem in names)]


def _row(name: str, clock: str, found: list[Agreement], tolerance: float, took_s: float) -> str:
    errors = ", ".join(f"{one.error:+.2%}" for one in found)
    same = {True: "same", False: "OTHER", None: "-"}[found[0].same_order]
    void = "; ".join(one.void for one in found if one.void)
    cells = (name, clock, f"{median_error(found):+.4%}", f"{tolerance:.1%}", errors, same, f"{took_s:.0f} s", void)
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    if "--hardware" in sys.argv:
        on_hardware([name for name in sys.argv[1:] if name != "--hardware"])
    else:
        main(sys.argv[1:])
