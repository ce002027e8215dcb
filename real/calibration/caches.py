"""Caches as an operation of a pipeline finds them: full of what other micro-batches left there."""

from collections.abc import Callable
from pathlib import Path
from typing import Final

_CACHES: Final = Path("/sys/devices/system/cpu/cpu0/cache")
UNKNOWN_BYTES: Final = 32 * 2**20
"""Taken for the largest cache where the machine does not tell."""
TIMES_AS_LARGE: Final = 2


def emptying() -> Callable[[], None]:
    """Return a function that drives everything else out of a CPU's caches.

    In a pipeline operations of different micro-batches alternate, and an operation's tensors have left the caches when
    its turn comes. One that is timed over and over finds them there, and takes a few per cent less.
    """
    import torch

    values = torch.zeros(TIMES_AS_LARGE * largest_cache_bytes() // 4)

    def empty() -> None:
        values.add_(1.0)

    return empty


def largest_cache_bytes(folder: Path = _CACHES) -> int:
    """Return the size of the largest cache of this machine's CPU."""
    sizes = [path.read_text(encoding="ascii").strip() for path in folder.glob("index*/size")]
    found = [int(size[:-1]) * {"K": 2**10, "M": 2**20}[size[-1]] for size in sizes if size[-1:] in {"K", "M"}]
    return max(found, default=UNKNOWN_BYTES)
