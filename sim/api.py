"""What the simulator offers to the command line."""

from sim.backend import run
from sim.baseline import simulate_baseline
from sim.curve import bandwidth_curve
from sim.lab import merge_arrivals, merge_point

__all__ = ["bandwidth_curve", "merge_arrivals", "merge_point", "run", "simulate_baseline"]
