"""Reading a scenario: the file, what it extends, what the command line sets."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from orionbed.scenario import packaged
from orionbed.scenario.change import extended, with_profile, with_sets
from orionbed.scenario.drawing import refused
from orionbed.scenario.network import VARIABILITIES
from orionbed.scenario.problems import Place, Problem, ScenarioError
from orionbed.scenario.schema import Scenario
from orionbed.scenario.training import NAMED_TEXTS
from orionbed.scenario.tree import Tree
from orionbed.scenario.validation import validate
from orionbed.scenario.yaml_file import read_file

_FILES: Final = (("network", "variability"), ("pipeline", "schedule", "file"), ("churn", "trace"))
_TEXTS: Final = (("training", "data", "path"), ("training", "data", "tokenizer"))  # a path may be that of a folder


def load(path: Path | str, sets: Sequence[str] = (), *, profile: Path | None = None) -> Scenario:
    """The scenario of a file, or a packaged one by its name, with every `key=value` of `sets` put in place.

    `profile` is a file that takes the place of the scenario's GPU profile.

    Raises ScenarioError with everything that is wrong, one line each: `file:line:col: key: what is wrong, what to do`.
    """
    tree = read_tree(path, sets)
    kind = tree.at("kind")
    if kind is not None and kind.value == "routing-contest":
        text = f"is a routing contest and no scenario; run it with `orionbed contest {path}`"
        raise ScenarioError([Problem(kind.start, "", text)])
    if profile is not None:
        tree = with_profile(tree, profile)
    scenario = validate(tree)
    problems = refused(scenario, tree)
    if problems:
        raise ScenarioError(problems)
    return scenario


def read_tree(path: Path | str, sets: Sequence[str] = ()) -> Tree:
    """What a file says, or a packaged one by its name, with what it extends and `sets` in place; not yet validated.

    Raises ScenarioError.
    """
    found = packaged.scenario_file(str(path))
    if found is None:
        raise ScenarioError([Problem(Place(str(path)), "", packaged.missing(str(path)))])
    return with_sets(_read_chain(*found, ()), sets)


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
    groups = tree.at("peers", "groups")
    of_groups = groups.value if groups is not None and isinstance(groups.value, list) else []
    gpus = [tree.at("peers", "gpu"), *(group.at("gpu") for group in of_groups)]
    files = [tree.at(*keys) for keys in _FILES]
    for leaf in (*files, *gpus):
        if leaf is not None and isinstance(leaf.value, str) and leaf.value not in VARIABILITIES:
            candidate = folder / leaf.value
            if candidate.is_file() and (leaf not in gpus or candidate.suffix == ".yaml"):
                leaf.value = Path(os.path.normpath(candidate)).as_posix()
    for leaf in (tree.at(*keys) for keys in _TEXTS):
        if leaf is not None and isinstance(leaf.value, str) and leaf.value not in NAMED_TEXTS:
            candidate = folder / leaf.value
            if candidate.exists():
                leaf.value = Path(os.path.normpath(candidate)).as_posix()
    return tree
