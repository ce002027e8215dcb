"""Progress: plain lines into files and pipes, a bar on a terminal, nothing beside --json."""

import os
import pty
import re
import select
from pathlib import Path

import pytest

from orionbed.cli import progress
from orionbed.cli.progress import Console


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Print every report, not one in five seconds."""
    monkeypatch.setattr(progress, "PLAIN_EVERY_S", 0.0)


class Screen:
    """A pseudo-terminal in place of stdout. Not a fixture: pytest puts its own stdout back before the test."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
        self._reader, writer = pty.openpty()
        self._file = os.fdopen(writer, "w")
        monkeypatch.setattr("sys.stdout", self._file)
        monkeypatch.setenv("TERM", kind)
        monkeypatch.setenv("COLUMNS", "80")

    def shown(self) -> str:
        """What has been written; closes the terminal."""
        self._file.flush()
        text = b""
        while select.select([self._reader], [], [], 0.2)[0]:
            text += os.read(self._reader, 1 << 16)
        self._file.close()
        os.close(self._reader)
        return text.decode()


@pytest.mark.usefixtures("impatient")
def test_a_pipe_gets_plain_lines_with_time_tokens_and_mfu(orionbed) -> None:
    ended = orionbed("run", "tiny.yaml", "--set", "run.duration=30 min")
    assert "\x1b" not in ended.out
    shown = [line for line in ended.out.splitlines() if "simulated " in line]
    assert len(shown) == 3
    assert re.fullmatch(r" 33%    0\.17 h simulated +[\d.]+ M tokens   MFU so far 0\.\d%", shown[0])
    assert shown[-1].startswith("100%    0.50 h simulated")


@pytest.mark.usefixtures("impatient")
def test_a_run_that_ends_by_tokens_counts_tokens(orionbed) -> None:
    ended = orionbed("run", "tiny.yaml", "--set", "run.duration=null", "--set", "run.tokens=20e6")
    shares = [int(found) for found in re.findall(r"^ *(\d+)%  .* simulated", ended.out, re.MULTILINE)]
    assert len(shares) > 1
    assert shares == sorted(shares)
    assert shares[-1] == 100


@pytest.mark.usefixtures("impatient")
def test_colours_forced_into_a_file_do_not_make_it_a_terminal(orionbed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert "\x1b" not in orionbed("run", "tiny.yaml").out


def test_plain_lines_come_every_few_seconds_only(orionbed) -> None:
    assert "simulated " not in orionbed("run", "tiny.yaml").out


@pytest.mark.usefixtures("impatient")
def test_json_has_no_progress(orionbed, terminal) -> None:
    ended = orionbed("run", "tiny.yaml", "--json", "--out", "here")
    assert ended.out.startswith("{")
    assert ended.err == ""
    # The log has what was not printed.
    assert (terminal.folder / "here" / "log.txt").read_text().splitlines()[1] == "simulating the datacenter baseline"


def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Screen(monkeypatch, "xterm")
    console = Console(quiet=False)
    with console.count("draws", 4) as report:
        report(1)
        report(3)
    console.line("done")
    shown = screen.shown()
    assert "━" in shown
    assert "75%" in shown
    assert "3 of 4 draws" in shown
    assert shown.endswith("done\r\n")
    assert console.log == ["done"]


@pytest.mark.usefixtures("impatient")
def test_a_dumb_terminal_gets_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Screen(monkeypatch, "dumb")
    with Console(quiet=False).count("draws", 4) as report:
        report(3)
    assert screen.shown() == " 75%  3 of 4 draws\r\n"


def test_nobody_reads_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(*_: object, **__: object) -> None:
        raise BrokenPipeError

    console = Console(quiet=False)
    monkeypatch.setattr("typer.echo", closed)
    monkeypatch.setattr(progress, "discard_stdout", lambda: None)
    console.line("one")
    console.line("two")
    assert console.quiet
    assert console.log == ["one", "two"]


def test_the_progress_of_a_run_on_a_terminal_leaves_clean_lines(terminal) -> None:
    reader, writer = pty.openpty()
    process = terminal.start("run", "tiny.yaml", "--set", "run.duration=30 min", "--out", "here", stdout=writer)
    os.close(writer)
    shown = b""
    try:
        while chunk := os.read(reader, 1 << 16):
            shown += chunk
    except OSError:  # how Linux says that the other end is closed
        pass
    finally:
        os.close(reader)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    text = shown.decode()
    assert "━" in text
    assert "h simulated" in text
    assert re.search(r"report  here/report\.html\r\n", text)
    assert Path(terminal.folder / "here" / "summary.json").is_file()
