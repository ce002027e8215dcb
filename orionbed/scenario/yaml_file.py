"""A strict YAML 1.2 reader that knows where everything stands.

PyYAML supplies the events; what plain words mean is decided here by the core schema of YAML 1.2: `no`, `on`, `12:30`
and `2026-06-01` are text and `1e-3` is a number. Refused: duplicate keys, tags, merge keys (`<<`; `extends` does that),
several documents, anything but a mapping at the root, and aliases that blow up. Anchors and aliases are fine.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import yaml

from orionbed.scenario.problems import Place, Problem, ScenarioError
from orionbed.scenario.tree import Tree

MAX_DEPTH: Final = 64
MAX_NODES: Final = 200_000
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_WORDS: Final[dict[str, Any]] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys((".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"), float("inf")),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), float("-inf")),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), float("nan")),
}


def read_file(path: Path, shown: str | None = None) -> Tree:
    """The tree of a file. Raises ScenarioError when it cannot be read or is not one YAML mapping."""
    source = shown or str(path)
    try:
        content = path.read_bytes()
    except IsADirectoryError:
        raise _problem(Place(source), "is a directory; name a scenario file in it") from None
    except FileNotFoundError:
        raise _problem(Place(source), "no such file") from None
    except OSError as error:
        raise _problem(Place(source), f"cannot be read: {error.strerror}") from None
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = content[: error.start].decode("utf-8-sig", "replace")
        place = Place(source, before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1)
        raise _problem(place, f"byte 0x{content[error.start]:02x} is not UTF-8; save the file as UTF-8") from None
    tree = read_text(text, source)
    if not isinstance(tree.value, dict):
        empty = tree.value is None
        what = "the file is empty" if empty else "the file is not a mapping"
        raise _problem(Place(source, 1, 1) if empty else tree.place, f"{what}; it must consist of lines `key: value`")
    return tree


def read_text(text: str, source: str, *, positions: bool = True) -> Tree:
    """The tree of one YAML document; without `positions` every place is just `source`."""
    try:
        return _Composer(text, source, positions=positions).compose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = Place(source, mark.line + 1, mark.column + 1) if mark and positions else Place(source)
        raise _problem(place, f"not valid YAML: {_syntax(text, mark, error)}") from None
    except yaml.YAMLError as error:
        raise _problem(Place(source), f"not valid YAML: {str(error).splitlines()[0]}") from None


def resolve(text: str) -> Any:
    """What a plain word means in the core schema of YAML 1.2.

    Raises ValueError for an integer of thousands of digits.
    """
    if text in _WORDS:
        return _WORDS[text]
    if _INT.fullmatch(text):
        return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))
    return float(text) if _FLOAT.fullmatch(text) else text


def _problem(place: Place, message: str, key: str = "") -> ScenarioError:
    return ScenarioError([Problem(place, key, message)])


def _syntax(text: str, mark: Any, error: yaml.MarkedYAMLError) -> str:
    """The parser's complaint, and what to do where we know better."""
    lines = text.split("\n")
    line = lines[mark.line] if mark and mark.line < len(lines) else ""
    what = error.problem or error.context or "syntax error"
    if "\t" in line[: mark.column + 1 if mark else None]:
        return f"{what}; indent with spaces, not tabs"
    if "mapping values are not allowed" in what:
        return f"{what}; put text with a colon into quotes, and check the indentation"
    if mark and line[mark.column : mark.column + 1] in {"%", "@", "`", "&", "*"}:
        return f"{what}; put text that starts with {line[mark.column]} into quotes"
    return f"{what}; check brackets, quotes and indentation"


class _Composer:
    """Builds the tree from parser events and collects what we refuse, all of it."""

    def __init__(self, text: str, source: str, *, positions: bool) -> None:
        self.events: Iterator[Any] = iter(yaml.parse(text, Loader=_LOADER))
        self.source = source
        self.positions = positions
        self.problems: list[Problem] = []
        self.anchors: dict[str, tuple[Tree, int] | None] = {}
        self.num_nodes = 0

    def compose(self) -> Tree:
        """The first and only document."""
        next(self.events)
        event = next(self.events)
        if isinstance(event, yaml.StreamEndEvent):
            return Tree(None, self.place(event))
        tree = self.node(next(self.events), "", 0)
        next(self.events)
        event = next(self.events)
        if not isinstance(event, yaml.StreamEndEvent):
            self.refuse(event, "", "a second document starts here; one file holds one scenario")
        if self.problems:
            raise ScenarioError(self.problems)
        return tree

    def place(self, event: Any) -> Place:
        if not self.positions:
            return Place(self.source)
        return Place(self.source, event.start_mark.line + 1, event.start_mark.column + 1)

    def refuse(self, event: Any, key: str, message: str) -> None:
        self.problems.append(Problem(self.place(event), key, message))

    def fatal(self, event: Any, key: str, message: str) -> ScenarioError:
        self.refuse(event, key, message)
        return ScenarioError(self.problems)

    def node(self, event: Any, key: str, depth: int) -> Tree:
        """The node that starts with `event`; `key` is its dotted key."""
        before = self.num_nodes
        self.num_nodes += 1
        if depth > MAX_DEPTH:
            raise self.fatal(event, key, f"nested more than {MAX_DEPTH} levels deep; flatten it")
        if isinstance(event, yaml.AliasEvent):
            return self.alias(event, key)
        if event.tag is not None:
            self.refuse(
                event,
                key,
                f"tag {event.tag.replace('tag:yaml.org,2002:', '!!')} is not supported; write the plain value",
            )
        if event.anchor is not None:
            self.anchors[event.anchor] = None
        if isinstance(event, yaml.ScalarEvent):
            tree = Tree(self.scalar(event, key), self.place(event))
        elif isinstance(event, yaml.SequenceStartEvent):
            tree = Tree(self.sequence(key, depth), self.place(event))
        else:
            tree = Tree(self.mapping(key, depth), self.place(event))
        if event.anchor is not None:
            self.anchors[event.anchor] = (tree, self.num_nodes - before)
        if self.num_nodes > MAX_NODES:
            raise self.fatal(event, key, f"more than {MAX_NODES} values; aliases that repeat aliases are refused")
        return tree

    def alias(self, event: Any, key: str) -> Tree:
        if event.anchor not in self.anchors:
            raise self.fatal(event, key, f"alias *{event.anchor} has no anchor; define &{event.anchor} before it")
        anchored = self.anchors[event.anchor]
        if anchored is None:
            raise self.fatal(event, key, f"alias *{event.anchor} stands inside its own anchor; remove it")
        tree, size = anchored
        self.num_nodes += size
        if self.num_nodes > MAX_NODES:
            raise self.fatal(event, key, f"more than {MAX_NODES} values; aliases that repeat aliases are refused")
        return Tree(tree.value, self.place(event))

    def scalar(self, event: Any, key: str) -> Any:
        if not event.implicit[0]:
            return event.value
        try:
            return resolve(event.value)
        except ValueError:
            self.refuse(event, key, "the number has too many digits; write it like 1e9")
            return 0

    def sequence(self, key: str, depth: int) -> list[Tree]:
        items: list[Tree] = []
        while not isinstance(event := next(self.events), yaml.SequenceEndEvent):
            items.append(self.node(event, f"{key}.{len(items)}" if key else str(len(items)), depth + 1))
        return items

    def mapping(self, key: str, depth: int) -> dict[str, Tree]:
        items: dict[str, Tree] = {}
        while not isinstance(event := next(self.events), yaml.MappingEndEvent):
            if not isinstance(event, yaml.ScalarEvent):
                raise self.fatal(event, key, "a key must be a plain word")
            name = event.value
            below = f"{key}.{name}" if key else name
            value = self.node(next(self.events), below, depth + 1)
            if name in items:
                first = items[name].start
                where = f"line {first.line}" if first.line else "before"
                self.refuse(event, below, f"the key is there twice, first on {where}; remove one")
            elif name == "<<" and event.implicit[0]:
                self.refuse(
                    event, below, "merge keys are not YAML 1.2; repeat the keys, or use `extends` for a whole file"
                )
            else:
                items[name] = Tree(value.value, value.place, self.place(event))
        return items
