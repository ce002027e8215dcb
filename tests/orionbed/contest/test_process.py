"""Users' routers in their own process: what they get, what goes wrong, and that nothing is left behind."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from orionbed.contest import baselines, process
from orionbed.contest.answering import RouterError
from orionbed.contest.load import load_contest
from orionbed.contest.running import UserRouter, parse_router, run_baseline, run_user

GOOD = """\
class Mine:
    def route(self, request):
        return [layer.miners[0].miner for layer in request.layers]
"""


INTO_THE_PIPE = """\
import os
        for fd in range(3, 9):
            try:
                os.write(fd, b'[1]\\n')
            except OSError:
                pass
"""


def broken(run, text: str, *sets: str) -> str:
    with pytest.raises(RouterError) as error:
        run(text, *sets)
    assert "\n" not in str(error.value)
    assert "host.py" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(("name", "made"), [("random", "RandomRouter"), ("least-completion", "LeastCompletionRouter")])
def test_a_process_of_its_own_changes_nothing(tiny, name: str, made: str) -> None:
    contest = load_contest(tiny)
    ours = run_baseline(contest, name, 3)
    theirs = run_user(contest, UserRouter(baselines.__file__, made), 3)
    assert theirs.plain() == {**ours.plain(), "router": f"{baselines.__file__}:{made}"}
    assert theirs.asking_s > theirs.thinking_s > 0.0


def test_the_same_seed_gives_the_same_whatever_the_router_draws(run) -> None:
    text = """\
import random

class Mine:
    def __init__(self, seed):
        assert seed == 7
        self.names = sorted({"a", "b", "c"}, key=hash)

    def route(self, request):
        return [random.choice(layer.miners).miner for layer in request.layers]
"""
    assert run(text, seed=7).plain() == run(text, seed=7).plain()


def test_what_a_router_prints_reads_and_starts_is_no_answer(run, tmp_path: Path, capfd) -> None:
    text = """\
import os, subprocess, sys
import beside

print("hello")

class Mine:
    def route(self, request):
        print('{"answer": [0, 0]}', flush=True)
        os.write(1, b"rubbish\\n")
        assert sys.stdin.read() == ""
        assert input is not None and "SECRET" not in os.environ
        if request.activation == 0:
            child = subprocess.Popen(["sleep", "100"])
            open("pids", "w").write(f"{os.getpid()} {child.pid}")
        return beside.first(request)
"""
    (tmp_path / "beside.py").write_text(
        "def first(request):\n    return [layer.miners[0].miner for layer in request.layers]\n", encoding="utf-8"
    )
    result = run(text)
    assert (result.fallbacks, result.faults) == (0, {})
    out, err = capfd.readouterr()
    assert out == ""
    assert "hello" in err
    assert "rubbish" in err
    assert all(gone(int(pid)) for pid in (tmp_path / "pids").read_text().split())


def gone(pid: int) -> bool:
    """Whether a process has ended; one that nobody has waited for yet counts."""
    for _ in range(100):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state in "ZX":
            return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("class Mine:\n  def route(self, request)\n    pass\n", "cannot be made: mine.py:2: SyntaxError: "),
        ("import nosuch\n", "cannot be made: mine.py:1: in <module>: ModuleNotFoundError: No module named 'nosuch'"),
        ("class Other: pass\n", "cannot be made: mine.py: there is no class Mine in it; its classes are Other"),
        ("class Mine: pass\n", "cannot be made: mine.py: class Mine has no method `route(self, request)`"),
        (f"import sys\nsys.exit(3)\n{GOOD}", "cannot be made: mine.py:2: in <module>: SystemExit: 3"),
        (f"import os\nos._exit(3)\n{GOOD}", "mine.py: the file or __init__ ended its process (exit code 3)"),
        (f"{GOOD}    def __init__(self): 1 / 0\n", "mine.py:4: in __init__: ZeroDivisionError: division by zero"),
        (f"{GOOD}    def __init__(self, a, b): ...\n", "mine.py: Mine.__init__() missing 1 required positional"),
    ],
)
def test_a_router_that_cannot_be_made(run, text: str, said: str) -> None:
    assert said in broken(run, text)


def test_a_router_that_takes_forever_to_be_made(run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "START_TIMEOUT_S", 0.5)
    assert "mine.py: the file or __init__ took longer than 0.5 s" in broken(run, "import time\ntime.sleep(100)\n")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("1 / 0", "the first: mine.py:3: in route: ZeroDivisionError: division by zero   (1 / 0)"),
        ("raise SystemExit", "the first: mine.py:3: in route: SystemExit: no message"),
        ("return None", "the first: mine.py: route must return a list of one miner per layer, not None"),
        ("return 'ab'", "the first: mine.py: route must return a list of one miner per layer, not 'ab'"),
        ("return [0.5, 1]", "the first: mine.py: route must return the numbers of miners, not 0.5"),
        ("return [0]", "the first: route must have 2 miners, one per layer, not 1"),
        ("return [99, 99]", "the first: route has miner 99 for layer 0, which is not among its miners"),
        ("return range(200_000)", "the first: mine.py: route answered with more than 1048576 bytes"),
        ("import os; os.closerange(3, 99); return [0, 0]", "the first: mine.py: route ended its process (exit code 1)"),
        ("import os; os.kill(os.getpid(), 9)", "the first: mine.py: route ended its process (signal 9)"),
        ("import time; time.sleep(100)", "the first: mine.py: route took longer than 0.05 s"),
        (INTO_THE_PIPE, "the first: mine.py: route wrote into the pipe of its answers"),
    ],
)
def test_a_router_that_is_always_wrong(run, body: str, said: str) -> None:
    text = f"class Mine:\n    def route(self, request):\n        {body}\n"
    found = broken(run, text, *(["router.route_timeout=50 ms"] if "sleep" in body else []))
    assert found.startswith("router mine.py:Mine: 6 of 6 calls failed, more than 5% of 100 may; the first: ")
    assert said in found


SOMETIMES = """\
import os, time

class Mine:
    def route(self, request):
        if request.activation == 20:
            {body}
        return [layer.miners[0].miner for layer in request.layers]
"""


@pytest.mark.parametrize(
    ("body", "kind"),
    [("raise ValueError", "raised"), ("return []", "wrong"), ("os._exit(0)", "gone"), ("time.sleep(100)", "late")],
)
def test_a_mistake_now_and_then_is_counted_and_routed_at_random(run, body: str, kind: str) -> None:
    late = kind == "late"
    result = run(SOMETIMES.format(body=body), *(["router.route_timeout=300 ms"] if late else []))
    # A busy machine may be late once more.
    assert (result.faults, result.fallbacks) == ({kind: 1}, 1) or (late and set(result.faults) == {"late"})
    assert "mine.py" in result.first_fault or "must have 2 miners" in result.first_fault
    assert [epoch.completed for epoch in result.epochs] == [60, 60]


def test_how_many_mistakes_may_be_is_a_key(run) -> None:
    assert "1 of 21 calls failed, more than 0% of 100 may" in broken(
        run, SOMETIMES.format(body="raise ValueError"), "router.faults=0 %"
    )


def test_all_calls_together_have_a_limit(run) -> None:
    text = GOOD.replace("return", "import time; time.sleep(0.02); return")
    said = broken(run, text, "router.run_timeout=100 ms")
    assert "answers of one seed took longer than 0.1 s together; make it quicker, or raise router.run_timeout" in said


def test_a_router_may_rebalance(run) -> None:
    rebalance = """
    def rebalance(self, state):
        assert state.version == 1 and state.epoch == 0 and len(state.layers) == 2
        last = state.layers[0].miners[-1]
        return {last.miner: 1 - last.layers[0]}
"""
    assert [epoch.moved for epoch in run(GOOD + rebalance).epochs] == [0, 1]


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("[1, 2]", "mine.py: rebalance must return a dict of miner: layer, not [1, 2]"),
        ("{0: 'x'}", "mine.py: rebalance must return the numbers of miners and layers, not 'x'"),
        ("{77: 0}", "rebalance moves miner 77, which is not there"),
        ("{0: 5}", "rebalance moves miner 0 to layer 5; layers are 0 to 1"),
        ("{m: 0 for m in range(6)}", "rebalance leaves layer 1 without a miner"),
    ],
)
def test_wrong_moves_are_counted_and_nobody_moves(run, answer: str, said: str) -> None:
    result = run(f"{GOOD}    def rebalance(self, state): return {answer}\n")
    assert (result.faults, result.fallbacks) == ({"wrong": 1}, 0)
    assert result.first_fault == said
    assert result.epochs[1].moved == 0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nosuch.py:Mine", "nosuch.py: no such file; name the Python file with class Mine"),
        (".:Mine", ".: is a folder"),
        ("tiny.yaml:Mine", "tiny.yaml: is no Python file"),
        ("mine.py", "write FILE:CLASS, like --router my_router.py:MyRouter; baselines are random, swarm, "),
        ("radnom", "write FILE:CLASS, like --router my_router.py:MyRouter; did you mean random?"),
        ("mine.py:", "write FILE:CLASS"),
    ],
)
def test_what_names_no_router(tiny, monkeypatch: pytest.MonkeyPatch, text: str, said: str) -> None:
    monkeypatch.chdir(tiny.parent)
    with pytest.raises(RouterError) as error:
        parse_router(text)
    assert f"--router {text}: " in str(error.value)
    assert said in str(error.value)


def test_a_process_ends_with_its_owner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text("import os\nopen('pid', 'w').write(str(os.getpid()))\n" + GOOD, encoding="utf-8")
    code = """
import os
from orionbed.contest.answering import Facts
from orionbed.contest.process import RouterProcess
RouterProcess("mine.py", "Mine", Facts(0, 2, 5, 1.0, 0.0), 1.0)
os._exit(0)
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    assert gone(int((tmp_path / "pid").read_text()))
