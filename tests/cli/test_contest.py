"""`orionbed contest`: what it prints, its exit codes, and Ctrl-C in the middle of a router's thought."""

import json
import os
import signal
import time
from pathlib import Path

import pytest

CONTEST = """\
kind: routing-contest
name: tiny
miners:
  count: 6
  layers: {least: 2, most: 2}
  classes: {steady: {share: 100 %, drop: 0, join: 1}}
  forward: {dist: lognormal, median: 1 s, sigma: 0.5}
network: {activation: 1 MB, bandwidth: 100 Mbps, latency: 10 ms}
epochs: {count: 2, activations: 30, in_flight: 8}
router: {route_timeout: 20 s}
"""
ROUTER = """\
class Mine:
    def route(self, request):
        {body}
        return [layer.miners[0].miner for layer in request.layers]
"""


@pytest.fixture(name="contest")
def _contest(terminal) -> Path:
    path = terminal.folder / "contest.yaml"
    path.write_text(CONTEST, encoding="utf-8")
    (terminal.folder / "mine.py").write_text(ROUTER.format(body="pass"), encoding="utf-8")
    return path


def test_all_routers_are_scored(orionbed, contest) -> None:
    ended = orionbed("contest", "contest.yaml", "--router", "mine.py:Mine", "--seeds", 2)
    assert (ended.code, ended.err) == (0, "")
    lines = ended.out.splitlines()
    assert lines[0] == "tiny  6 miners, 2 x 30 activations, seeds 0 to 1"
    assert {line.split()[0] for line in lines[2:6]} == {"mine.py:Mine", "random", "swarm", "least-completion"}
    scores = [float(line.split()[1]) for line in lines[2:6]]
    assert scores == sorted(scores, reverse=True)
    assert sum(line.startswith("  seed ") for line in lines) == 2 * 4


def test_json_is_the_same_every_time_and_on_any_number_of_processes(orionbed, contest) -> None:
    command = ("contest", contest, "--router", "mine.py:Mine", "--seeds", 2, "--json")
    first = orionbed(*command)
    assert (first.code, first.err) == (0, "")
    assert orionbed(*command, "--jobs", 1).out == first.out
    found = json.loads(first.out)
    assert (found["contest"], found["interface"], found["seeds"]) == ("tiny", 1, [0, 1])
    by_name = {router["router"]: router for router in found["routers"]}
    assert by_name["random"]["scores"] == [0.0, 0.0]
    mine = by_name["mine.py:Mine"]
    for seed in mine["seeds"]:
        assert seed["total_s"] == sum(epoch["time_s"] for epoch in seed["epochs"]) >= seed["bound_s"]
        assert all(e["created"] == e["completed"] + e["lost"] + e["flushed"] for e in seed["epochs"])
    assert mine["score"] < by_name["least-completion"]["score"]


def test_a_picture_and_how_long_it_took(orionbed, contest) -> None:
    ended = orionbed("contest", contest, "--router", "mine.py:Mine", "--seeds", 1, "--png", "scores.png", "--timing")
    assert ended.code == 0
    assert Path("scores.png").read_bytes().startswith(b"\x89PNG")
    assert ended.out.splitlines()[-1].endswith(" ms to ask it")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nosuch"], "nosuch: no such file, nor a packaged scenario"),
        (["contest.yaml", "--router", "nosuch.py:Mine"], "--router nosuch.py:Mine: nosuch.py: no such file"),
        (["contest.yaml", "--router", "mine.py:Other"], "there is no class Other in it; its classes are Mine"),
        (["contest.yaml", "--seeds", "0"], "Invalid value for '--seeds'"),
        (["contest.yaml", "--set", "epochs.cuont=1"], "--set epochs.cuont=1: epochs.cuont: unknown key; did you mean"),
        (["tiny.yaml"], "is a scenario and no contest; run it with `orionbed run tiny.yaml`"),
    ],
)
def test_wrong_input_ends_with_2(orionbed, contest, arguments: list[str], message: str) -> None:
    ended = orionbed("contest", *arguments)
    assert (ended.code, ended.out) == (2, "")
    assert message in ended.err
    assert "Traceback" not in ended.err


@pytest.mark.parametrize("command", ["run", "check", "crosscheck"])
def test_other_commands_send_a_contest_here(orionbed, contest, command: str) -> None:
    ended = orionbed(command, "contest.yaml")
    assert (ended.code, ended.out) == (2, "")
    assert ended.err == (
        "contest.yaml:1:1: is a routing contest and no scenario; run it with `orionbed contest contest.yaml`\n"
    )


def test_a_bad_router_ends_with_2_and_one_line(orionbed, contest) -> None:
    Path("mine.py").write_text(ROUTER.format(body="1 / 0"), encoding="utf-8")
    ended = orionbed("contest", contest, "--router", "mine.py:Mine")
    assert (ended.code, ended.out) == (2, "")
    (line,) = ended.err.splitlines()
    assert "mine.py:3: in route: ZeroDivisionError: division by zero" in line


def test_a_router_that_fails_now_and_then_is_told(orionbed, contest) -> None:
    Path("mine.py").write_text(ROUTER.format(body="assert request.activation != 20"), encoding="utf-8")
    ended = orionbed("contest", contest, "--router", "mine.py:Mine", "--seeds", 1)
    assert ended.code == 0
    assert " calls 1 raised; the first: mine.py:3: in route: AssertionError: no message" in ended.out


def test_an_interrupted_contest_leaves_no_process(terminal, contest) -> None:
    body = "import os, time; open('pid', 'w').write(str(os.getpid())); os.rename('pid', 'there'); time.sleep(100)"
    (terminal.folder / "mine.py").write_text(ROUTER.format(body=body), encoding="utf-8")
    running = terminal.start("contest", contest, "--router", "mine.py:Mine")
    there = terminal.folder / "there"
    until = time.monotonic() + 60
    while not there.exists() and time.monotonic() < until:
        time.sleep(0.02)
    pid = int(there.read_text())
    os.kill(running.pid, signal.SIGINT)
    _, err = running.communicate(timeout=60)
    assert running.returncode == 3
    assert err.startswith("interrupted")
    # It was waited for before the command ended.
    assert not Path(f"/proc/{pid}").exists()
