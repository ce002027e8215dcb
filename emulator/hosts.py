"""The other machines of a run: the supervisor's door for them, who has joined, and which peers live where."""

import asyncio
import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib import metadata
from typing import Final

from emulator.enrolment import enrol
from emulator.host import Host
from emulator.identity import Identity, UnknownKeyError
from orionbed.backends import BackendError
from orionbed.fleet import control
from orionbed.fleet.certificates import Authority
from orionbed.fleet.control import Message
from orionbed.fleet.members import Door, Member, certified
from orionbed.fleet.reaching import EVERYWHERE, own_address
from orionbed.fleet.stream import keep_alive
from orionbed.fleet.tls import tls_order
from orionbed.fleet.tokens import FROM_ENVIRONMENT, JoinToken
from orionbed.plan import Plan
from orionbed.scenario.emulation import host_and_port

SAYS_EVERY_S: Final = 30.0
ENDS_WITHIN_S: Final = 15.0
_MOST_SLOTS: Final = 4096


class Hosts:
    """Lets hosts join, and knows them. `order` is given to each at once, so that it prepares while others come.

    `on_event` hears what their zygotes say, `on_gone` that one that has joined is gone.
    """

    def __init__(
        self,
        plan: Plan,
        say: Callable[[str], None],
        on_event: Callable[[Message, int], None],
        on_gone: Callable[[Host], None],
    ) -> None:
        block = plan.scenario.emulator
        if block.remote_slots > len(plan.peers):
            raise BackendError(f"emulator.remote_slots is {block.remote_slots}, but there are {len(plan.peers)} peers")
        self.order: Message = {}
        self._plan, self._say, self._on_event, self._on_gone = plan, say, on_event, on_gone
        self._listen = str(block.listen)
        self._num_slots = block.remote_slots
        self._patience_s = block.join_timeout
        self._authority = Authority()
        self._mine = self._authority.issue("supervisor")
        self._token = JoinToken.made(self._mine.fingerprint, os.environ.get(FROM_ENVIRONMENT, ""))
        self._identity = Identity.read(block.key, block.trusted, ("emulator.key", "emulator.trusted"))
        self._hosts: dict[int, Host] = {}
        self._num_enrolled = 0
        self._num_joined = 0
        self._complete = False
        self._over = False
        self._changed = asyncio.Event()
        self._door: Door | None = None

    def __getitem__(self, number: int) -> Host:
        return self._hosts[number]

    def __iter__(self) -> Iterator[Host]:
        return iter(list(self._hosts.values()))

    @property
    def here(self) -> Message:
        """What the zygote of this machine must know besides the order: its peers speak TLS and can be reached."""
        return {
            "host": host_and_port(self._listen)[0],
            "tls": tls_order(self._authority.issue("peers beside the supervisor"), ""),
        }

    # ---------------------------------------------------------------- joining

    async def open(
        self, token: str, expected: Callable[[Message], Member | None], hear: Callable[[Member, Message], None]
    ) -> None:
        """Begin to listen. BackendError: that is not possible."""
        self._door = Door(token, expected, hear, self._enter)
        host, port = host_and_port(self._listen)
        try:
            await self._door.open(host, port, self._mine.server(strangers=True))
        except OSError as error:
            raise BackendError(f"cannot listen at emulator.listen {self._listen}: {error.strerror or error}") from None

    async def gathered(self) -> None:
        """Wait until enough hosts have joined, and say so while waiting. BackendError: they did not come."""
        host, port = host_and_port(self._listen)
        if host in EVERYWHERE:
            host = own_address()
        self._say(f"waiting for {self._num_slots} peers on other hosts; on each of them run")
        self._say(f"  orionbed peer --join {f'[{host}]' if ':' in host else host}:{port} --token {self._token}")
        until_s = time.monotonic() + self._patience_s
        while (have := sum(host.slots for host in self)) < self._num_slots:
            left_s = until_s - time.monotonic()
            if left_s <= 0.0:
                raise BackendError(
                    f"only {have} of {self._num_slots} slots on other hosts have joined within {self._patience_s:g} s; "
                    "start more of them, or raise emulator.join_timeout"
                )
            self._changed.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), min(left_s, SAYS_EVERY_S))
            self._say(f"{sum(host.slots for host in self)} of {self._num_slots} slots have joined")
        self._complete = True

    def deal(self, peers: list[Member]) -> None:
        """Say for each peer on which host it lives. BackendError: a link that a site shares would be split."""
        slots = [host.number for host in self for _ in range(host.slots)]
        for peer, number in zip(peers, slots[: self._num_slots], strict=False):
            peer.host = number
        network = self._plan.scenario.network
        shared = [key for key in ("site_uplink", "site_downlink", "wan") if getattr(network, key) is not None]
        for site in self._plan.site_names if shared else ():
            num_places = len({peer.host for peer in peers if self._plan.peers[peer.index].site == site})
            if num_places > 1:
                raise BackendError(
                    f"the peers of {site} would be on {num_places} hosts, but network.{shared[0]} is one link for all "
                    "of them; choose --slots so that each site is on one host, or leave the shared limit out"
                )

    async def _enter(self, first: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Somebody knocks: wants a certificate, or has one and joins."""
        if first["t"] == "enrol":
            self._num_enrolled += 1
            await self._enrol(first, reader, writer)
        elif first["t"] == "join" and certified(writer):
            await self._join(first, reader, writer)

    async def _enrol(self, first: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = self._num_enrolled
        try:
            await enrol(
                first,
                (reader, writer),
                self._token,
                self._identity,
                lambda name: self._authority.issue(name or f"host {number}"),
            )
        except UnknownKeyError as error:
            address = writer.get_extra_info("peername") or ["gone already"]
            self._say(f"a host at {address[0]} knows the token and is refused: {error}")

    async def _join(self, first: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        slots, why = first.get("slots"), ""
        if first.get("version") != metadata.version("orionbed"):
            why = f"the supervisor runs orionbed {metadata.version('orionbed')}, not {first.get('version')}"
        elif self._complete:
            why = "the run has all the hosts that it wants"
        if why or not isinstance(slots, int) or not 0 < slots <= _MOST_SLOTS:
            writer.write(control.encoded({"t": "refused", "why": why or f"a host has 1 to {_MOST_SLOTS} slots"}))
            return
        keep_alive(writer.get_extra_info("socket"))
        self._num_joined += 1
        name = writer.get_extra_info("peername") or ["gone already"]
        host = Host(self._num_joined, str(name[0]), slots, writer)
        tasks = [asyncio.ensure_future(work) for work in (self._welcome(host), host.listen(reader, self._on_event))]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
            await tasks[1]
        except asyncio.CancelledError:
            self._over = True
            host.order({"t": "over"})
            raise
        finally:
            for task in tasks:
                task.cancel()
            self._forget(host)

    async def _welcome(self, host: Host) -> None:
        """Measure a host's clock, then let it prepare."""
        await host.measure_clock()
        if self._complete:
            host.order({"t": "refused", "why": "the run has all the hosts that it wants"})
            return
        self._hosts[host.number] = host
        self._say(
            f"{host} joined with {host.slots} slots; its clock shows {host.offset_s:+.6f} s more, "
            f"to within {1e3 * host.uncertainty_s:.3f} ms"
        )
        host.order({"t": "start"})
        host.order(self.order)
        self._changed.set()

    def _forget(self, host: Host) -> None:
        host.alive = False
        host.left.set()
        if self._over:
            return
        if self._complete and host.number in self._hosts:
            self._on_gone(host)
        elif self._hosts.pop(host.number, None) is not None:
            self._say(f"{host} has left again")
            self._changed.set()

    # ---------------------------------------------------------------- ending

    async def measure_drift(self) -> None:
        """Measure the clocks once more, and say by how much they have run away; one that is silent is left out."""
        for host in self:
            if host.alive:
                with suppress(TimeoutError):
                    await host.measure_drift()
                    self._say(
                        f"{host}: its clock drifted by {1e3 * host.drift_s:+.3f} ms in the run, "
                        f"to within {2e3 * host.uncertainty_s:.3f} ms"
                    )

    async def close(self) -> None:
        """Send all hosts home and listen no more."""
        self._complete = self._over = True
        await asyncio.gather(*(host.end(ENDS_WITHIN_S) for host in self if host.alive))
        if self._door is not None:
            await self._door.close()
