"""A scenario cut short, for backends on which a second of the run takes a second of somebody's time."""

from collections.abc import Mapping

from orionbed.scenario import Scenario, apply


def shortened(
    scenario: Scenario, training_s: float | None, changes: Mapping[str, object], *, is_shorter: bool
) -> Scenario:
    """Return the scenario as it runs there: peers start without delay, and everything is traced.

    `training_s` is how long is trained before a merge, or in all where nothing is merged; None leaves it as it is. What
    was measured over a whole run is no yardstick for minutes of it, so a run that is shorter loses those figures.
    """
    made: dict[str, object] = {"run.startup": 0.0, "run.trace": "full"}
    if training_s is not None and not isinstance(scenario.merge, str):
        made["merge.every"] = training_s
    elif training_s is not None:
        made |= {"run.duration": training_s, "run.tokens": None}
    made |= changes
    if is_shorter:
        made["published"] = [one.model_dump() for one in scenario.published if one.kind == "input"]
    return apply(scenario, made)
