"""What is wrong with a scenario, where, and what to do about it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import NamedTuple


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """A file (or the text of a `--set`) and, in a file, the line and column counted from 1."""

    source: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        return f"{self.source}:{self.line}:{self.column}" if self.line else self.source


# The place of what nobody wrote.
NOWHERE = Place("")


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong; `key` is dotted, and empty when the file as a whole is meant."""

    place: Place
    key: str
    message: str

    def __str__(self) -> str:
        return f"{self.place}: {self.key}: {self.message}" if self.key else f"{self.place}: {self.message}"


class Issue(NamedTuple):
    """A problem at a location of the scenario; `at_key` points at the key instead of the value."""

    loc: tuple[str | int, ...]
    message: str
    at_key: bool = False


class ScenarioError(ValueError):
    """A scenario is not usable. `problems` has everything that is wrong with it, in the order of the file."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        unique = dict.fromkeys(problems)
        self.problems: list[Problem] = sorted(unique, key=lambda problem: problem.place)
        super().__init__("\n".join(map(str, self.problems)))

    def __reduce__(self) -> tuple[type["ScenarioError"], tuple[list[Problem]]]:
        """Travel between processes with its problems."""
        return type(self), (self.problems,)


def did_you_mean(word: str, known: Sequence[str], otherwise: str = "") -> str:
    """`; did you mean X?` for the nearest known word, else `otherwise`."""
    near = nearest(word, known)
    return f"; did you mean {near}?" if near else otherwise


def nearest(word: str, known: Sequence[str]) -> str | None:
    """The known word that `word` was probably meant to be; capitals and dashes for underscores count little."""
    folded = {name.lower().replace("_", "-"): name for name in known}
    near = get_close_matches(word.lower().replace("_", "-"), list(folded), n=1, cutoff=0.6)
    return folded[near[0]] if near else None


def listed(words: Iterable[str]) -> str:
    """`a, b or c`."""
    *most, last = words
    return f"{', '.join(most)} or {last}" if most else last
