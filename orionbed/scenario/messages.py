"""From pydantic's errors to problems: where in the file, what is wrong, what to do."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, get_origin

from pydantic import ValidationError

from orionbed.scenario.fields import PATTERNS, Loc, describe
from orionbed.scenario.keys import blocks_at, kinds_of, names_of, types_at
from orionbed.scenario.problems import Problem, did_you_mean, listed, nearest
from orionbed.scenario.tree import Tree
from orionbed.scenario.yaml_file import resolve

_BOUNDS: Final = {
    "greater_than": ("gt", "must be greater than"),
    "greater_than_equal": ("ge", "must be at least"),
    "less_than": ("lt", "must be less than"),
    "less_than_equal": ("le", "must be at most"),
}
_PLAIN: Final = {
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "bool_type": "must be true or false",
    "string_type": "must be text",
    "finite_number": "must be a finite number",
    "tuple_type": "must be a list like [a, b]",
    "list_type": "must be a list like [a, b]",
    "dict_type": "must be a mapping of `key: value`",
    "string_too_short": "must not be empty",
    "too_short": "must not be empty",
}
_BLOCK_TYPES: Final = {"model_type", "model_attributes_type", "dataclass_type"}


def find(tree: Tree, loc: Loc) -> tuple[Tree, list[str], list[str]]:
    """The deepest tree on the way to `loc`, the keys to it, and those of `loc` that the file does not have.

    Tags of unions, which are in no file, are passed over.
    """
    keys: list[str] = []
    rest: list[str] = []
    for part in loc:
        inside = tree.value
        if isinstance(inside, dict):
            name = "choice" if part == "values" and "values" not in inside else str(part)
            if name in inside:
                tree, keys = inside[name], [*keys, name]
                continue
            if "kind" in inside and inside["kind"].value == part:
                continue
        elif isinstance(inside, list) and str(part).isdecimal() and int(part) < len(inside):
            tree, keys = inside[int(part)], [*keys, str(part)]
            continue
        if not str(part).startswith("=") and not (isinstance(part, str) and not isinstance(inside, dict)):
            rest.append(str(part))
    return tree, keys, rest


def problem_at(tree: Tree, loc: Loc, message: str, *, at_key: bool = False) -> Problem:
    """A problem at `loc`, or at the nearest thing above it that the file has."""
    found, keys, rest = find(tree, loc)
    whole = at_key or rest or isinstance(found.value, dict)
    return Problem(found.start if whole else found.place, ".".join(keys + rest), message)


@dataclass(frozen=True, slots=True)
class _Reader:
    """Reads the errors of one validation of `root` against `tree`."""

    tree: Tree
    root: Any

    def problems(self, error: ValidationError) -> Iterator[Problem]:
        details = error.errors(include_url=False)
        meant = {self.unknown(d["loc"])[1] for d in details if d["type"] == "extra_forbidden"}
        for detail in details:
            loc, context = detail["loc"], detail.get("ctx", {})
            match detail["type"]:
                case "missing":
                    if tuple(find(self.tree, loc[:-1])[1]) + loc[-1:] not in meant:
                        yield self.missing(loc)
                case "extra_forbidden":
                    yield self.unknown(loc)[0]
                case "conflicts":
                    shown = find(self.tree, loc)[1]
                    for below, message in context["problems"]:
                        yield problem_at(self.tree, (*shown, *below), message)
                case "union_tag_invalid" | "union_tag_not_found":
                    yield self.kind(loc)
                case kind:
                    yield self.value(loc, kind, context, detail["msg"])

    def missing(self, loc: Loc) -> Problem:
        parent, keys, _ = find(self.tree, loc[:-1])
        name = str(loc[-1])
        blocks = blocks_at(self.root, loc[:-1])
        text = next((b.model_fields[names_of(b)[name]].description for b in blocks if name in names_of(b)), None)
        what = f" ({_lower(text).rstrip('.')})" if text else ""
        return Problem(parent.start, ".".join([*keys, name]), f"is missing; add `{name}`{what}")

    def unknown(self, loc: Loc) -> tuple[Problem, Loc]:
        """The problem of an unknown key, and the location that was probably meant."""
        found, keys, _ = find(self.tree, loc)
        name = str(loc[-1])
        blocks = blocks_at(self.root, loc[:-1])
        known = [key for block in blocks for key in names_of(block)] + (["extends"] if not keys[:-1] else [])
        chosen = {kind for block in blocks for kind in kinds_of(block)}
        around = blocks_at(
            self.root, loc[:-2] if len(loc) > 1 and str(loc[-2]).removeprefix("=") in chosen else loc[:-1]
        )
        owners = [kind for block in around for kind in kinds_of(block) if name in names_of(block)]
        near = nearest(name, known)
        if owners:
            hint = f"; it belongs to kind {listed(owners)}, remove it or change the kind"
        else:
            hint = f"; did you mean {near}?" if near else f"; the keys here are {', '.join(known)}"
        problem = Problem(found.start, ".".join(keys), f"unknown key{hint}")
        return problem, (*keys[:-1], near or name)

    def kind(self, loc: Loc) -> Problem:
        found, keys, _ = find(self.tree, loc)
        blocks = blocks_at(self.root, loc)
        name = "dist" if any("dist" in block.model_fields for block in blocks) else "kind"
        kinds = [kind for block in blocks for kind in kinds_of(block) if kind != "constant"]
        given = found.value.get(name) if isinstance(found.value, dict) else None
        if given is None:
            return Problem(found.start, ".".join([*keys, name]), f"is missing; add `{name}` ({listed(kinds)})")
        return Problem(given.place, ".".join([*keys, name]), _choices(given.value, kinds))

    def value(self, loc: Loc, kind: str, context: dict[str, Any], text: str) -> Problem:
        given = find(self.tree, loc)[0].value
        given = type(given)() if isinstance(given, dict | list) else given
        if kind == "unsuitable":
            message = text
        elif kind in _BLOCK_TYPES:
            known = list(dict.fromkeys(key for block in blocks_at(self.root, loc) for key in names_of(block)))
            message = f"must be a mapping of `key: value` with the keys {', '.join(known)}, not {describe(given)}"
        elif kind == "literal_error":
            message = _literal(given, context["expected"], self.alternative(loc))
        elif kind == "string_pattern_mismatch":
            message = f"must be {PATTERNS.get(context['pattern'], context['pattern'])}, not {describe(given)}"
        elif kind in _BOUNDS:
            name, words = _BOUNDS[kind]
            message = f"{words} {context[name]:g}, not {describe(given)}"
        elif kind in _PLAIN:
            message = f"{_PLAIN[kind]}{_instead(kind, given)}"
        else:
            message = f"{_lower(text)}, not {describe(given)}"
        return problem_at(self.tree, loc, message)

    def alternative(self, loc: Loc) -> str | None:
        """What may stand in place of the words that a union offers."""
        if not str(loc[-1]).startswith("="):
            return None
        others = [kind for kind in types_at(self.root, loc[:-1]) if get_origin(kind) is not Literal]
        names = {int: "a whole number", float: "a number", tuple: "a list"}
        return next((names.get(get_origin(kind) or kind, "a mapping of `key: value`") for kind in others), None)


def translate(error: ValidationError, tree: Tree, root: Any, base: Loc = ()) -> list[Problem]:
    """All problems of one failed validation of the type `root`, which stands at `base` in the file."""
    inside, above, _ = find(tree, base)
    problems = _Reader(inside, root).problems(error)
    return [replace(p, key=".".join([*above, p.key] if p.key else above)) for p in problems]


def _choices(value: Any, choices: Sequence[str], alternative: str | None = None) -> str:
    hint = did_you_mean(value, choices) if isinstance(value, str) else ""
    return f"must be {listed([*choices, *([alternative] if alternative else [])])}, not {describe(value)}{hint}"


def _literal(given: Any, expected: str, alternative: str | None) -> str:
    choices = [word.strip("'") for word in expected.replace(" or ", ", ").split(", ")]
    return _choices(given, choices, alternative)


def _instead(kind: str, given: Any) -> str:
    if kind in {"too_short", "string_too_short"}:
        return ""
    hint = ""
    if isinstance(given, str) and kind in {"int_type", "float_type"}:
        if isinstance(resolve(given), int | float):
            hint = "; remove the quotes"
        elif isinstance(resolve(given.replace("_", "").replace(",", "")), int | float):
            hint = "; write the digits without separators"
        else:
            hint = "; write it without a unit" if given[:1].isdigit() else ""
    elif kind == "bool_type" and isinstance(given, str) and given.lower() in {"yes", "on", "no", "off"}:
        hint = f"; write {'true' if given.lower() in {'yes', 'on'} else 'false'}"
    elif kind == "string_type":
        hint = "; put it into quotes"
    return f", not {describe(given)}{hint}"


def _lower(text: str | None) -> str:
    return text[:1].lower() + text[1:] if text and not text[:2].isupper() else text or ""
