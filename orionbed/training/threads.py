"""How many threads torch computes with, for a while."""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def with_threads(count: int) -> Iterator[None]:
    """Let torch compute with so many threads in this block; with one, sums come out the same everywhere."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
