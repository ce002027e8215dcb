"""From pydantic's errors to problems: where in the file, what is wrong, what to do."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from pydantic import ValidationError

from orionbed.scenario.fields import Block, Loc, describe
from orionbed.scenario.keys import blocks_at, kinds_of
from orionbed.scenario.problems import Problem, did_you_mean, listed
from orionbed.scenario.tree import Tree

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


def find(tree: Tree, loc: Loc) -> tuple[Tree, list[str]]:
    """The deepest tree on the way to `loc` and its keys; union tags, which no file has, are passed over."""
    keys: list[str] = []
    for part in loc:
        inside = tree.value
        if isinstance(inside, dict):
            name = "choice" if part == "values" and "values" not in inside else str(part)
            if name not in inside:
                continue
            tree, keys = inside[name], [*keys, name]
        elif isinstance(inside, list) and isinstance(part, int) and part < len(inside):
            tree, keys = inside[part], [*keys, str(part)]
    return tree, keys


def problem_at(tree: Tree, loc: Loc, message: str, *, at_key: bool = False) -> Problem:
    """A problem at `loc`, or at the nearest thing above it that the file has."""
    found, keys = find(tree, loc)
    wanted = [str(part) for part in loc if not str(part).startswith("=")]
    if len(keys) == len(wanted):
        place = found.start if at_key or isinstance(found.value, dict) else found.place
        return Problem(place, ".".join(keys), message)
    return Problem(found.start, ".".join(wanted), message)


def translate(error: ValidationError, whole: Tree, root: Any, base: Loc = ()) -> list[Problem]:
    """All problems of one failed validation of the type `root`, which stands at `base` in the file."""
    problems: list[Problem] = []
    tree, above = find(whole, base)
    for detail in error.errors(include_url=False):
        kind, loc, context = detail["type"], detail["loc"], detail.get("ctx", {})
        if kind == "missing":
            problems.append(_missing(tree, loc, root))
        elif kind == "extra_forbidden":
            problems.append(_unknown(tree, loc, root))
        elif kind == "conflicts":
            shown = find(tree, loc)[1]
            problems += [problem_at(tree, (*shown, *below), message) for below, message in context["problems"]]
        elif kind in {"union_tag_invalid", "union_tag_not_found"}:
            problems.append(_kind(tree, loc, root))
        else:
            problems.append(_value(tree, loc, kind, context, detail["msg"], root))
    return [replace(p, key=".".join([*above, p.key] if p.key else above)) for p in problems]


def _missing(tree: Tree, loc: Loc, root: Any) -> Problem:
    parent, keys = find(tree, loc[:-1])
    name = str(loc[-1])
    field = next((b.model_fields[name] for b in blocks_at(root, loc[:-1]) if name in b.model_fields), None)
    what = f": {_lower(field.description)}" if field is not None and field.description else ""
    return Problem(parent.start, ".".join([*keys, name]), f"is missing; add `{name}`{what}")


def _unknown(tree: Tree, loc: Loc, root: Any) -> Problem:
    found, keys = find(tree, loc)
    name = str(loc[-1])
    blocks = blocks_at(root, loc[:-1])
    known = [key for block in blocks for key in block.model_fields]
    if not keys[:-1]:
        known.append("extends")
    hint = did_you_mean(name, known)
    if not hint:
        siblings = {kind: block for block in blocks_at(root, _untagged(loc[:-1], blocks)) for kind in kinds_of(block)}
        owners = [kind for kind, block in siblings.items() if name in block.model_fields]
        hint = f"; it belongs to kind {listed(owners)}, remove it or change the kind" if owners else ""
    return Problem(found.start, ".".join(keys), f"unknown key{hint or '; the keys here are ' + ', '.join(known)}")


def _untagged(loc: Loc, blocks: Sequence[type[Block]]) -> Loc:
    """`loc` without the tag that chose one of several blocks."""
    chosen = loc and any(str(loc[-1]).removeprefix("=") in kinds_of(block) for block in blocks)
    return loc[:-1] if chosen else loc


def _kind(tree: Tree, loc: Loc, root: Any) -> Problem:
    found, keys = find(tree, loc)
    blocks = blocks_at(root, loc)
    name = "dist" if any("dist" in block.model_fields for block in blocks) else "kind"
    kinds = [kind for block in blocks for kind in kinds_of(block) if kind != "constant"]
    given = found.value.get(name) if isinstance(found.value, dict) else None
    if given is None:
        return Problem(found.start, ".".join([*keys, name]), f"is missing; add `{name}`: {listed(kinds)}")
    return Problem(given.place, ".".join([*keys, name]), _choices(given.value, kinds))


def _choices(value: Any, choices: Sequence[Any]) -> str:
    hint = did_you_mean(value, [str(choice) for choice in choices]) if isinstance(value, str) else ""
    return f"must be {listed(map(str, choices))}, not {describe(value)}{hint}"


def _value(tree: Tree, loc: Loc, kind: str, context: dict[str, Any], text: str, root: Any) -> Problem:
    given = find(tree, loc)[0].value
    given = given if not isinstance(given, dict | list) else type(given)()
    if kind == "unsuitable":
        message = text
    elif kind in _BLOCK_TYPES:
        known = list(dict.fromkeys(key for block in blocks_at(root, loc) for key in block.model_fields))
        message = f"must be a mapping of `key: value` with the keys {', '.join(known)}, not {describe(given)}"
    elif kind == "literal_error":
        message = _literal(given, context["expected"])
    elif kind in _BOUNDS:
        name, words = _BOUNDS[kind]
        message = f"{words} {context[name]:g}, not {describe(given)}"
    elif kind in _PLAIN:
        message = f"{_PLAIN[kind]}{_instead(kind, given)}"
    else:
        message = _lower(text) + f", not {describe(given)}"
    return problem_at(tree, loc, message)


def _literal(given: Any, expected: str) -> str:
    choices = [word.strip("'") for word in expected.replace(" or ", ", ").split(", ")]
    return _choices(given, choices)


def _instead(kind: str, given: Any) -> str:
    if kind in {"too_short", "string_too_short"}:
        return ""
    hint = ""
    if isinstance(given, str) and kind in {"int_type", "float_type"}:
        try:
            float(given)
            hint = "; remove the quotes"
        except ValueError:
            hint = "; write it without a unit" if given[:1].isdigit() else ""
    elif kind == "bool_type" and isinstance(given, str) and given.lower() in {"yes", "on", "no", "off"}:
        hint = f"; write {'true' if given.lower() in {'yes', 'on'} else 'false'}"
    elif kind == "string_type":
        hint = "; put it into quotes"
    return f", not {describe(given)}{hint}"


def _lower(text: str | None) -> str:
    return text[:1].lower() + text[1:] if text and not text[:2].isupper() else text or ""
