"""Reading a scenario: the file, what it extends, what the command line sets."""

import os
from collections.abc import Sequence
from pathlib import Path

from orionbed.scenario import packaged
from orionbed.scenario.change import extended, with_profile, with_sets
from orionbed.scenario.drawing import refused
from orionbed.scenario.network import VARIABILITIES
from orionbed.scenario.problems import Place, Problem, ScenarioError
from orionbed.scenario.schema import Scenario
from orionbed.scenario.tree import Tree
from orionbed.scenario.validation import validate
from orionbed.scenario.yaml_file import read_file


def load(path: Path | str, sets: Sequence[str] = (), *, profile: Path | None = None) -> Scenario:
    """The scenario of a file, or a packaged one by its name, with every `key=value` of `sets` put in place.

    `profile` is a file that takes the place of the scenario's GPU profile.

    Raises ScenarioError with everything that is wrong, one line each: `file:line:col: key: what is wrong, what to do`.
    """
    found = packaged.scenario_file(str(path))
    if found is None:
        raise ScenarioError([Problem(Place(str(path)), "", packaged.missing(str(path)))])
    tree = with_sets(_read_chain(*found, ()), sets)
    if profile is not None:
        tree = with_profile(tree, profile)
    scenario = validate(tree)
    problems = refused(scenario, tree)
    if problems:
        raise ScenarioError(problems)
    return scenario


def _read_chain(path: Path, shown: str, children: tuple[Path, ...]) -> Tree:
    """A file laid over the one that it extends, that over its own parent, and so on."""
    tree = _with_paths(read_file(path, shown), path.parent)
    extends = tree.value.pop("extends", None)
    if extends is None:
        return tree
    if not isinstance(extends.value, str):
        text = "must be the name or path of one scenario, like `extends: minimal`"
        raise ScenarioError([Problem(extends.place, "extends", text)])
    here = path.resolve()
    found = packaged.scenario_file(extends.value, path.parent, not_this=here)
    if found is None:
        raise ScenarioError([Problem(extends.place, "extends", f"{extends.value}: {packaged.missing(extends.value)}")])
    seen = (*children, here)
    if found[0].resolve() in seen:
        ring = " -> ".join(p.name for p in (*seen[seen.index(found[0].resolve()) :], found[0]))
        raise ScenarioError([Problem(extends.place, "extends", f"goes round in a circle ({ring}); remove one of them")])
    return extended(_read_chain(*found, seen), tree)


def _with_paths(tree: Tree, folder: Path) -> Tree:
    """Paths in a file are relative to that file; make them relative to where we are."""
    for section, *keys in (("network", "variability"), ("peers", "gpu"), ("pipeline", "schedule", "file")):
        leaf = tree.at(section, *keys)
        if leaf is not None and isinstance(leaf.value, str) and leaf.value not in VARIABILITIES:
            candidate = folder / leaf.value
            if candidate.is_file() and (section != "peers" or candidate.suffix == ".yaml"):
                leaf.value = Path(os.path.normpath(candidate)).as_posix()
    return tree
