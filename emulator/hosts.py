"""The other machines of a run: the supervisor's door for them, who has joined, and which peers live where."""

import asyncio
import os
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from importlib import metadata
from typing import Any, Final

from emulator import control
from emulator.certificates import Authority
from emulator.control import Message
from emulator.enrolment import WITHIN_S, enrol
from emulator.host import Host
from emulator.members import Door, Member, certified
from emulator.stream import keep_alive
from emulator.tls import tls_order
from emulator.tokens import FROM_ENVIRONMENT, JoinToken
from orionbed.backends import BackendError
from orionbed.plan import Plan
from orionbed.quantity import parse_endpoint
from orionbed.scenario.emulation import Emulator

SAYS_EVERY_S: Final = 30.0
ENDS_WITHIN_S: Final = 15.0
_MOST_SLOTS: Final = 4096
