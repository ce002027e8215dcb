"""The data of a scenario file, every value with the place it was written at.

A value that came from a parent file or from `--set` keeps that place, so a problem is reported where it can be mended.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from orionbed.scenario.problems import Place


@dataclass(slots=True)
class Tree:
    """A mapping (dict of trees), a list (of trees) or a scalar, and where it and its key stand."""

    value: Any
    place: Place
    key_place: Place | None = None

    def plain(self) -> Any:
        """The data without places."""
        if isinstance(self.value, dict):
            return {key: child.plain() for key, child in self.value.items()}
        if isinstance(self.value, list):
            return [child.plain() for child in self.value]
        return self.value

    def at(self, *path: str) -> "Tree | None":
        """The tree at `path`, or None."""
        tree: Tree | None = self
        for key in path:
            tree = tree.value.get(key) if tree is not None and isinstance(tree.value, dict) else None
        return tree

    @property
    def start(self) -> Place:
        """Where to point when the value as a whole is meant: its key if it has one."""
        return self.key_place or self.place


def plant(value: Any, place: Place) -> Tree:
    """A tree of plain data, all of it at one place."""
    if isinstance(value, dict):
        return Tree({str(key): plant(child, place) for key, child in value.items()}, place, place)
    if isinstance(value, list | tuple):
        return Tree([plant(child, place) for child in value], place, place)
    return Tree(value, place, place)


def merged(parent: Tree, child: Tree, path: str = "") -> tuple[Tree, list[str]]:
    """`child` laid over `parent`, and the dotted keys whose value it changed.

    Mappings merge deeply; lists and scalars replace. So do distributions, and blocks whose `kind` changes.
    """
    if not (isinstance(parent.value, dict) and isinstance(child.value, dict)) or _replaces(parent, child):
        return child, ([path] if parent.plain() != child.plain() else [])
    values, changed = dict(parent.value), []
    for key, tree in child.value.items():
        below = f"{path}.{key}" if path else key
        if key in values:
            values[key], more = merged(values[key], tree, below)
            changed += more
        else:
            values[key] = tree
            changed.append(below)
    return Tree(values, child.place, child.key_place), changed


def _replaces(parent: Tree, child: Tree) -> bool:
    if child.value.keys() & {"dist", "choice"}:
        return True
    kinds = [tree.value["kind"].value for tree in (parent, child) if "kind" in tree.value]
    return len(kinds) == 2 and kinds[0] != kinds[1]


def prefixes(key: str) -> Iterator[str]:
    """`a.b.c`, `a.b`, `a`."""
    while key:
        yield key
        key = key.rpartition(".")[0]
