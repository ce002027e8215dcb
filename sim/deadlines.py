"""A time limit that is the same for many things: one clock call for all of them instead of one for each."""

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from sim.clock import Clock
from sim.transfer import Transfer

if TYPE_CHECKING:
    from sim.engine import Message


class Deadlines:
    """Calls `late(message, transfer)` when `limit_s` have passed since `watch`, unless `is_over` says it is through.

    Limits are all of one length, so they end in the order in which they began; whoever is through by the time that a
    limit ends is only taken off the list.
    """

    def __init__(
        self,
        clock: Clock,
        limit_s: float,
        is_over: "Callable[[Message, Transfer], bool]",
        late: "Callable[[Message, Transfer], object]",
    ) -> None:
        self._clock = clock
        self._limit_s = limit_s
        self._is_over = is_over
        self._late = late
        self._watched: deque[tuple[float, Message, Transfer]] = deque()

    def watch(self, message: "Message", transfer: Transfer) -> None:
        """Give `transfer` from now on `limit_s`."""
        self._watched.append((self._clock.now + self._limit_s, message, transfer))
        if len(self._watched) == 1:
            self._clock.call_in(self._limit_s, self._look)

    def _look(self, _: object) -> None:
        watched, now = self._watched, self._clock.now
        while watched and (watched[0][0] <= now or self._is_over(watched[0][1], watched[0][2])):
            _, message, transfer = watched[0]
            # Taken off after it was seen to: what `late` begins anew must find the clock's call still to be made.
            if not self._is_over(message, transfer):
                self._late(message, transfer)
            watched.popleft()
        if watched:
            self._clock.call_at(watched[0][0], self._look)
