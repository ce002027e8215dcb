"""Endpoints in one process over real sockets: messages, failures, changes, strangers, TLS, books."""

import os
import socket
import ssl
import subprocess
import threading
import time
from math import inf

import numpy as np
import pytest

from emulator.throttle.changes import BlockChange, CorruptChange, LinkChange
from emulator.throttle.counters import balance
from emulator.throttle.endpoint import Endpoint
from emulator.throttle.paths import Path
from emulator.throttle.rates import Rate
from orionbed.fleet.clock import PacedClock

pytestmark = pytest.mark.xdist_group("emulator")


class Net:
    """Some endpoints that know each other, and what they told."""

    def __init__(self, count=2, *, rate=100e6, path=None, **more):
        self.clock = PacedClock(time.monotonic() + 0.05)
        self.delivered = []
        self.failed = []
        self.endpoints = [self.make(i, rate=rate, path=path, **more) for i in range(count)]
        for one in self.endpoints:
            for other in self.endpoints:
                if one is not other:
                    one.set_address(other.index, other.address)
            one.start()

    def make(self, index, *, rate=100e6, path=None, token=b"secret", **more):
        return Endpoint(
            index, self.clock, uplink=Rate.constant(rate), downlink=Rate.constant(rate),
            path=lambda _: path or Path(0.001), deliver=self.delivered.append,
            failed=lambda *what: self.failed.append((index, *what)), seed=3, token=token, **more,
        )  # fmt: skip

    def wait(self, what, seconds=10.0):
        deadline = time.monotonic() + seconds
        while not what():
            assert time.monotonic() < deadline, (self.delivered, self.failed)
            time.sleep(0.002)

    def balance(self):
        return balance(endpoint.counters() for endpoint in self.endpoints)

    def quiet(self):
        self.wait(lambda: self.balance().in_flight_bytes == 0)
        return self.balance()


@pytest.fixture(name="nets")
def _nets():
    made = []

    def make(*args, **kwargs):
        made.append(Net(*args, **kwargs))
        return made[-1]

    yield make
    for net in made:
        for endpoint in net.endpoints:
            endpoint.close()


def test_messages_arrive_whole_in_order_and_at_their_time(nets):
    net = nets()
    bodies = [os.urandom(size) for size in (0, 1, 70_000, 1_000_000, 5)]
    numbers = [net.endpoints[0].send(1, f"header {i}".encode(), body, stamp_s=0.0) for i, body in enumerate(bodies)]
    net.wait(lambda: len(net.delivered) == len(bodies))
    assert [bytes(d.body) for d in net.delivered] == bodies
    assert [d.header for d in net.delivered] == [b"header %d" % i for i in range(5)]
    assert [d.message for d in net.delivered] == numbers
    assert {(d.source, d.sent_s) for d in net.delivered} == {(0, 0.0)}
    assert net.delivered[3].stamp_s == pytest.approx(1_070_001 / 100e6 + 0.001, abs=2e-5)
    assert net.clock.now() >= net.delivered[-1].stamp_s
    assert net.quiet().delivered_bytes == sum(map(len, bodies))
    assert net.endpoints[0].queued_bytes(1) == 0
    late = net.endpoints[1].lateness()
    assert late.shape == (5,)
    assert np.all(late >= 0.0)
    assert len(net.endpoints[1].frame_lateness()) >= 5


def test_numpy_and_other_buffers_are_sent_as_bytes(nets):
    net = nets()
    values = np.arange(1000, dtype=np.float32)
    net.endpoints[0].send(1, b"", memoryview(values), stamp_s=0.0)
    net.wait(lambda: net.delivered)
    assert np.array_equal(np.frombuffer(net.delivered[0].body, np.float32), values)


def test_a_message_to_oneself_arrives_at_its_stamp(nets):
    net = nets()
    stamp_s = net.clock.now() + 0.1
    net.endpoints[0].send(0, b"self", b"body", stamp_s=stamp_s)
    net.wait(lambda: net.delivered)
    assert net.delivered[0].stamp_s == stamp_s <= net.clock.now()
    assert net.balance().sent_bytes == 0


def test_what_cannot_be_sent_is_refused(nets):
    endpoint = nets().endpoints[0]
    with pytest.raises(ValueError, match="cannot send"):
        endpoint.send(1, bytes(2**16), b"", stamp_s=0.0)
    with pytest.raises(ValueError, match="cannot send"):
        endpoint.send(1, b"", b"", stamp_s=inf)
    with pytest.raises(ValueError, match="chunks"):
        Net(0).make(5, chunk_bytes=(0, 10))


def test_a_peer_without_an_address_or_a_listener_fails_at_once(nets):
    net = nets()
    net.endpoints[0].send(7, b"h", b"body", stamp_s=0.0)
    net.wait(lambda: net.failed)
    assert net.failed[0][:4] == (0, 7, b"h", 0)
    assert "no address" in net.failed[0][4]
    assert net.endpoints[0].queued_bytes(7) == 0
    with socket.create_server(("127.0.0.1", 0)) as gone:
        address = gone.getsockname()
    net.endpoints[0].set_address(8, address)
    net.endpoints[0].send(8, b"h", b"body", stamp_s=0.0)
    net.wait(lambda: len(net.failed) == 2)
    assert net.failed[1][1] == 8


def test_a_cut_fails_what_was_under_way_at_both_ends_and_the_next_message_opens_anew(nets):
    net = nets(rate=10e6)
    net.endpoints[0].send(1, b"from 0", bytes(5_000_000), stamp_s=0.0)
    net.endpoints[1].send(0, b"from 1", bytes(5_000_000), stamp_s=0.0)
    net.wait(lambda: net.clock.now() > 0.1)
    assert net.endpoints[0].queued_bytes(1) > 0
    net.endpoints[0].cut(1, "test")
    net.wait(lambda: len(net.failed) == 2)
    assert {(f[0], f[2]) for f in net.failed} == {(0, b"from 0"), (1, b"from 1")}
    assert next(f for f in net.failed if f[0] == 0)[4] == "test"
    assert not net.delivered
    assert net.endpoints[0].queued_bytes(1) == 0
    books = net.quiet()
    assert books.destroyed_bytes == books.sent_bytes > 0
    net.endpoints[0].send(1, b"again", b"x" * 1000, stamp_s=net.clock.now())
    net.wait(lambda: net.delivered)
    assert net.endpoints[0].counters().num_reconnects == 1
    assert net.quiet().delivered_bytes == 1000


def test_a_new_address_ends_the_old_connections(nets):
    net = nets(rate=10e6)
    net.endpoints[0].send(1, b"old", bytes(5_000_000), stamp_s=0.0)
    net.wait(lambda: net.clock.now() > 0.05)
    net.endpoints[1].close()
    net.wait(lambda: net.failed)
    second = net.make(1, life=1)
    net.endpoints.append(second)
    second.set_address(0, net.endpoints[0].address)
    second.start()
    net.endpoints[0].set_address(1, second.address)
    net.endpoints[0].send(1, b"new", b"x", stamp_s=net.clock.now())
    net.wait(lambda: net.delivered)
    net.endpoints[0].set_address(1, None)
    net.endpoints[0].send(1, b"nobody", b"x", stamp_s=net.clock.now())
    net.wait(lambda: any("no address" in what[4] for what in net.failed))


def test_control_messages_overtake(nets):
    net = nets(rate=10e6)
    net.endpoints[0].send(1, b"bulk", bytes(3_000_000), stamp_s=0.0)
    net.wait(lambda: net.clock.now() > 0.05)
    stamp_s = net.clock.now()
    net.endpoints[0].send(1, b"control", bytes(1000), stamp_s=stamp_s, control=True)
    net.wait(lambda: len(net.delivered) == 2)
    first = net.delivered[0]
    assert first.header == b"control"
    assert first.stamp_s - stamp_s <= 0.001 + 0.004 + 2 * 40_000 / 10e6 + 0.0001


def test_corrupted_chunks_are_found_sent_again_and_delivered_in_order(nets):
    net = nets(path=Path(0.002, 400_000, 400_000))
    net.endpoints[0].change(-1.0, CorruptChange(1, 0.2))
    bodies = [os.urandom(300_000) for _ in range(10)]
    for i, body in enumerate(bodies):
        net.endpoints[0].send(1, b"%d" % i, body, stamp_s=0.0)
    net.wait(lambda: len(net.delivered) == 10)
    assert [bytes(d.body) for d in net.delivered] == bodies
    stamps = [d.stamp_s for d in net.delivered]
    assert stamps == sorted(stamps)
    books = net.quiet()
    found, resent = net.endpoints[1].counters().num_corrupted, net.endpoints[0].counters().num_resent
    assert found == resent > 0
    repeated = net.endpoints[0].counters().sent[0].repeated_bytes
    assert books.destroyed_bytes == repeated > 0
    assert books.delivered_bytes == 3_000_000
    assert not net.failed


def test_a_block_holds_data_and_credits_back(nets):
    net = nets(path=Path(0.005, 200_000, 200_000))
    net.endpoints[1].change(0.1, BlockChange(0, blocked=True))  # the other way: credits stop, so the window fills
    net.endpoints[1].change(0.3, BlockChange(0, blocked=False))
    net.endpoints[0].send(1, b"", bytes(1_000_000), stamp_s=0.1)
    net.wait(lambda: net.delivered)
    # Five windows; the first credit comes back when the block ends.
    assert net.delivered[0].stamp_s == pytest.approx(0.3 + 4 * 0.01 + 0.01, abs=0.012)
    net.endpoints[0].change(0.5, BlockChange(1, blocked=True))
    net.endpoints[0].change(0.7, BlockChange(1, blocked=False))
    net.endpoints[0].send(1, b"", bytes(1000), stamp_s=0.55)
    net.wait(lambda: len(net.delivered) == 2)
    assert net.delivered[1].stamp_s == pytest.approx(0.705, abs=1e-3)


def test_links_change_at_their_second(nets):
    net = nets()
    net.endpoints[0].change(0.1, LinkChange("up", factor=0.1))
    net.endpoints[0].change(0.2, LinkChange("up"))
    net.endpoints[1].change(0.5, LinkChange("down", ceiling=0.0))
    net.endpoints[0].send(1, b"", bytes(12_000_000), stamp_s=0.0)
    net.wait(lambda: net.delivered)
    assert net.delivered[0].stamp_s == pytest.approx(0.211, abs=1e-6)
    net.endpoints[0].send(1, b"", bytes(1000), stamp_s=0.6)
    net.wait(lambda: net.clock.now() > 0.7)
    assert len(net.delivered) == 1
    net.endpoints[1].change(0.8, LinkChange("down"))
    net.wait(lambda: len(net.delivered) == 2)
    assert net.delivered[1].stamp_s == pytest.approx(0.8, abs=1e-3)


def test_strangers_are_shown_out(nets):
    net = nets()
    address = net.endpoints[1].address
    for noise in (b"GET / HTTP/1.1\r\n" + bytes(100), os.urandom(200)):
        with socket.create_connection(address, timeout=5.0) as stranger:
            stranger.sendall(noise)
            while True:
                try:
                    if not stranger.recv(4096):
                        break
                except ConnectionResetError:
                    break
    intruder = net.make(0, token=b"guess", life=9)
    net.endpoints.append(intruder)
    intruder.set_address(1, address)
    intruder.start()
    intruder.send(1, b"evil", b"x", stamp_s=0.0)
    net.wait(lambda: net.failed)
    net.endpoints[0].send(1, b"good", b"x", stamp_s=0.0)
    net.wait(lambda: net.delivered)
    assert [d.header for d in net.delivered] == [b"good"]


def test_many_threads_may_send(nets):
    net = nets(4)
    net.wait(lambda: net.clock.now() > 0.0)

    def send(source):
        for i in range(100):
            target = (source.index + 1 + i % 3) % 4
            source.send(target, b"%d" % i, bytes(i), stamp_s=net.clock.now())

    threads = [threading.Thread(target=send, args=(e,)) for e in net.endpoints for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    net.wait(lambda: len(net.delivered) == 800)
    assert net.quiet().delivered_bytes == 8 * sum(range(100))


def test_closing_is_final_and_may_be_repeated(nets):
    net = nets()
    net.endpoints[0].close()
    net.endpoints[0].close()
    never_started = net.make(9)
    never_started.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(net.endpoints[0].address, timeout=5.0)


def test_tls(nets, tmp_path):
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
         "-keyout", key, "-out", certificate, "-days", "2", "-subj", "/CN=peer"],
        check=True, capture_output=True,
    )  # fmt: skip
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate, key)
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.load_verify_locations(certificate)
    net = nets(server_tls=server, client_tls=client)
    body = os.urandom(3_000_000)
    net.endpoints[0].send(1, b"there", body, stamp_s=0.0)
    net.endpoints[1].send(0, b"back", body, stamp_s=0.0)
    net.wait(lambda: len(net.delivered) == 2)
    assert all(bytes(d.body) == body for d in net.delivered)
    net.quiet()
