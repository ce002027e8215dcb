"""A peer in virtual time: its events happen when the coordinator says so, and nobody waits for a clock."""

from math import inf
from typing import Any

from emulator.entry import entered
from emulator.headers import sealed
from emulator.job import Job
from emulator.participants import make_peer
from emulator.post import Post
from orionbed.emulation import Scales
from orionbed.fleet.control import Channel
from orionbed.fleet.headers import unpacked
from orionbed.fleet.participants import PeerParticipant
from orionbed.training.surroundings import Header


class PostWire:
    """Sends real bytes at once, and notes down what was sent for the coordinator, who knows when it arrives."""

    def __init__(self, post: Post, scales: Scales) -> None:
        self._post, self._scales = post, scales
        self.sent: list[list[Any]] = []

    def send(
        self, target: int, header: Header, body: bytes, num_bytes: float, at_s: float, *, control: bool = False
    ) -> None:
        """Send a message from second `at_s` of the run on."""
        number = self._post.send(target, *sealed(header, body, num_bytes, at_s, self._scales), control=control)
        self.sent.append([target, number, num_bytes, at_s])


def run_unpaced(job: Job, order: dict[str, Any]) -> None:
    """Be a peer until the run is over."""
    channel, scales = entered(job, order)
    index, life = order["index"], order["life"]
    post = Post(index, job.token.encode(), job.host)
    wire = PostWire(post, scales)
    participant = make_peer(job, index, life, wire, channel.send)
    channel.send({"t": "up", "address": list(post.address)})
    post.meet({peer: (address[0], address[1]) for peer, address in channel.receive()["addresses"]})
    participant.started(0.0)
    try:
        _serve(channel, participant, post, wire)
    finally:
        post.close()
        channel.close()


def _serve(channel: Channel, participant: PeerParticipant, post: Post, wire: PostWire) -> None:
    """Do what the coordinator says, one command at a time; the real work is done while others have their turn."""
    loop = participant.loop
    while True:
        command = channel.receive()
        what, at_s = command["t"], command["at_s"]
        if what == "finish":
            break
        if what == "deliver":
            header, body = post.take(command["from"], command["number"])
            full = unpacked(header) | {"from": command["from"]}
            loop.timeline.at(at_s, loop.arrive, (full, bytes(body[: full["length"]])))
        elif what != "step":
            loop.timeline.at(at_s, participant.command, command)
        while loop.timeline.next_s() <= at_s:
            loop.timeline.step()
        next_s = loop.timeline.next_s()
        channel.send({"t": "did", "at_s": at_s, "next_s": None if next_s == inf else next_s, "sent": wire.sent})
        wire.sent = []
        loop.work()
    loop.timeline.now_s = at_s
    participant.close()
    counters = {"departed_bytes": post.bytes_sent, "delivered_bytes": post.bytes_received}
    channel.send({"t": "final", **participant.final(), "late_s": [], "frames_late_s": [], "counters": counters})
