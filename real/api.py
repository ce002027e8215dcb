"""What the real backend offers to the command line."""

from real.backend import run
from real.rehearsal import dry_run

__all__ = ["dry_run", "run"]
