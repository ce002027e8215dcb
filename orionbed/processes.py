"""Independent computations on the cores there are, in processes that end with this one."""

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from multiprocessing import get_context
from typing import Any


def num_cores() -> int:
    """Return how many cores this process may use, which in a container are fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_processes(
    function: Callable[..., Any],
    arguments: Sequence[tuple[Any, ...]],
    jobs: int,
    progress: Callable[[int], None] | None = None,
    arrived: Callable[[int, Any], None] | None = None,
) -> list[Any]:
    """Return `function(*each)` for each of `arguments`, in their order, computed on up to `jobs` fresh processes.

    `progress` gets the number of results so far, `arrived` each result with its index as soon as it is there. When one
    fails, the others are given up.
    """
    results: list[Any] = [None] * len(arguments)
    # Not forked: the pool's workers start clean whatever the caller has loaded.
    pool = ProcessPoolExecutor(max_workers=max(1, min(jobs, len(arguments))), mp_context=get_context("spawn"))
    try:
        with _uninterruptible():
            futures: dict[Future[Any], int] = {
                pool.submit(function, *each): index for index, each in enumerate(arguments)
            }
        for count, future in enumerate(as_completed(futures), start=1):
            index = futures[future]
            results[index] = future.result()
            if arrived is not None:
                arrived(index, results[index])
            if progress is not None:
                progress(count)
    finally:
        pool.shutdown(cancel_futures=True)
    return results


@contextmanager
def _uninterruptible() -> Iterator[None]:
    """Hold signals back while processes start: one that is half started could be neither used nor ended.

    The processes inherit that SIGINT is blocked, so a terminal's Ctrl-C reaches this process alone, which ends them.
    """
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "pthread_sigmask"):
        yield
        return
    held: list[int] = []
    # Blocking alone would not do: signals also come in through threads of libraries, which block none.
    handlers = {
        number: signal.signal(number, lambda number, _: held.append(number))
        for number in (signal.SIGINT, signal.SIGTERM)
        if callable(signal.getsignal(number))
    }
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT,))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for came in held:
            signal.raise_signal(came)
