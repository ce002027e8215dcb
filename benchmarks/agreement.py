"""How far simulator and emulator are apart on the scenarios of scenarios/agreement: the table of docs/fidelity.md.

    python -m benchmarks.agreement [NAME...]

Takes about a quarter of an hour on two cores. Not part of `make bench`, which is about speed.
"""

import sys
import time
from pathlib import Path

from orionbed.crosscheck import crosscheck, median_error, with_clock
from orionbed.scenario import load

FOLDER = Path(__file__).resolve().parent.parent / "scenarios" / "agreement"
SEEDS = 3


def main(names: list[str]) -> None:
    """Run the named scenarios, all by default, on every clock that suits them, and print a row for each."""
    for path in sorted(FOLDER.glob("*.yaml")):
        if path.stem == "base" or (names and path.stem not in names):
            continue
        scenario = load(path)
        queue = scenario.pipeline.schedule.kind == "queue"
        for clock in ("paced",) if queue else ("virtual", "paced"):
            started = time.monotonic()
            found, tolerance = crosscheck(with_clock(scenario, clock), list(range(SEEDS if queue else 1)))
            errors = ", ".join(f"{one.error:+.2%}" for one in found)
            same = {True: "same", False: "OTHER", None: "-"}[found[0].same_order]
            void = "; ".join(one.void for one in found if one.void)
            print(
                f"| {path.stem} | {clock} | {median_error(found):+.4%} | {tolerance:.1%} | {errors} | {same} | "
                f"{time.monotonic() - started:.0f} s | {void}",
                flush=True,
            )


if __name__ == "__main__":
    main(sys.argv[1:])
