"""What the simulator offers to the command line."""

from sim.backend import run
from sim.baseline import simulate_baseline
from sim.curve import bandwidth_curve

__all__ = ["bandwidth_curve", "run", "simulate_baseline"]
