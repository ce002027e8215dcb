"""What the emulator offers to the command line."""

from emulator.backend import run
from emulator.joining import join

__all__ = ["join", "run"]
