"""What a scenario is not sure about: how the entries of `uncertain` are read, and what can be wrong with them."""

from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError

from orionbed.scenario.distributions import Distribution, Of
from orionbed.scenario.fields import FROM_FILE, Loc, describe
from orionbed.scenario.keys import look_up, quantity_type
from orionbed.scenario.messages import problem_at, translate
from orionbed.scenario.problems import Problem
from orionbed.scenario.tree import Tree


def options(written: Any) -> list[Any] | None:
    """The values of a choice, as they are written, or None when `written` is a distribution of numbers."""
    if not isinstance(written, dict):
        return None
    values = written["choice"] if written.keys() == {"choice"} else written.get("values")
    is_choice = written.keys() == {"choice"} or written.get("dist") == "choice"
    return values if is_choice and isinstance(values, list) and values else None


def distribution(root: Any, key: str, written: Any) -> Distribution:
    """Read a distribution in the unit of what stands at `key` of `root`. Raises pydantic's ValidationError."""
    adapter: TypeAdapter[Distribution] = TypeAdapter(_type(root, key))
    return adapter.validate_python(written, context=FROM_FILE)


def problems(sections: Mapping[str, Any], tree: Tree) -> list[Problem]:
    """Entries of `uncertain` that cannot be drawn, as far as their keys are in the valid sections."""
    found: list[Problem] = []
    for key, written in sections.get("uncertain", {}).items():
        loc: Loc = ("uncertain", key)
        try:
            kind = quantity_type(look_up(sections, key)[1])
        except KeyError:
            continue
        if options(written) is not None:
            continue
        if not isinstance(written, dict):
            text = f"must be a distribution or {{choice: [...]}}, not {describe(written)}"
            found.append(problem_at(tree, loc, text))
        elif kind is int:
            text = f"{key} is a whole number; write {{choice: [...]}} with the numbers to draw from"
            found.append(problem_at(tree, loc, text))
        elif kind is None:
            text = f"{key} is not a number; write {{choice: [...]}} with what to draw from"
            found.append(problem_at(tree, loc, text))
        else:
            try:
                distribution(sections, key, written)
            except ValidationError as error:
                found += translate(error, tree, _type(sections, key), loc)
    return found


def _type(root: Any, key: str) -> Any:
    return Of.annotation(quantity_type(look_up(root, key)[1]))
