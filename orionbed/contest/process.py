"""A user's router in a process of its own: asked by lines of JSON over pipes, and given up when it is late."""

import json
import os
import selectors
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import orionbed
from orionbed.contest import host
from orionbed.contest.answering import Facts, Fault, RouterError
from orionbed.contest.told import plain_moves, plain_route

START_TIMEOUT_S = 30.0
"""Longest wait for the user's file to be imported and the router to be made."""
_LONGEST_ANSWER: Final = 1 << 20
_LAST_GASP_S: Final = 2.0
"""How long a process that has closed its pipe may take to end."""
_ROOT: Final = Path(orionbed.__file__).resolve().parent.parent
_KEPT: Final = ("PATH", "HOME", "LANG", "TMPDIR", "SYSTEMROOT")


class RouterProcess:
    """Answers for the class `name` of `file`; see `orionbed.contest.answering.Answering`.

    A call that is not answered within `timeout_s` seconds, or whose process ends, is a Fault; the process is then
    killed with all that it started, and the next call finds a new one that remembers nothing. RouterError if the
    router cannot be made, the first time or again.
    """

    def __init__(self, file: str, name: str, facts: Facts, timeout_s: float) -> None:
        self.num_calls = 0
        self.thinking_s = 0.0
        self.asking_s = 0.0
        self._file, self._name, self._facts, self._timeout_s = file, name, facts, timeout_s
        self._told: dict[int, list[Any]] = {}
        self._news: dict[int, list[Any]] = {}
        self._process: subprocess.Popen[bytes] | None = None
        self._rest = b""
        self._rebalances = False
        self._start()

    def tell(self, layer: int, at_s: float, told: list[list[Any]]) -> None:
        self._told[layer] = self._news[layer] = [layer, at_s, told]

    def route(self, now_s: float, epoch: int, activation: int, completed: list[int], lost: list[int]) -> list[int]:
        answer = self._ask("route", [now_s, epoch, activation, completed, lost])
        try:
            return plain_route(answer)
        except TypeError:
            raise self._wrote("route") from None

    def rebalance(self, now_s: float, epoch: int) -> dict[int, int]:
        if not self._rebalances:
            return {}
        answer = self._ask("rebalance", [now_s, epoch])
        try:
            return plain_moves(dict(answer))
        except (TypeError, ValueError):
            raise self._wrote("rebalance") from None

    def close(self) -> None:
        """Kill the process and whatever of its group is left."""
        process, self._process = self._process, None
        if process is None:
            return
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()

    def _ask(self, what: str, arguments: list[Any]) -> Any:
        if self._process is None:
            self._start()
        question = {what: arguments, "tell": list(self._news.values())}
        self._news = {}
        self.num_calls += 1
        begun_s = time.perf_counter()
        try:
            reply = self._exchange((json.dumps(question) + "\n").encode(), self._timeout_s, what)
        except Fault:
            self.close()
            raise
        finally:
            self.asking_s += time.perf_counter() - begun_s
        self.thinking_s += reply.get("took_s", 0.0)
        if "raised" in reply:
            raise Fault("raised", reply["raised"])
        if "wrong" in reply:
            raise Fault("wrong", f"{self._file}: {reply['wrong']}")
        return reply.get("answer")

    def _start(self) -> None:
        """Start a process and have it make the router."""
        facts = self._facts
        constants = json.dumps([facts.num_layers, facts.cache, facts.activation_bytes, facts.message_s])
        # Not -I: the hash seed must be the same every time, and that comes by the environment, of which little is kept.
        self._rest = b""
        self._process = subprocess.Popen(  # noqa: S603  (this very interpreter)
            [sys.executable, "-s", "-P", "-B", host.__file__, str(_ROOT), str(os.getpid()),
             self._file, self._name, str(facts.seed), constants],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={"PYTHONHASHSEED": "0", **{key: os.environ[key] for key in _KEPT if key in os.environ}},
            start_new_session=True,
        )  # fmt: skip
        for pipe in (self._process.stdin, self._process.stdout):
            os.set_blocking(pipe.fileno(), False)  # type: ignore[union-attr]
        self._news = dict(self._told)
        try:
            reply = self._exchange(b"", START_TIMEOUT_S, "the file or __init__")
        except Fault as fault:
            self.close()
            raise RouterError(f"the router cannot be made: {fault}") from None
        except BaseException:
            self.close()
            raise
        if "raised" in reply:
            self.close()
            raise RouterError(f"the router cannot be made: {reply['raised']}")
        self._rebalances = bool(reply.get("rebalances"))

    def _exchange(self, question: bytes, timeout_s: float, what: str) -> dict[str, Any]:
        """Write a question and return the line that answers it. Raises Fault."""
        process = self._process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        until_s = time.monotonic() + timeout_s
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            if question:
                selector.register(process.stdin, selectors.EVENT_WRITE)
            while b"\n" not in self._rest:
                left_s = until_s - time.monotonic()
                ready = selector.select(left_s) if left_s > 0.0 else []
                if not ready:
                    raise Fault("late", f"{self._file}: {what} took longer than {timeout_s:g} s")
                for key, _ in ready:
                    if key.fileobj is process.stdin:
                        question = self._write(question)
                        if not question:
                            selector.unregister(process.stdin)
                    else:
                        self._read(what)
        line, _, self._rest = self._rest.partition(b"\n")
        try:
            reply = json.loads(line)
        except ValueError:
            reply = None
        if not isinstance(reply, dict):
            raise self._wrote(what)
        return reply

    def _wrote(self, what: str) -> Fault:
        """End a process whose answers are not ours: something else writes them."""
        self.close()
        return Fault("gone", f"{self._file}: {what} wrote into the pipe of its answers")

    def _write(self, question: bytes) -> bytes:
        """Write what fits, and return what is left."""
        assert self._process is not None
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # reading will tell
            return question[os.write(self._process.stdin.fileno(), question) :]
        return b""

    def _read(self, what: str) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        found = os.read(self._process.stdout.fileno(), 1 << 16)
        if not found:
            try:
                code = self._process.wait(_LAST_GASP_S)
            except subprocess.TimeoutExpired:
                raise Fault("gone", f"{self._file}: {what} closed the pipe of its answers") from None
            how = f"exit code {code}" if code >= 0 else f"signal {-code}"
            raise Fault("gone", f"{self._file}: {what} ended its process ({how})")
        self._rest += found
        if len(self._rest) > _LONGEST_ANSWER:
            raise Fault("wrong", f"{self._file}: {what} answered with more than {_LONGEST_ANSWER} bytes")
