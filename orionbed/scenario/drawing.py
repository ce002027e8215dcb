"""Drawing from `uncertain`, and trying out beforehand what may be drawn."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from orionbed.scenario.change import apply
from orionbed.scenario.distributions import Distribution, Uniform
from orionbed.scenario.fields import Loc
from orionbed.scenario.messages import problem_at
from orionbed.scenario.problems import Problem, ScenarioError
from orionbed.scenario.schema import Scenario
from orionbed.scenario.tree import Tree
from orionbed.scenario.uncertainty import distribution, options

if TYPE_CHECKING:
    import numpy as np


def draw(scenario: Scenario, rng: "np.random.Generator") -> tuple[Scenario, dict[str, Any]]:
    """A scenario without uncertainty, and the value drawn for every key of `uncertain`.

    One draw per key in the order of the sorted keys, so that a generator in the same state gives the same scenario.
    Values are as in a file where they come from a list of choices, else SI floats. Raises ScenarioError when a draw
    is no good.
    """
    return draw_each(scenario, lambda _key: rng)


def draw_each(scenario: Scenario, rng_of: "Callable[[str], np.random.Generator]") -> tuple[Scenario, dict[str, Any]]:
    """Draw as `draw` does, each key from a generator of its own: what one gets does not depend on which others are."""
    values: dict[str, Any] = {}
    for key in sorted(scenario.uncertain):
        written, rng = scenario.uncertain[key], rng_of(key)
        choices = options(written)
        if choices is not None:
            values[key] = choices[int(rng.integers(len(choices)))]
        else:
            values[key] = float(distribution(scenario, key, written).sample(rng, 1)[0])
    return apply(scenario.model_copy(update={"uncertain": {}}), values), values


def refused(scenario: Scenario, tree: Tree) -> list[Problem]:
    """Entries of `uncertain` with values that the scenario would refuse: every choice is tried, and every end."""
    found: list[Problem] = []
    certain = scenario.model_copy(update={"uncertain": {}})
    for key, written in scenario.uncertain.items():
        choices = options(written)
        if choices is None:
            ends = _ends(distribution(scenario, key, written))
        else:
            ends = [(("choice" if "choice" in written else "values", index), v) for index, v in enumerate(choices)]
        for below, value in ends:
            try:
                apply(certain, {key: value}, from_file=choices is not None)
            except ScenarioError as error:
                loc: Loc = ("uncertain", key, *below)
                found += [problem_at(tree, loc, f"would make {p.key} wrong: {p.message}") for p in error.problems]
    return found


def _ends(drawn_from: Distribution) -> list[tuple[Loc, float]]:
    """Values to try: the ends where there are two, else the median."""
    if isinstance(drawn_from, Uniform):
        return [(("low",), float(drawn_from.low)), (("high",), float(drawn_from.high))]
    return [((), drawn_from.median)]
