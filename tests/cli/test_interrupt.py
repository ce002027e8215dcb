"""Ctrl-C and SIGTERM in mid-run: exit code 3, no folder, no process left behind."""

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks at processes in /proc")
PATIENCE_S = 60.0


def children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def gone(pid: int) -> bool:
    """Whether a process has ended; one that nobody has asked after yet is gone too."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def wait_until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def end(process: "subprocess.Popen[str]", send: Callable[[], None]) -> str:
    """Send the signal and return stderr; the run must end as an interrupted one, and its children with it."""
    others = children(process.pid)
    send()
    _, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 3
    wait_until(lambda: all(gone(pid) for pid in others))
    return err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_in_mid_run(terminal, number: int) -> None:
    process = terminal.start("run", "tiny.yaml", "--set", "run.duration=9000 h", "--runs", "a/runs")
    wait_until(terminal.hidden)
    err = end(process, lambda: process.send_signal(number))
    assert err == "interrupted; a run that is not finished leaves nothing behind\n"
    assert [path.name for path in terminal.folder.iterdir()] == ["tiny.yaml"]


@pytest.mark.parametrize("whole_group", [False, True], ids=["process", "terminal"])
def test_interrupted_while_drawing_samples(terminal, whole_group: bool) -> None:
    """A terminal sends Ctrl-C to every process of the group; a supervisor to the first one only."""
    process = terminal.start(
        *("run", "tiny.yaml", "--samples", "50", "--jobs", "2", "--set", "run.samples_horizon=9000 h")
    )
    wait_until(lambda: len(children(process.pid)) >= 2)
    err = end(process, lambda: (os.killpg if whole_group else os.kill)(process.pid, signal.SIGINT))
    assert err == "interrupted; a run that is not finished leaves nothing behind\n"
    assert [path.name for path in terminal.folder.iterdir()] == ["tiny.yaml"]


def test_an_interrupted_replacement_keeps_the_run(orionbed, terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    from orionbed.cli.ending import Interrupted

    def interrupt(folder: Path) -> None:
        raise Interrupted

    orionbed("run", "tiny.yaml", "--out", "here")
    before = {path: path.read_bytes() for path in (terminal.folder / "here").iterdir()}
    monkeypatch.setattr("orionbed.cli.run._write_report", interrupt)
    ended = orionbed("run", "tiny.yaml", "--out", "here", "--force")
    assert ended.code == 3
    assert {path: path.read_bytes() for path in (terminal.folder / "here").iterdir()} == before


def test_signal_handlers_are_put_back(orionbed) -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    orionbed("ls")
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
