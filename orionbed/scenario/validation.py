"""From a tree to a scenario, or to everything that is wrong with it."""

from typing import Any

from pydantic import TypeAdapter, ValidationError

from orionbed.scenario import checks, fault_checks, uncertainty
from orionbed.scenario.fields import FROM_FILE
from orionbed.scenario.keys import field_type
from orionbed.scenario.messages import problem_at, translate
from orionbed.scenario.problems import NOWHERE, ScenarioError
from orionbed.scenario.schema import Scenario
from orionbed.scenario.tree import Tree


def validate(tree: Tree, *, from_file: bool = True) -> Scenario:
    """The scenario of `tree`; bare numbers are SI quantities unless `from_file`.

    Raises ScenarioError with all problems.
    """
    context = FROM_FILE if from_file else None
    data = tree.plain()
    problems, scenario = [], None
    try:
        scenario = Scenario.model_validate(data, context=context)
        sections = {name: getattr(scenario, name) for name in Scenario.model_fields}
    except ValidationError as error:
        problems = translate(error, tree, Scenario)
        wrong = {detail["loc"][0] for detail in error.errors(include_url=False)}
        sections = _valid_sections(data, {str(name) for name in wrong}, context)
    problems += [problem_at(tree, issue.loc, issue.message, at_key=issue.at_key) for issue in checks.check(sections)]
    problems += uncertainty.problems(sections, tree)
    problems += fault_checks.problems(sections, tree)
    problems = [problem for problem in problems if problem.place != NOWHERE]
    if problems or scenario is None:
        raise ScenarioError(problems)
    return scenario


def _valid_sections(data: dict[str, Any], wrong: set[str], context: str | None) -> dict[str, Any]:
    sections: dict[str, Any] = {}
    for name, field in Scenario.model_fields.items():
        if name in wrong:
            continue
        given = name in data
        adapter: TypeAdapter[Any] = TypeAdapter(field_type(field))
        sections[name] = adapter.validate_python(data[name], context=context) if given else field.default
    return sections
