"""What can change about the links and paths of a peer while it runs."""

from dataclasses import dataclass
from math import inf
from typing import Literal


@dataclass(frozen=True, slots=True)
class LinkChange:
    """From now on the peer's uplink or downlink has min(factor * its own rate, ceiling); replaces earlier changes.

    `ceiling` is in bytes per run second. Factor 1 without a ceiling heals. Chunks reserved before keep their times.
    """

    direction: Literal["up", "down"]
    factor: float = 1.0
    ceiling: float = inf


@dataclass(frozen=True, slots=True)
class BlockChange:
    """From now on nothing leaves towards a peer, neither data nor credits, until a change with `blocked=False`.

    Connections stay open (a black hole). What waits leaves at the end of the block.
    """

    peer: int
    blocked: bool


@dataclass(frozen=True, slots=True)
class PathChange:
    """From now on the path towards a peer differs from its `Path` by this; replaces earlier changes.

    `added_owd_s` is added to the one-way delay; what is not None takes the place of the path's own value; the rate is
    multiplied by `rate_factor` and bounded by `rate_ceiling` (bytes per run second). All defaults heal.
    """

    peer: int
    added_owd_s: float = 0.0
    jitter_sd_s: float | None = None
    loss: float | None = None
    rate_factor: float = 1.0
    rate_ceiling: float = inf


@dataclass(frozen=True, slots=True)
class CorruptChange:
    """From now on each chunk sent to a peer has a byte flipped with this probability, after its checksum was taken."""

    peer: int
    per_chunk: float


Change = LinkChange | BlockChange | PathChange | CorruptChange
