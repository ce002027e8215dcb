"""The command line's surface is a promise: a change of any of this is a change for users."""

import importlib.metadata
import json
import subprocess
import sys
from typing import Any

import pytest
import typer

from orionbed.cli import app
from orionbed.cli.app import COMMANDS

SURFACE = {
    "check": ["SCENARIO", "--set KEY=VALUE ...", "--profile FILE", "--json"],
    "run": [
        "SCENARIO",
        "--backend = sim",
        "--set KEY=VALUE ...",
        "--profile FILE",
        "--seed",
        "--samples = 0",
        "--out",
        "--runs = runs",
        "--jobs = 0",
        "--force",
        "--dry-run",
        "--json",
    ],
    "train": [
        "SCENARIO",
        "--set KEY=VALUE ...",
        "--seed",
        "--seeds = 1",
        "--jobs = 0",
        "--out",
        "--runs = runs",
        "--force",
        "--json",
    ],
    "probe": [
        "SCENARIO",
        "--microbatches = 300",
        "--neighbours",
        "--hidden WIDTH",
        "--set KEY=VALUE ...",
        "--seed",
        "--json",
    ],
    "peer": [
        "--join HOST:PORT",
        "--token TOKEN",
        "--slots N = 0",
        "--host ADDRESS",
        "--certificates DIR",
        "--key FILE",
        "--trusted PATH",
    ],
    "report": ["RUN...", "--out", "--runs = runs"],
    "ls": ["--runs = runs", "--json"],
    "show": ["RUN", "--runs = runs", "--json"],
    "compare": ["A", "B", "--runs = runs", "--json"],
    "schedule": [
        "NAME",
        "--stages P",
        "--microbatches M",
        "--chunks V",
        "--forward TIME = 1s",
        "--backward TIME = 1s",
        "--weight TIME = 1s",
        "--latency TIME = 20ms",
        "--transfer TIME = 0ms",
        "--memory-limit N",
        "--split-backward",
        "--csv FILE",
        "--png FILE",
        "--json",
    ],
    "merge-lab": [
        "SCENARIO",
        "--algorithms NAME,...",
        "--intervals TIME,... = 15min,30min,60min",
        "--failures CHANCE,... = 0,0.1,0.35",
        "--merges = 2",
        "--horizon TIME",
        "--set KEY=VALUE ...",
        "--seed",
        "--jobs = 0",
        "--png FILE",
        "--json",
    ],
    "deadlines": ["SCENARIO", "--merges = 2", "--only RULE", "--set KEY=VALUE ...", "--seed", "--png FILE", "--json"],
    "validate": ["--only NAME ...", "--data DIR", "--document FILE", "--png FILE", "--jobs = 0", "--summary", "--json"],
    "sweep": [
        "SWEEP",
        "--set KEY=VALUE ...",
        "--seeds = 0",
        "--jobs = 0",
        "--out",
        "--runs = runs",
        "--force",
        "--png FILE",
        "--json",
    ],
    "value": [
        "SCENARIO",
        "--set KEY=VALUE ...",
        "--profile FILE",
        "--peers NAMES = all",
        "--by = peer",
        "--seeds = 5",
        "--horizon TIME = 2 h",
        "--jobs = 0",
        "--png FILE",
        "--json",
    ],
    "contest": [
        "CONTEST",
        "--router FILE:CLASS",
        "--seeds N = 5",
        "--set KEY=VALUE ...",
        "--jobs = 0",
        "--png FILE",
        "--timing",
        "--json",
    ],
    "crosscheck": [
        "SCENARIO",
        "--backend = emulator",
        "--set KEY=VALUE ...",
        "--profile FILE",
        "--seeds = 0",
        "--json",
    ],
    "calibrate": [
        "[SCENARIO]",
        "--device = cpu",
        "--stage N",
        "--threads N = 1",
        "--out FILE",
        "--check-only FILE",
        "--repetitions N = 30",
        "--set KEY=VALUE ...",
        "--json",
    ],
    "import-churn": [
        "FILE",
        "SCENARIO",
        "--format = auto",
        "--out FILE = churn.csv",
        "--peer NAME ...",
        "--each",
        "--seed = 0",
        "--json",
    ],
    "keys": ["ACTION", "NAME...", "--out DIR = keys", "--force", "--json"],
    "verify-checkpoint": ["FOLDER", "--trusted FILE", "--json"],
    "schema": [],
    "doctor": [],
    "clean": ["--runs = runs", "--all"],
}


def _written(parameter: Any) -> str:
    """An argument by its metavar, an option by its names, its metavar, its default, and `...` when it repeats."""
    fields = vars(parameter)
    if parameter.param_type_name == "argument":
        assert fields["required"] != fields["metavar"].startswith("["), "what may be left out stands in brackets"
        return str(fields["metavar"])
    assert not fields["required"]
    assert not fields["secondary_opts"], "no --no-something"
    text = "/".join(fields["opts"])
    text += f" {fields['metavar']}" if fields["metavar"] else ""
    text += f" = {fields['default']}" if fields["default"] not in (None, "") and not fields["is_flag"] else ""
    return text + (" ..." if fields["multiple"] else "")


def test_every_command_argument_and_option_is_as_promised() -> None:
    group = typer.main.get_command(app)
    commands = group.commands  # type: ignore[attr-defined]
    assert {name: [_written(p) for p in command.params] for name, command in commands.items()} == SURFACE
    assert [_written(parameter) for parameter in group.params] == ["--version"]


def test_every_command_says_what_it_does() -> None:
    for name, command in COMMANDS.items():
        assert command.__doc__, name
        assert command.__doc__.startswith(command.__doc__[0].upper())


@pytest.mark.parametrize("command", [[], *([name] for name in SURFACE)], ids=lambda c: c[0] if c else "orionbed")
def test_help_of_every_command(orionbed, command) -> None:
    ended = orionbed(*command, "--help")
    assert ended.code == 0
    assert ended.err == ""
    assert ended.out.startswith("Usage: ")
    for option in SURFACE[command[0]] if command else ["--version"]:
        assert option.partition(" ")[0].strip("[].") in ended.out


def test_version(orionbed) -> None:
    ended = orionbed("--version")
    assert (ended.code, ended.out) == (0, f"orionbed {importlib.metadata.version('orionbed')}\n")


def test_no_command_shows_the_help(orionbed) -> None:
    ended = orionbed()
    assert ended.code == 2
    assert "Commands:" in ended.out + ended.err


def test_the_module_is_the_command_line() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "orionbed", "nosuch"], capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert "No such command 'nosuch'" in ended.stderr


def test_schema_is_the_json_schema_of_scenarios(orionbed) -> None:
    ended = orionbed("schema")
    assert ended.code == 0
    schema = json.loads(ended.out)
    assert {"name", "model", "pipeline", "peers", "network", "run"} <= set(schema["$defs"]["Scenario"]["properties"])
