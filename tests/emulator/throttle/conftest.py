"""Running rehearsals until the machine keeps the time, and seeing that nothing is left of them."""

import os
import time
from collections.abc import Callable, Iterator
from multiprocessing import resource_tracker
from pathlib import Path as FilePath

import numpy as np
import pytest

from emulator.throttle.counters import balance
from emulator.throttle.rehearsal import Rehearsal, Report, rehearse

ATTEMPTS = 5
BESIDE_OTHERS = os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1") != "1"
LATER_BESIDE_OTHERS = 6.0
"""Where other tests have the second core, deliveries may be so many times as late as on a machine of their own.

The limits themselves hold for `pytest tests/emulator/throttle` on a quiet machine.
"""


def children() -> set[str]:
    """The living processes that this one started."""
    return set(FilePath("/proc/thread-self/children").read_text().split())


def listening() -> set[str]:
    """The inodes of this user's listening sockets that belong to this process or to its children."""
    lines = FilePath("/proc/self/net/tcp").read_text().splitlines()[1:]
    inodes = {line.split()[9] for line in lines if line.split()[3] == "0A"}
    own = set()
    for fd in FilePath("/proc/self/fd").iterdir():
        try:
            target = str(fd.readlink())
        except OSError:
            continue
        if target.startswith("socket:["):
            own.add(target[8:-1])
    return inodes & own


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    resource_tracker.ensure_running()  # multiprocessing's own helper stays
    before, ports = children(), listening()
    yield
    deadline = time.monotonic() + 5.0
    while (children() - before or listening() - ports) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert children() <= before
    assert listening() <= ports


Play = Callable[..., Report]


@pytest.fixture(name="play", scope="session")
def _play() -> Play:
    """Run a rehearsal in which the machine does not stall; nothing may be lost, damaged or undelivered.

    A run in which frames came in late, or deliveries too late, is repeated: it says nothing about us. The limits are
    in real seconds.
    """

    def play(
        rehearsal: Rehearsal, *, frames_late_s: float = 0.002, late_s: float = np.inf, complete: bool = True
    ) -> Report:
        late_s *= LATER_BESIDE_OTHERS if BESIDE_OTHERS else 1.0
        told = []
        for attempt in range(ATTEMPTS):
            report = rehearse(rehearsal)
            assert all(arrival.right for arrival in report.arrivals)
            if not rehearsal.kills:  # a killed process leaves no counts
                balance(report.counters)
            frames = float(np.percentile(report.frame_late_s, 99))
            late = float(np.percentile(report.late_s, 99)) if report.arrivals else 0.0
            if frames <= frames_late_s and late <= late_s:
                if complete:
                    assert not report.failures
                    assert len(report.arrivals) == sum(load.count for load in rehearsal.loads)
                return report
            told.append(f"frames {1e3 * frames:.1f} ms, deliveries {1e3 * late:.1f} ms")
            time.sleep(0.5 * (attempt + 1))
        pytest.fail(f"the machine stalled each time; late (p99): {'; '.join(told)}")

    return play
