"""One router on one seed, whoever it is: a baseline by its name, a user's by FILE:CLASS."""

from pathlib import Path
from typing import NamedTuple

from orionbed import backends
from orionbed.contest.answering import Facts, InProcess, RouterError
from orionbed.contest.baselines import BASELINES, make_baseline
from orionbed.contest.process import RouterProcess
from orionbed.contest.results import SeedResult
from orionbed.contest.schema import Contest
from orionbed.scenario.problems import did_you_mean


class UserRouter(NamedTuple):
    """A class in a Python file."""

    file: str
    name: str

    def __str__(self) -> str:
        return f"{self.file}:{self.name}"


def parse_router(text: str) -> UserRouter | None:
    """Return the user's router that FILE:CLASS means, or None for the name of a baseline. Raises RouterError."""
    if text in BASELINES:
        return None
    file, colon, name = text.rpartition(":")
    if not (colon and file and name.isidentifier()):
        hint = did_you_mean(text, BASELINES, f"; baselines are {', '.join(BASELINES)}")
        raise RouterError(f"--router {text}: write FILE:CLASS, like --router my_router.py:MyRouter{hint}")
    if not Path(file).is_file():
        what = "is a folder" if Path(file).is_dir() else "no such file"
        raise RouterError(f"--router {text}: {file}: {what}; name the Python file with class {name}")
    if Path(file).suffix != ".py":
        raise RouterError(f"--router {text}: {file}: is no Python file; its name must end in .py")
    return UserRouter(file, name)


def run_baseline(contest: Contest, name: str, seed: int) -> SeedResult:
    """Run a baseline in this process."""
    return backends.load_contesting().run_contest(
        contest, seed, name, lambda facts: InProcess(make_baseline(name, facts.seed), facts)
    )


def run_user(contest: Contest, router: UserRouter, seed: int) -> SeedResult:
    """Run a user's router in a process of its own. Raises RouterError."""

    def make(facts: Facts) -> RouterProcess:
        return RouterProcess(router.file, router.name, facts, contest.router.route_timeout)

    return backends.load_contesting().run_contest(contest, seed, str(router), make)
