"""What the emulator offers to the command line."""

from emulator.backend import run

__all__ = ["run"]
