"""What the simulator offers to the command line."""

from sim.backend import run
from sim.baseline import simulate_baseline
from sim.curve import bandwidth_curve
from sim.lab import merge_arrivals, merge_point
from sim.not_scripted import not_scripted

__all__ = ["bandwidth_curve", "merge_arrivals", "merge_point", "not_scripted", "run", "simulate_baseline"]
