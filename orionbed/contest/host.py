"""The process that runs a user's router: one line of JSON in, one out.

Started by `orionbed.contest.process` as a script, without the environment of its parent. What the router prints goes to
stderr; it cannot read what is meant for us. It ends when its input does, and with its parent.
"""

import inspect
import json
import linecache
import os
import random
import sys
import time
import traceback
from collections.abc import Callable
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import IO, Any, Final

_LONGEST_TEXT: Final = 200


def main() -> None:
    """Make the router that the arguments name, then answer until there are no more questions."""
    root, parent, file, name, seed, constants = sys.argv[1:7]
    asked, answers = _take_pipes()
    sys.path.insert(0, root)
    from orionbed.contest.told import Told
    from orionbed.fleet.parents import die_with_parent

    die_with_parent(int(parent))
    sys.path[0] = str(Path(file).resolve().parent)
    random.seed(int(seed))
    told = Told(*json.loads(constants))
    reply = _attempt(file, lambda: {"router": _made(file, name, int(seed))})
    router = reply.pop("router", None)
    _write(answers, {**reply, "rebalances": callable(getattr(router, "rebalance", None))})
    for line in asked:
        question = json.loads(line)
        for layer, at_s, miners in question["tell"]:
            told.tell(layer, at_s, miners)
        begun_s = time.perf_counter()
        reply = _attempt(file, lambda: _answer(router, told, question))  # noqa: B023 -- called at once
        _write(answers, {**reply, "took_s": time.perf_counter() - begun_s})


def _take_pipes() -> tuple[IO[str], IO[str]]:
    """Move our two pipes to where the router's prints and inputs do not reach them."""
    asked, answers = os.fdopen(os.dup(0), "r"), os.fdopen(os.dup(1), "w")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return asked, answers


def _made(file: str, name: str, seed: int) -> Any:
    spec = spec_from_file_location("contest_router", file)
    if spec is None or spec.loader is None:
        raise TypeError("is no Python file; its name must end in .py")
    module = module_from_spec(spec)
    sys.modules["contest_router"] = module
    spec.loader.exec_module(module)
    made = getattr(module, name, None)
    if not isinstance(made, type):
        classes = [n for n, value in vars(module).items() if isinstance(value, type) and not n.startswith("_")]
        hint = f"; its classes are {', '.join(classes)}" if classes else ""
        raise TypeError(f"there is no class {name} in it{hint}")
    if not callable(getattr(made, "route", None)):
        raise TypeError(f"class {name} has no method `route(self, request)`")
    try:
        wants_seed = bool(inspect.signature(made).parameters)
    except ValueError:
        wants_seed = False
    return made(seed) if wants_seed else made()


def _answer(router: Any, told: Any, question: dict[str, Any]) -> dict[str, Any]:
    from orionbed.contest.told import plain_moves, plain_route

    if "route" in question:
        return {"answer": _plain("route", router.route(told.request(*question["route"])), plain_route)}
    moves = _plain("rebalance", router.rebalance(told.state(*question["rebalance"])), plain_moves)
    return {"answer": list(moves.items())}  # JSON has no whole numbers as keys


class _WrongError(Exception):
    """The router's answer is of no use."""


def _plain(method: str, answer: Any, convert: Callable[[Any], Any]) -> Any:
    try:
        return convert(answer)
    except TypeError as error:
        raise _WrongError(f"{method} {error}") from None


def _attempt(file: str, call: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return what a call returns, or what it raised and where in the user's file."""
    try:
        return call()
    except _WrongError as error:
        return {"wrong": str(error)}
    except BaseException as error:  # noqa: BLE001 -- whatever the router does, we answer
        return {"raised": _where(file, error)}


def _where(file: str, error: BaseException) -> str:
    """Return an error with the last line of the user's file, and none of ours, that led to it."""
    kind = type(error).__name__
    text = _text(error)
    path = Path(file).resolve()
    if isinstance(error, SyntaxError) and error.filename and Path(error.filename).resolve() == path:
        return f"{file}:{error.lineno}: {kind}: {error.msg}"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename).resolve() == path]
    if not frames:
        return f"{file}: {text}" if isinstance(error, TypeError | FileNotFoundError) else f"{file}: {kind}: {text}"
    line = linecache.getline(str(path), frames[-1].lineno or 0).strip()
    return f"{file}:{frames[-1].lineno}: in {frames[-1].name}: {kind}: {text or 'no message'}   ({line})"


def _text(error: BaseException) -> str:
    try:
        text = " ".join(str(error).split())
    except BaseException:  # noqa: BLE001 -- an error of the user's own making may not even have a text
        return ""
    return text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]}..."


def _write(stream: IO[str], reply: dict[str, Any]) -> None:
    stream.write(json.dumps(reply) + "\n")
    stream.flush()


if __name__ == "__main__":
    try:
        main()
    except OSError:  # our pipes are gone: closed by the router, or nobody asks any more
        os._exit(1)
