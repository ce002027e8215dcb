"""How a forked process reports to the supervisor, and what it is told before anything else."""

import os
from typing import Any

from emulator.job import Job
from orionbed.emulation import Scales
from orionbed.fleet.control import Channel
from orionbed.fleet.stream import dial


def connected(job: Job, role: str, index: int = -1, life: int = 0) -> Channel:
    """Return a channel to the supervisor, to whom this process has said who it is."""
    channel = Channel(dial(job.control, job.tls))
    channel.send({"t": "hello", "role": role, "token": job.token, "index": index, "life": life, "pid": os.getpid()})
    return channel


def entered(job: Job, order: dict[str, Any]) -> tuple[Channel, Scales]:
    """Return a channel for the participant that an order asks for, and how the run is scaled."""
    channel = connected(job, order["role"], order["index"], order["life"])
    setup = channel.receive()
    return channel, Scales(setup["time_dilation"], setup["payload_scale"])
