"""What a reader must know before setting runs beside each other of which one is no simulation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from reports import formatting as fmt
from reports.run_folder import Run

_ABOUT_THE_SAME: Final = 0.05
_THE_SAME_PEAK: Final = 0.005
_LENGTHS: Final = {"startup": "start-up", "training": "training"}
_SHORT: Final = {
    "emulator": "An emulation starts with its first weights at hand, and emulator.training and emulator.merges make it "
    "short.",
    "real": "A run on hardware starts without delay, and real.steps, real.training and real.merges make it short.",
}


def notes(runs: Sequence[Run]) -> list[str]:
    """Return the remarks on a comparison: void runs, other lengths, other peaks, profiles of other devices."""
    if not any(run.block for run in runs):
        return []
    found = [f"{run.name} is VOID: its numbers are no result." for run in runs if run.block and run.is_void]
    return [*found, *_lengths(runs), *_peaks(runs), *_profiles(runs)]


def _lengths(runs: Sequence[Run]) -> list[str]:
    spreads = []
    for key, words in _LENGTHS.items():
        lengths = [length for run in runs if (length := run.number(f"duration_s.{key}")) is not None]
        if lengths and max(lengths) > (1 + _ABOUT_THE_SAME) * min(lengths):
            spreads.append(f"{words} from {fmt.duration(min(lengths))} to {fmt.duration(max(lengths))}")
    if not spreads:
        return []
    why = " ".join(text for block, text in _SHORT.items() if any(run.block == block for run in runs))
    text = f"The runs are not cut alike ({'; '.join(spreads)}): compare what is per second of training phases, and no "
    return [f"{text}totals, shares or averages by the wall clock. {why}"]


def _peaks(runs: Sequence[Run]) -> list[str]:
    if not any(run.block == "real" for run in runs):
        return []
    peaks = {run.name: peak for run in runs if (peak := run.number("layout.peak_flops"))}
    if not peaks or max(peaks.values()) <= (1 + _THE_SAME_PEAK) * min(peaks.values()):
        return []
    each = ", ".join(f"{fmt.flops(peak)} in {name}" for name, peak in peaks.items())
    return [f"MFU and HFU are shares of each run’s own peak ({each}): compare tokens per second instead."]


def _profiles(runs: Sequence[Run]) -> list[str]:
    found = []
    for run in runs:
        profile = run.get("real.profile.name")
        if run.get("real.profile.is_of_device") is False:
            found.append(
                f"{run.name} ran on a device that its profile {profile} does not describe: what other runs predict "
                "from that profile is the time of another machine, and no difference here says how good a prediction "
                "is. Measure the device with orionbed calibrate and give both runs that --profile."
            )
        elif profile and (others := _with_another(runs, str(profile))):
            found.append(
                f"{run.name} ran with the profile {profile}, but {' and '.join(others)} did not: give all runs the "
                "same --profile before reading a difference as an error of prediction."
            )
    return found


def _with_another(runs: Sequence[Run], profile: str) -> list[str]:
    """Return the names of the simulations and emulations whose times come from another profile."""
    return [run.name for run in runs if run.block != "real" and run.get("layout.gpu") not in {None, profile}]
