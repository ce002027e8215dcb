"""What users do wrong: exit code 2, a message that says where and what to do, no traceback, nothing on stdout."""

import errno
import os
import subprocess
from pathlib import Path

import pytest

from orionbed.cli.ending import EXIT_INPUT, EXIT_VOID, explained
from orionbed.ledger import LedgerError
from orionbed.waterfall import WaterfallError


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nosuch"], "No such command 'nosuch'"),
        (["run"], "Missing argument"),
        (["run", "tiny.yaml", "--nosuch"], "No such option: --nosuch"),
        (["run", "tiny.yaml", "extra"], "unexpected extra argument"),
        (["run", "tiny.yaml", "--seed", "-1"], "greater than or equal to 0"),
        (["run", "tiny.yaml", "--seed", "x"], "Invalid value for '--seed'"),
        (["run", "tiny.yaml", "--samples", "-1"], "Invalid value for '--samples'"),
        (["run", "tiny.yaml", "--jobs", "-1"], "Invalid value for '--jobs'"),
        (
            ["run", "tiny.yaml", "--backend", "nosuch"],
            "backend 'nosuch' does not exist; use --backend sim, emulator or real",
        ),
        (["run", "tiny.yaml", "--dry-run"], "--dry-run is for --backend real"),
        (["crosscheck", "tiny.yaml", "--backend", "sim"], "use emulator or real"),
        (["check", "minimla"], "minimla: no such file, nor a packaged scenario; did you mean minimal?"),
        (["check", "."], ".: "),
        (["check", "tiny.yaml", "--set", "run.seed"], "--set run.seed: write --set key=value"),
        (["check", "tiny.yaml", "--set", "run.sede=1"], "--set run.sede=1: run.sede: "),
        (["check", "tiny.yaml", "--set", "network.uplink=5"], "--set network.uplink=5: network.uplink: 5 has no unit"),
        (["run", "tiny.yaml", "--set", "pipeline.stages=0"], "--set pipeline.stages=0: pipeline.stages: "),
        (["show", "nosuch"], "there is no run 'nosuch', and no folder runs with runs; say where with --runs"),
        (["show", "."], ". is not the folder of a finished run: it has no summary.json"),
        (["report", "nosuch"], "there is no run 'nosuch'"),
        (["compare", "nosuch", "nosuch"], "there is no run 'nosuch'"),
        (["compare", "nosuch"], "Missing argument"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_input_ends_with_2(orionbed, terminal, arguments: list[str], message: str) -> None:
    ended = orionbed(*arguments)
    assert ended.code == 2
    assert message in ended.err
    assert ended.out == ""
    assert "Traceback" not in ended.err
    assert not terminal.runs.exists()


@pytest.mark.parametrize("command", ["check", "run"])
def test_a_wrong_file_names_file_line_column_key_and_all_problems(orionbed, terminal, command: str) -> None:
    text = terminal.scenario.read_text()
    text = text.replace("median: 200 Mbps", "median: 200").replace("stages: 2", "stagse: 2")
    terminal.scenario.write_text(text)
    before = text[: text.index("200,")]
    line, column = 1 + before.count("\n"), len(before) - before.rfind("\n")
    ended = orionbed(command, "tiny.yaml")
    assert ended.code == 2
    assert ended.out == ""
    problems = ended.err.splitlines()
    assert any(p.startswith("tiny.yaml:6:3: pipeline.stagse: ") and "did you mean stages?" in p for p in problems)
    wanted = f"tiny.yaml:{line}:{column}: network.uplink.median: 200 has no unit"
    assert any(p.startswith(wanted) for p in problems)


def test_yaml_that_is_none(orionbed, terminal) -> None:
    terminal.scenario.write_text("name: [tiny\nmodel: 1\n")
    ended = orionbed("check", "tiny.yaml")
    assert ended.code == 2
    assert ended.err.startswith("tiny.yaml:")
    assert "Traceback" not in ended.err


def test_a_program_fault_is_no_user_error() -> None:
    assert explained(KeyError("x")) is None
    assert explained(ZeroDivisionError()) is None


@pytest.mark.parametrize("error", [LedgerError("5 were lost"), WaterfallError("5 s are missing")])
def test_a_run_that_does_not_add_up_is_void(error: Exception) -> None:
    found = explained(error)
    assert found is not None
    assert found[0] == EXIT_VOID
    assert str(error) in found[1]


def test_a_full_disk_is_told_without_traceback() -> None:
    error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "runs/x/summary.json")
    assert explained(error) == (EXIT_INPUT, "runs/x/summary.json: No space left on device")


def test_a_void_run_leaves_nothing(orionbed, terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    def lose(*_: object, **__: object) -> None:
        raise LedgerError("5 micro-batches were lost")

    monkeypatch.setattr("sim.api.run", lose)
    ended = orionbed("run", "tiny.yaml")
    assert ended.code == EXIT_VOID
    assert "the run is void" in ended.err
    assert not terminal.runs.exists()


def test_reading_with_a_closed_stdout_is_no_error(terminal) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    process = terminal.start("schema", stdout=writer)
    os.close(writer)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")


def test_a_run_with_a_closed_stdout_goes_on_to_its_end(terminal) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    process = terminal.start("run", "tiny.yaml", "--out", "here", stdout=writer)
    os.close(writer)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert (terminal.folder / "here" / "summary.json").is_file()


def test_a_worker_that_dies_is_told_without_traceback() -> None:
    from orionbed.processes import in_processes

    with pytest.raises(Exception) as caught:  # noqa: PT011  (BrokenProcessPool, which a test need not import)
        in_processes(os._exit, [(1,)], 1)
    found = explained(caught.value)
    assert found is not None
    assert found[0] == EXIT_VOID
    assert "fewer --jobs" in found[1]


class TestTargetThatCannotBeWritten:
    """Found out before the run, not after it."""

    def expect(self, ended, target: object) -> None:
        assert ended.code == 2
        assert ended.out == ""
        assert ended.err.startswith(f"{target} cannot be ")
        assert "choose another folder with --out or --runs" in ended.err
        assert "Traceback" not in ended.err

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
    def test_read_only_folder(self, orionbed, terminal) -> None:
        (terminal.folder / "locked").mkdir(mode=0o555)
        ended = orionbed("run", "tiny.yaml", "--out", "locked/here")
        (terminal.folder / "locked").chmod(0o755)
        self.expect(ended, "locked/here")

    def test_no_permission(self, orionbed, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(path: Path, *_: object, **__: object) -> None:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

        monkeypatch.setattr(Path, "mkdir", refuse)
        ended = orionbed("run", "tiny.yaml", "--out", "here")
        self.expect(ended, "here")
        assert "Permission denied" in ended.err

    @pytest.mark.skipif(not Path("/proc/self").exists(), reason="Linux only")
    def test_a_file_system_that_takes_no_folders(self, orionbed) -> None:
        self.expect(orionbed("run", "tiny.yaml", "--out", "/proc/orionbed"), "/proc/orionbed")

    def test_below_a_file(self, orionbed) -> None:
        self.expect(orionbed("run", "tiny.yaml", "--out", "tiny.yaml/below"), "tiny.yaml/below")


def test_a_scenario_from_a_pipe_runs(terminal) -> None:
    process = terminal.start("run", "/dev/stdin", "--out", "here", stdin=subprocess.PIPE)
    out, err = process.communicate(terminal.scenario.read_text(), timeout=60)
    assert (process.returncode, err) == (0, ""), out
    assert not (terminal.folder / "here" / "scenario.yaml").exists()
    assert (terminal.folder / "here" / "resolved.yaml").is_file()
