"""What a scenario is not sure about: drawing from `uncertain`, and checking it."""

from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError

from orionbed.scenario.change import apply
from orionbed.scenario.distributions import Choice, Constant, Distribution, Of, Uniform
from orionbed.scenario.fields import FROM_FILE, Loc, describe
from orionbed.scenario.keys import look_up, quantity_type
from orionbed.scenario.messages import problem_at, translate
from orionbed.scenario.problems import Problem, ScenarioError
from orionbed.scenario.schema import Scenario
from orionbed.scenario.tree import Tree

if TYPE_CHECKING:
    import numpy as np


def draw(scenario: Scenario, rng: "np.random.Generator") -> tuple[Scenario, dict[str, Any]]:
    """A scenario without uncertainty, and the value drawn for every key of `uncertain`.

    One draw per key in the order of the sorted keys, so that a generator in the same state gives the same scenario.
    Values are as in a file where they come from a list of choices, else SI floats. Raises ScenarioError.
    """
    values: dict[str, Any] = {}
    for key in sorted(scenario.uncertain):
        options = _options(scenario.uncertain[key])
        if options is not None:
            values[key] = options[int(rng.integers(len(options)))]
        else:
            values[key] = float(_distribution(scenario, key).sample(rng, 1)[0])
    return apply(scenario.model_copy(update={"uncertain": {}}), values), values


def problems(scenario: Scenario, tree: Tree) -> list[Problem]:
    """Entries of `uncertain` that cannot be drawn, or whose values the scenario would refuse."""
    found: list[Problem] = []
    certain = scenario.model_copy(update={"uncertain": {}})
    for key, written in scenario.uncertain.items():
        loc: Loc = ("uncertain", key)
        options = _options(written)
        if options is not None:
            list_key = "choice" if "choice" in written else "values"
            probes = [((*loc, list_key, index), option) for index, option in enumerate(options)]
        else:
            problem = _wrong_type(scenario, key, written)
            if problem is not None:
                found.append(problem_at(tree, loc, problem))
                continue
            try:
                probes = [((*loc, *below), value) for below, value in _ends(_distribution(scenario, key))]
            except ValidationError as error:
                found += translate(error, tree, Of.annotation(quantity_type(_type_at(scenario, key))), loc)
                continue
        for where, value in probes:
            try:
                apply(certain, {key: value}, from_file=options is not None)
            except ScenarioError as error:
                found += [problem_at(tree, where, f"would make {p.key} wrong: {p.message}") for p in error.problems]
    return found


def _options(written: Any) -> list[Any] | None:
    """The values of a choice, or None when it is a distribution of numbers."""
    if isinstance(written, dict) and written.keys() == {"choice"} and isinstance(written["choice"], list):
        return written["choice"] or None
    if isinstance(written, dict) and written.get("dist") == "choice" and isinstance(written.get("values"), list):
        return written["values"] or None
    return None


def _wrong_type(scenario: Scenario, key: str, written: Any) -> str | None:
    """Why `written` cannot be a distribution of what stands at `key`."""
    if not isinstance(written, dict):
        return f"must be a distribution or {{choice: [...]}}, not {describe(written)}"
    kind = quantity_type(_type_at(scenario, key))
    if kind is int and written.get("dist") != "constant":
        return f"{key} is a whole number; write {{choice: [...]}} with the numbers to draw from"
    if kind is None:
        return f"{key} is not a number; write {{choice: [...]}} with what to draw from"
    return None


def _type_at(scenario: Scenario, key: str) -> Any:
    return look_up(scenario, key)[1]


def _distribution(scenario: Scenario, key: str) -> Distribution:
    """Read the distribution in the unit of what stands at `key`."""
    kind = quantity_type(_type_at(scenario, key))
    adapter: TypeAdapter[Distribution] = TypeAdapter(Of.annotation(kind))
    return adapter.validate_python(scenario.uncertain[key], context=FROM_FILE)


def _ends(distribution: Distribution) -> list[tuple[Loc, float]]:
    """Values to try out: the ends where there are some, else the median."""
    if isinstance(distribution, Uniform):
        return [(("low",), distribution.low), (("high",), distribution.high)]
    if isinstance(distribution, Choice | Constant):
        return [((), float(distribution.median))]
    return [((), distribution.median)]
