"""Changing a scenario: `--set key=value`, `extends`, and `apply` for programs.

Whoever changes a number takes its source away from it: the provenance of a changed key becomes "assumed", and what
`uncertain` said about it is dropped, because the value has been decided on.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any, Final

from orionbed.scenario.fields import describe
from orionbed.scenario.gpu import gpu_profile
from orionbed.scenario.problems import NOWHERE, Place, Problem, ScenarioError
from orionbed.scenario.schema import Scenario
from orionbed.scenario.tree import Tree, merged, plant
from orionbed.scenario.validation import validate
from orionbed.scenario.yaml_file import read_text

# Sections whose values are no claims about the world.
_NO_SOURCE_NEEDED: Final = {
    "name",
    "title",
    "datacenter.published",
    "faults",
    "report",
    "published",
    "provenance",
    "uncertain",
    "emulator",
    "real",
}


def extended(parent: Tree, child: Tree) -> Tree:
    """A file laid over the file that it extends."""
    result, changed = merged(parent, child)
    own = {name: child.at(name) for name in ("provenance", "uncertain")}
    note = f"assumed: set in {PurePath(child.place.source).name} without a source"
    return _without_claims(result, changed, note, {name: _keys(tree) for name, tree in own.items()})


def with_sets(tree: Tree, sets: Sequence[str]) -> Tree:
    """The tree with every `key=value` of `sets` in place, in order. Raises ScenarioError with all that are no good."""
    problems: list[Problem] = []
    for text in sets:
        key, equals, value = text.partition("=")
        key = key.strip()
        source = f"--set {text}"
        try:
            if not (equals and key):
                problems.append(Problem(Place(source), "", "write --set key=value, like --set run.seed=1"))
                continue
            if key == "extends":
                problems.append(Problem(Place(source), key, "can only stand in a file; name that scenario instead"))
                continue
            changed = _changed_by(tree, key)
            tree = _set(tree, key, _relocated(read_text(value, source, positions=False)))
        except ScenarioError as error:
            problems += error.problems
        else:
            tree = _without_claims(tree, [changed], "assumed: set on the command line", {})
    if problems:
        raise ScenarioError(problems)
    return tree


def with_profile(tree: Tree, file: Path) -> Tree:
    """The tree with the GPU profile in `file`, as `--profile` asks for. Raises ScenarioError when it is none."""
    source = f"--profile {file}"
    if file.suffix != ".yaml" or not file.is_file():
        text = "must be a .yaml file that is there; `orionbed calibrate --out FILE` writes one"
        raise ScenarioError([Problem(Place(source), "", text)])
    note = f"derived: measured with orionbed calibrate ({file.as_posix()})"
    if not gpu_profile(str(file)).measured:
        note = "assumed: set on the command line"
    tree = _set(tree, "peers.gpu", Tree(file.as_posix(), Place(source), Place(source)))
    return _without_claims(tree, ["peers.gpu"], note, {})


def apply(scenario: Scenario, values: Mapping[str, Any], *, from_file: bool = False) -> Scenario:
    """The scenario with new values at dotted keys: text as in a file, or SI numbers unless `from_file`.

    Raises ScenarioError.
    """
    tree = plant(scenario.model_dump(mode="json"), Place(f"scenario {scenario.name}"))
    changed = [_changed_by(tree, key) for key in values]
    for key, value in values.items():
        tree = _set(tree, key, plant(value, Place(f"{key}={value}")))
    tree = _without_claims(tree, changed, "assumed: set by a program", {})
    return validate(tree, from_file=from_file)


def _keys(tree: Tree | None) -> set[str]:
    return set(tree.value) if tree is not None and isinstance(tree.value, dict) else set()


def _changed_by(tree: Tree, key: str) -> str:
    """The key whose value changes when `key` is set: with its `kind`, a block changes as a whole."""
    block, _, name = key.rpartition(".")
    return block if name == "kind" and tree.at(*key.split(".")) is not None else key


def _relocated(tree: Tree) -> Tree:
    """The tree with keys that are where the value is."""
    return Tree(tree.value, tree.place, tree.place)


def _set(tree: Tree, key: str, value: Tree, path: str = "") -> Tree:
    """A copy of `tree` with `value` at the dotted `key`; blocks on the way are made where there are none."""
    name, _, rest = key.partition(".")
    inside = tree.value
    if isinstance(inside, dict):
        dotted = path in {"provenance.", "uncertain."}
        name, rest = _longest(inside, key) or ((key, "") if dotted else (name, rest))
        child = inside.get(name) or Tree({}, value.place, value.place)
        new = _set(child, rest, value, f"{path}{name}.") if rest else value
        others = {} if name == "kind" and not rest and _changes(inside, value) else inside
        return Tree({**others, name: new}, tree.place, tree.key_place)
    if isinstance(inside, list):
        if not name.isdecimal() or int(name) >= len(inside):
            text = f"must be an index from 0 to {len(inside) - 1}, not {name}" if inside else "the list is empty"
            raise ScenarioError([Problem(value.place, path + name, text)])
        items = list(inside)
        items[int(name)] = _set(items[int(name)], rest, value, f"{path}{name}.") if rest else value
        return Tree(items, tree.place, tree.key_place)
    if inside is None:
        return _set(Tree({}, value.place, value.place), key, value, path)
    whole = path.rstrip(".")
    example = "[...]" if name.isdecimal() else f"{{{name}: ...}}"
    text = f"{whole} is {describe(inside)}, which has no keys; set it as a whole, like --set '{whole}={example}'"
    raise ScenarioError([Problem(value.place, path + name, text)])


def _changes(block: dict[str, Tree], kind: Tree) -> bool:
    return "kind" in block and block["kind"].value != kind.value


def _longest(inside: dict[str, Tree], key: str) -> tuple[str, str] | None:
    """The longest key of the mapping that `key` starts with, and the rest; keys may have dots themselves."""
    parts = key.split(".")
    for length in range(len(parts), 0, -1):
        if ".".join(parts[:length]) in inside:
            return ".".join(parts[:length]), ".".join(parts[length:])
    return None


def _without_claims(tree: Tree, changed: Iterable[str], note: str, own: Mapping[str, set[str]]) -> Tree:
    """The tree without what it says about the `changed` keys, entries of its `own` excepted; `note` is their source."""
    keys = [key for key in changed if not any(_covers(free, key) for free in _NO_SOURCE_NEEDED)]
    values = dict(tree.value)
    for name, outdated in (("provenance", _covers), ("uncertain", _related)):
        claims, mine = values.get(name), own.get(name, set())
        inside = claims.value if claims is not None and isinstance(claims.value, dict) else {}
        kept = {k: text for k, text in inside.items() if k in mine or not any(outdated(key, k) for key in keys)}
        if name == "provenance":
            kept |= {key: Tree(note, NOWHERE) for key in keys if not any(_covers(k, key) for k in mine)}
        if kept != inside:
            start = claims or Tree({}, NOWHERE)
            values[name] = Tree(kept, start.place, start.key_place)
    return Tree(values, tree.place, tree.key_place)


def _covers(above: str, key: str) -> bool:
    return key == above or key.startswith(above + ".")


def _related(one: str, other: str) -> bool:
    return _covers(one, other) or _covers(other, one)
