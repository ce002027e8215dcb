"""A joined host as the supervisor sees it: it takes orders like the local zygote, and has a clock of its own."""

import asyncio
import signal
import time
from collections.abc import Callable
from math import inf
from typing import Any, Final

from orionbed.fleet import control
from orionbed.fleet.control import ControlError, Message

NUM_PINGS: Final = 20
_SILENT_S: Final = 20.0


class Host:
    """One joined host. `offset_s` is what its monotonic clock shows more than this machine's, to `uncertainty_s`."""

    def __init__(self, number: int, name: str, slots: int, writer: asyncio.StreamWriter) -> None:
        self.number, self.name, self.slots = number, name, slots
        self.alive = True
        self.offset_s = 0.0
        self.uncertainty_s = inf
        self.drift_s = 0.0
        self.prepared = asyncio.Event()
        self.left = asyncio.Event()
        self._writer = writer
        self._pings: list[tuple[float, float]] = []
        self._sent_s = 0.0
        self._measured: asyncio.Future[tuple[float, float]] | None = None

    def __str__(self) -> str:
        return f"host {self.number} ({self.name})"

    # ---------------------------------------------------------------- orders

    def order(self, order: dict[str, Any]) -> None:
        """Give an order; one that is gone hears nothing."""
        if not self._writer.is_closing():
            self._writer.write(control.encoded(order))

    def signal(self, pid: int, number: signal.Signals) -> None:
        """Send a signal to one of its processes."""
        self.order({"t": "signal", "pid": pid, "signal": int(number)})

    async def listen(self, reader: asyncio.StreamReader, on_event: Callable[[Message, int], None]) -> None:
        """Hand on what its zygote says until it is gone. ControlError: it says what no zygote says."""
        while True:
            event = await control.read(reader)
            what = event["t"]
            if what == "pong":
                self._pong(event)
            elif what == "ready":
                self.prepared.set()
            elif what == "failed":
                on_event({"t": what, "why": f"on {self}: {event.get('why')}"}, self.number)
            elif what == "ended":
                raise ControlError("the process that peers are forked from has died there")
            elif what != "loaded":
                on_event(_checked(event), self.number)

    # ---------------------------------------------------------------- clock

    async def measure_clock(self) -> None:
        """Find out what its clock shows, by the ping of the shortest round trip; half of that is the uncertainty."""
        self.offset_s, self.uncertainty_s = await self._ping()

    async def measure_drift(self) -> None:
        """Find out by how much its clock has run away since it was measured; both measurements' uncertainty counts."""
        offset_s, uncertainty_s = await self._ping()
        self.drift_s = offset_s - self.offset_s
        self.uncertainty_s = max(self.uncertainty_s, uncertainty_s)

    def clock(self) -> dict[str, Any]:
        """Return what is to be told of its clock."""
        return {"host": self.name, "clock_uncertainty_s": self.uncertainty_s, "clock_drift_s": self.drift_s}

    async def _ping(self) -> tuple[float, float]:
        self._pings.clear()
        self._measured = asyncio.get_running_loop().create_future()
        self._next_ping()
        return await asyncio.wait_for(self._measured, _SILENT_S)

    def _next_ping(self) -> None:
        self._sent_s = time.monotonic()
        self.order({"t": "ping"})

    def _pong(self, event: Message) -> None:
        now_s, shown_s = time.monotonic(), event.get("at_s")
        if self._measured is None or self._measured.done() or not isinstance(shown_s, float):
            raise ControlError("a pong that nobody asked for")
        round_trip_s = now_s - self._sent_s
        self._pings.append((round_trip_s, shown_s - (now_s + self._sent_s) / 2.0))
        if len(self._pings) < NUM_PINGS:
            self._next_ping()
        else:
            best_s, offset_s = min(self._pings)
            self._measured.set_result((offset_s, best_s / 2.0))

    # ---------------------------------------------------------------- ending

    async def end(self, within_s: float) -> None:
        """Tell it that the run is over, and wait until it has ended its processes."""
        self.order({"t": "over"})
        try:
            await asyncio.wait_for(self.left.wait(), within_s)
        except TimeoutError:
            self._writer.close()


def _checked(event: Message) -> Message:
    """Return an event of a zygote. ControlError: it is not one."""
    what = event["t"]
    whole = {"forked": ("pid",), "exited": ("pid", "status")}.get(what)
    if whole is None or not all(isinstance(event.get(key), int) for key in whole):
        raise ControlError(f"a host said {what!r}, which no zygote says")
    somebody = isinstance(event.get("index"), int) and isinstance(event.get("life"), int)
    if what == "forked" and event.get("role") != "measure" and not somebody:
        raise ControlError("a host forked nobody in particular")
    return event
