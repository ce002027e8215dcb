"""What a sweep varies: the values on each of its axes, and where each stands in the file."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from orionbed.scenario import Place, Problem
from orionbed.scenario.tree import Tree
from orionbed.sweeps.blocks import Sweep

MAX_VARIED: Final = 2
# In a sweep these are not a case's own to decide.
_DECIDED: Final = {
    "run.seed": "every case gets the same seeds; say how many with `seeds`",
    "extends": "name the scenario under `scenario`",
}


class Spot(NamedTuple):
    """Where a changed key stands in the sweep: its value and the dotted key of that, and the key itself."""

    place: Place
    key: str
    key_place: Place
    key_alone: str


@dataclass(frozen=True, slots=True)
class Choice:
    """One value on one axis: what it is called, what it changes, where each change stands, and where all of it."""

    label: str
    changes: dict[str, Any]
    spots: dict[str, Spot]
    place: Place
    key: str


@dataclass(frozen=True, slots=True)
class Choices:
    """An axis: the dotted key that is varied, or what the cases are called, and its choices."""

    name: str
    choices: tuple[Choice, ...]


def fixed_of(block: Sweep, tree: Tree) -> Choice:
    """Return what every run changes, as a choice without an alternative."""
    inside = tree.at("set")
    if inside is None:
        return Choice("", {}, {}, tree.start, "")
    return Choice("", dict(block.fixed), _spots(inside, "set"), inside.start, "set")


def axes_of(block: Sweep, tree: Tree) -> list[Choices]:
    """Return the axes: the cases first, then each key that is varied."""
    found = []
    if block.cases:
        leaves = tree.value["cases"].value
        choices = []
        for label, changes in block.cases.items():
            where = f"cases.{label}"
            choices.append(Choice(label, dict(changes), _spots(leaves[label], where), leaves[label].start, where))
        found.append(Choices(block.axis or "case", tuple(choices)))
    for key, values in block.vary.items():
        leaf = tree.value["vary"].value[key]
        choices = []
        for index, value in enumerate(values):
            place, where = leaf.value[index].place, f"vary.{key}.{index}"
            spot = Spot(place, where, leaf.start, f"vary.{key}")
            choices.append(Choice(written(value), {key: value}, {key: spot}, place, where))
        found.append(Choices(key, tuple(choices)))
    return found


def _spots(inside: Tree, above: str) -> dict[str, Spot]:
    return {key: Spot(leaf.place, f"{above}.{key}", leaf.start, f"{above}.{key}") for key, leaf in inside.value.items()}


def written(value: Any) -> str:
    """Return a value as it would be written in a file."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {written(inside)}" for key, inside in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(written, value)) + "]"
    return f"{value:.12g}" if isinstance(value, float) else str(value)


def problems_of(block: Sweep, tree: Tree) -> Iterator[Problem]:
    """What is wrong between the keys of a sweep."""
    if not block.vary and not block.cases:
        yield Problem(tree.start, "vary", "is missing; say what to vary, `vary: {key: [values]}`, or name `cases`")
    most = MAX_VARIED - 1 if block.cases else MAX_VARIED
    if len(block.vary) > most:
        beside = " beside `cases`" if block.cases else ""
        text = f"has {len(block.vary)} keys; vary at most {most}{beside}, and name other combinations under `cases`"
        yield Problem(tree.value["vary"].start, "vary", text)
    if block.axis and not block.cases:
        yield Problem(tree.value["axis"].place, "axis", "says what `cases` are called, and there are none; remove it")
    for where, key, leaf in _changed(tree):
        if key in _DECIDED:
            yield Problem(leaf.start, f"{where}.{key}", f"cannot be changed here: {_DECIDED[key]}")
        elif where != "vary" and key in block.vary:
            yield Problem(leaf.start, f"{where}.{key}", "is varied too; remove one of the two")
    for key, values in block.vary.items():
        labels = [written(value) for value in values]
        for index, label in enumerate(labels):
            if label in labels[:index]:
                place = tree.value["vary"].value[key].value[index].place
                yield Problem(place, f"vary.{key}.{index}", f"{label} is there twice; remove one")


def _changed(tree: Tree) -> Iterator[tuple[str, str, Tree]]:
    """Every scenario key that is changed somewhere: in which section, which key, and where it stands."""
    for section in ("set", "vary"):
        inside = tree.at(section)
        for key, leaf in inside.value.items() if inside is not None else ():
            yield section, key, leaf
    cases = tree.at("cases")
    for label, case in cases.value.items() if cases is not None else ():
        for key, leaf in case.value.items():
            yield f"cases.{label}", key, leaf


def placed(problem: Problem, parts: Sequence[Choice]) -> Problem:
    """Return a problem of a changed scenario where it can be mended.

    That is at the value that is wrong; for what is wrong between several keys, at the last one that has to do with it.
    """
    for part in reversed(parts):
        for key, value in part.changes.items():
            if problem.place.source == f"{key}={value}":
                spot, text = part.spots[key], _message(problem, key)
                if problem.message.startswith("unknown key"):
                    return Problem(spot.key_place, spot.key_alone, text)
                return Problem(spot.place, spot.key, text)
    related = [part for part in parts for key in part.changes if _related(key, problem.key)]
    part = (related or list(parts))[-1]
    return Problem(part.place, part.key, f"would make {problem.key} wrong: {problem.message}")


def _message(problem: Problem, key: str) -> str:
    return problem.message if problem.key == key else f"{problem.key} {problem.message}"


def _related(one: str, other: str) -> bool:
    return one == other or one.startswith(f"{other}.") or other.startswith(f"{one}.")
