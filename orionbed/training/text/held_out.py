"""Which sequences of a text are kept for evaluation: runs of neighbours, evenly spread."""

from dataclasses import dataclass
from fractions import Fraction
from math import ceil, floor
from typing import Final

LONGEST_RUN: Final = 16
"""Sequences that are held out next to each other, where the text is long enough."""


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Of runs of `run` sequences the share that is held out, as evenly as whole numbers allow, the first one late.

    Run g is held out where floor((g + 1) share) > floor(g share); so a sequence's lot depends on its number alone, and
    is known before the text has been read to its end.
    """

    share: Fraction
    run: int

    @staticmethod
    def of(share: float, num_sequences: int | None) -> "HeldOut":
        """Return the rule for a share and a number of sequences, or None where nobody knows it yet."""
        exact = Fraction(share).limit_denominator(1_000_000)
        run = LONGEST_RUN if num_sequences is None else min(LONGEST_RUN, floor(num_sequences * exact))
        return HeldOut(exact, max(1, run))

    def num_held_out(self, num_sequences: int) -> int:
        """How many of the first so many sequences are held out."""
        runs, rest = divmod(num_sequences, self.run)
        before = self._before(runs)
        return before * self.run + (rest if self._before(runs + 1) > before else 0)

    def training(self, rank: int) -> int:
        """Return the number of the sequence that is trained on as number `rank`."""
        run, rest = divmod(rank, self.run)
        return floor(run / (1 - self.share)) * self.run + rest

    def held_out(self, rank: int) -> int:
        """Return the number of the sequence that is held out as number `rank`; some share must be."""
        run, rest = divmod(rank, self.run)
        return (ceil((run + 1) / self.share) - 1) * self.run + rest

    def _before(self, runs: int) -> int:
        return floor(runs * self.share)
