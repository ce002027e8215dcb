"""What a group's operations return: handles to wait for, in the way of torch.distributed."""

from collections.abc import Callable
from concurrent.futures import Future
from datetime import timedelta

import torch.distributed as dist

Step = Callable[[], object]


class WaitingWork(dist.Work):
    """Done when `finish(seconds)` has returned, which the first wait calls; `is_here` says if that would be at once."""

    def __init__(self, finish: Callable[[float], object], is_here: Callable[[], bool], within_s: float) -> None:
        super().__init__()
        self._finish, self._is_here, self._within_s = finish, is_here, within_s
        self._done = False

    def wait(self, timeout: timedelta | None = None) -> bool:
        """Wait as long as the group does, or `timeout`. LostPeerError: a peer is gone; TimeoutError: it took longer."""
        if not self._done:
            within_s = timeout.total_seconds() if timeout else self._within_s
            self._finish(within_s)
            self._done = True
        return True

    def is_completed(self) -> bool:
        """Whether a wait would return at once."""
        if not self._done and self._is_here():
            self.wait()
        return self._done

    def is_success(self) -> bool:
        return self._done


def sent(settle: Step) -> WaitingWork:
    """Return the handle of a message that is under way; a wait lets its tensor be written again."""
    return WaitingWork(lambda _: settle(), lambda: True, 0.0)


def running(future: "Future[None]", settle: Step, within_s: float) -> WaitingWork:
    """Return the handle of an operation that runs in another thread; `settle` then puts its result where it belongs."""

    def finish(seconds: float) -> None:
        future.result(seconds)
        settle()

    return WaitingWork(finish, future.done, within_s)
