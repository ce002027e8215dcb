"""Hosts that join: clients that do not belong, clocks, dealing peers, and what a machine that joins is told."""

import asyncio
import contextlib
import os
import re
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from emulator import joining
from emulator.enrolment import MOST_BYTES, obtain
from emulator.hosts import Hosts
from emulator.identity import Identity, UnknownKeyError
from orionbed.backends import BackendError
from orionbed.fleet import control
from orionbed.fleet.certificates import Authority
from orionbed.fleet.control import Channel
from orionbed.fleet.members import Member
from orionbed.fleet.reaching import reachable
from orionbed.fleet.stream import dial
from orionbed.fleet.tls import Credentials, Tls, fingerprint, stranger, tls_order
from orionbed.keys import Key, Trusted
from orionbed.plan import make_plan
from orionbed.scenario import load

pytestmark = [
    pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks at processes in /proc"),
    pytest.mark.xdist_group("emulator"),
]
HOME = "127.0.0.1"
RUN_TOKEN = "the token of the run"
HELLO = {"t": "hello", "role": "peer", "token": RUN_TOKEN, "index": 0, "life": 0}
JOIN = {"t": "join", "slots": 1, "version": metadata.version("orionbed")}


def free_port() -> int:
    with socket.create_server((HOME, 0)) as server:
        return int(server.getsockname()[1])


# ---------------------------------------------------------------- the supervisor's door


@dataclass
class House:
    """A supervisor's hosts, without the rest of the supervisor."""

    hosts: Hosts
    port: int
    said: list[str]
    events: list[tuple[Any, int]]
    gone: list[int]
    members: list[Member]
    heard: list[Any]
    knocking: list[asyncio.StreamWriter] = field(default_factory=list)

    async def knock(self, context: ssl.SSLContext | None = None) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection(HOME, self.port, ssl=context)
        self.knocking.append(writer)
        return reader, writer

    async def certificate(self) -> Credentials:
        reader, writer = await self.knock(stranger())
        seen = fingerprint(writer.get_extra_info("ssl_object").getpeercert(binary_form=True))
        found = await obtain(reader, writer, self.hosts._token, seen)
        writer.close()
        return found

    async def guest(self, ahead_s: float = 0.0, slots: int = 1) -> asyncio.StreamWriter:
        """Join as a host whose clock is ahead; return once it is told to prepare."""
        reader, writer = await self.knock((await self.certificate()).client())
        writer.write(control.encoded(JOIN | {"slots": slots}))
        while (order := await control.read(reader))["t"] == "ping":
            writer.write(control.encoded({"t": "pong", "at_s": time.monotonic() + ahead_s}))
        assert order["t"] == "start"
        return writer


def small_plan(*sets: str, slots: int = 2, port: int = 7777) -> Any:
    return make_plan(
        load("minimal", [f"emulator={{listen: '{HOME}:{port}', remote_slots: {slots}, join_timeout: 1 s}}", *sets])
    )


@contextlib.asynccontextmanager
async def opened(*sets: str, slots: int = 2) -> AsyncIterator[House]:
    port = free_port()
    said, events, gone, heard = [], [], [], []
    hosts = Hosts(
        small_plan(*sets, slots=slots, port=port),
        said.append,
        lambda event, number: events.append((event, number)),
        lambda host: gone.append(host.number),
    )
    hosts.order = {"t": "job"}
    members = [Member(index, "peer") for index in range(8)]
    house = House(hosts, port, said, events, gone, members, heard)
    await hosts.open(RUN_TOKEN, lambda hello: members[hello["index"]], lambda _, message: heard.append(message))
    try:
        yield house
    finally:
        for writer in house.knocking:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
        await hosts.close()


async def dropped(reader: asyncio.StreamReader) -> bytes:
    """Wait until the other end hangs up; return what it said before."""
    with contextlib.suppress(OSError):
        return await asyncio.wait_for(reader.read(), 15.0)
    return b""


async def bad_clients(house: House) -> AsyncIterator[asyncio.StreamReader]:
    """Knock in every wrong way, one after the other."""
    reader, writer = await house.knock()
    writer.write(os.urandom(4096))
    yield reader
    reader, writer = await house.knock()
    writer.write(control.encoded(HELLO))  # no TLS
    yield reader
    mine = (await house.certificate()).client()
    for context, data in (
        (stranger(), os.urandom(4096)),
        (stranger(), control.encoded(HELLO)),
        (stranger(), control.encoded(JOIN)),
        (mine, control.encoded(HELLO | {"token": "another token"})),
        (mine, control.encoded(HELLO | {"token": "\ud800"})),
        (mine, struct.pack("!I", MOST_BYTES + 1)),
        (mine, struct.pack("!I", 2) + b"[]"),
        (mine, struct.pack("!I", 9000) + b"[" * 9000),
        (mine, control.encoded({"t": "enrol"}) + control.encoded({"t": "proof", "proof": "00"})),
        (mine, control.encoded(JOIN | {"slots": 0})),
        (mine, control.encoded(JOIN | {"slots": "many"})),
        (mine, control.encoded(JOIN | {"version": "0.0"})),
        (mine, control.encoded(JOIN) + control.encoded({"t": "pong", "at_s": "now"})),
        (mine, control.encoded(JOIN) + control.encoded({"t": "exited", "pid": "x"})),
        (mine, control.encoded(JOIN) + control.encoded({"t": "forked", "pid": 1, "index": None, "life": 0})),
    ):
        reader, writer = await house.knock(context)
        writer.write(data)
        yield reader


def test_clients_that_do_not_belong_are_dropped_without_harm() -> None:
    async def go() -> None:
        async with opened() as house:
            async for reader in bad_clients(house):
                await dropped(reader)
                assert list(house.hosts) == []
            assert all(member.writer is None for member in house.members)
            assert (house.events, house.heard, house.gone) == ([], [], [])
            foreign = Authority().issue("host 1")
            mine = Credentials(foreign.key, foreign.certificate, (await house.certificate()).authority)
            with contextlib.suppress(OSError):
                reader, writer = await house.knock(mine.client())
                writer.write(control.encoded(JOIN))
                assert await dropped(reader) == b""
            await house.guest()  # the door still opens
            assert [host.slots for host in house.hosts] == [1]

    asyncio.run(go())


def test_a_member_with_certificate_and_token_is_let_in() -> None:
    async def go() -> None:
        async with opened() as house:
            reader, writer = await house.knock((await house.certificate()).client())
            writer.write(control.encoded(HELLO) + control.encoded({"t": "up", "address": [HOME, 1]}))
            await asyncio.wait_for(house.members[0].arrived.wait(), 5.0)
            house.members[0].tell({"t": "setup"})
            assert (await control.read(reader))["t"] == "setup"
            assert [message["t"] for message in house.heard] == ["up"]

    asyncio.run(go())


def test_one_that_says_what_it_has_to_say_and_hangs_up_at_once_is_heard() -> None:
    async def go() -> None:
        async with opened() as house:
            credentials = await house.certificate()
            tls = Tls.from_order(tls_order(credentials, house.hosts._token.fingerprint))

            def brief() -> None:
                channel = Channel(dial((HOME, house.port), tls))
                channel.send(HELLO)
                channel.send({"t": "measured"})
                channel.close()

            thread = threading.Thread(target=brief)
            thread.start()
            while thread.is_alive() or not house.heard:
                await asyncio.sleep(0.05)
            assert [message["t"] for message in house.heard] == ["measured"]

    asyncio.run(go())


@pytest.mark.parametrize("ahead_s", [-1000.0, 0.25, 12345.0])
def test_the_offset_of_another_clock_is_found_to_within_its_uncertainty(ahead_s: float) -> None:
    async def go() -> None:
        async with opened() as house:
            await house.guest(ahead_s)
            (host,) = house.hosts
            assert 0.0 < host.uncertainty_s < 0.1
            assert abs(host.offset_s - ahead_s) <= host.uncertainty_s
            assert f"to within {1e3 * host.uncertainty_s:.3f} ms" in house.said[0]

    asyncio.run(go())


def test_hosts_that_leave_before_the_run_are_not_counted() -> None:
    async def go() -> None:
        async with opened() as house:
            writer = await house.guest()
            writer.close()
            with pytest.raises(BackendError, match="only 0 of 2 slots"):
                await house.hosts.gathered()
            assert house.gone == []
            assert "0 of 2 slots have joined" in house.said

    asyncio.run(go())


def test_peers_are_dealt_by_slots_and_a_lost_host_is_told_of() -> None:
    async def go() -> None:
        async with opened(slots=3) as house:
            first, _second = await house.guest(slots=1), await house.guest(slots=8)
            await house.hosts.gathered()
            assert any(f"--join {HOME}:{house.port} --token" in line for line in house.said)
            house.hosts.deal(house.members)
            assert [member.host for member in house.members] == [1, 2, 2, 0, 0, 0, 0, 0]
            late = await house.knock((await house.certificate()).client())
            late[1].write(control.encoded(JOIN))
            assert (await control.read(late[0]))["t"] == "refused"
            first.write(control.encoded({"t": "exited", "pid": 7, "status": 1}))
            first.close()
            while not house.gone:
                await asyncio.sleep(0.01)
            assert house.events == [({"t": "exited", "pid": 7, "status": 1}, 1)]
            assert (house.gone, house.hosts[1].alive, house.hosts[2].alive) == ([1], False, True)

    asyncio.run(go())


def test_a_link_that_a_site_shares_is_not_split_over_hosts() -> None:
    async def go() -> None:
        async with opened("network.site_uplink=1 Gbps", slots=1) as house:
            await house.guest(slots=1)
            await house.hosts.gathered()
            with pytest.raises(BackendError, match=r"oregon would be on 2 hosts, but network\.site_uplink"):
                house.hosts.deal(house.members)

    asyncio.run(go())


def test_more_slots_than_peers_and_a_port_in_use() -> None:
    async def go() -> None:
        with pytest.raises(BackendError, match="remote_slots is 9, but there are 8 peers"):
            Hosts(small_plan(slots=9), print, lambda *_: None, lambda _: None)
        async with opened() as house:
            twin = Hosts(small_plan(port=house.port), print, lambda *_: None, lambda _: None)
            with pytest.raises(BackendError, match=r"cannot listen at emulator\.listen"):
                await twin.open(RUN_TOKEN, lambda _: None, lambda *_: None)
            await twin.close()

    asyncio.run(go())


class _Writer:
    def __init__(self, here: str, there: str) -> None:
        self._names = {"sockname": (here, 1), "peername": (there, 2)}

    def get_extra_info(self, name: str) -> Any:
        return self._names[name]


def test_peers_that_listen_everywhere_are_reached_where_they_came_from() -> None:
    def member(host: int, address: str, here: str = HOME, there: str = HOME) -> Member:
        writer: Any = _Writer(here, there)
        return Member(0, "peer", host=host, address=[address, 99], writer=writer)

    local, far = member(0, "0.0.0.0"), member(1, "0.0.0.0", here="10.0.0.1", there="10.0.0.2")
    assert reachable(local, local) == [HOME, 99]
    assert reachable(local, far) == ["10.0.0.1", 99]
    assert reachable(far, local) == ["10.0.0.2", 99]
    assert reachable(member(2, "10.0.0.3"), far) == ["10.0.0.3", 99]
    assert reachable(Member(0, "peer"), far) is None


# ---------------------------------------------------------------- the machine that joins


def test_machines_are_known_by_keys_that_they_keep(tmp_path: Path) -> None:
    home, known, strange = (Key.new(name) for name in ("home", "alice", "mallory"))
    for key in (home, known, strange):
        key.write(tmp_path / "private")
    for key, folder in ((known, "hosts"), (home, "supervisors")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / f"{key.name}.pub").write_text(key.public_line)

    def private(key: Key) -> Path:
        return tmp_path / "private" / f"{key.name}.key"

    async def go() -> None:
        sets = [f"emulator.key={private(home)}", f"emulator.trusted={tmp_path / 'hosts'}"]
        async with opened(*sets) as house:
            address, token, refused = f"{HOME}:{house.port}", str(house.hosts._token), "does not take this host"
            cases: list[tuple[dict[str, Any], str]] = [
                ({}, f"{refused}: it has shown no key"),
                ({"key": private(strange)}, f"{refused}: its key {re.escape(strange.fingerprint)} is none of"),
                ({"trusted": tmp_path / "hosts"}, "is not trusted: its key .* is none of the trusted ones"),
                ({"key": tmp_path / "none.key"}, "--key: .*none.key: the key cannot be read"),
            ]
            for settings, message in cases:
                with pytest.raises(BackendError, match=message):
                    await asyncio.to_thread(joining.join, address, token, **settings)
            assert [strange.fingerprint in line for line in house.said] == [False, True]
            reader, writer = await house.knock(stranger())
            identity = Identity.read(private(known), tmp_path / "supervisors", ("--key", "--trusted"))
            found = await obtain(reader, writer, house.hosts._token, house.hosts._token.fingerprint, identity)
            assert x509.load_pem_x509_certificate(found.certificate.encode()).subject.rfc4514_string() == "CN=alice"

    asyncio.run(go())


@pytest.mark.parametrize("part", ["role", "nonces", "certificate", "key"])
def test_a_key_that_was_shown_elsewhere_is_not_ones_own(part: str) -> None:
    mine, other = Key.new("alice"), Key.new("mallory")
    said = {"role": "host", "nonces": "a b", "certificate": "f"}
    shown = Identity(mine).shown(**said)
    theirs = Identity(trusted=Trusted.of([mine]))
    assert theirs.known(shown, **said) == "alice"
    if part == "key":
        shown |= {"signature": Identity(other).shown(**said)["signature"]}
    else:
        said[part] = "another"
    with pytest.raises(UnknownKeyError, match="the key of 'alice', which is not its own"):
        theirs.known(shown, **said)
    for nonsense in ({}, {"public": "x", "signature": "y"}, {"public": None}):
        with pytest.raises(UnknownKeyError, match="shown no key"):
            theirs.known(nonsense, **said)


def test_joining_with_a_wrong_token_or_at_a_wrong_place_says_so(tmp_path: Path) -> None:
    async def go() -> None:
        async with opened() as house:
            address = f"{HOME}:{house.port}"
            seen = house.hosts._token.fingerprint
            for token, message in (
                ("wrong" * 5, "does not know this token"),
                (f"{'wrong' * 5}.{seen}", "does not know this token"),
                (f"{house.hosts._token.secret}.{'0' * 64}", "is not the supervisor that made this token"),
            ):
                with pytest.raises(BackendError, match=message):
                    await asyncio.to_thread(joining.join, address, token)
            kept = tmp_path / "deep" / f"orionbed-{seen[:16]}.json"
            kept.parent.mkdir()
            kept.write_text("{}")
            with pytest.raises(BackendError, match="is no certificate of this program"):
                await asyncio.to_thread(joining.join, address, str(house.hosts._token), certificates=kept.parent)
            assert list(house.hosts) == []
        with pytest.raises(BackendError, match=f"no supervisor at {address}"):
            await asyncio.to_thread(joining.join, address, "x" * 16, patience_s=0.0)
        with pytest.raises(BackendError, match="--join: 'nowhere' is no HOST:PORT"):
            await asyncio.to_thread(joining.join, "nowhere", "x" * 16)

    asyncio.run(go())


def test_what_is_needed_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ORIONBED_TOKEN", raising=False)
    for arguments, missing in (([], "--join HOST:PORT"), (["--join", f"{HOME}:1"], "--token TOKEN")):
        ended = subprocess.run(
            [sys.executable, "-m", "orionbed", "peer", *arguments], capture_output=True, text=True, check=False
        )
        assert ended.returncode == 2
        assert ended.stderr.startswith(f"{missing}")
