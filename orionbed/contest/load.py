"""Reading the file of a contest, with the loader and the messages of scenarios."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from pydantic import ValidationError

from orionbed.contest.schema import Contest
from orionbed.scenario.checks import PROVENANCE_KINDS
from orionbed.scenario.fields import FROM_FILE
from orionbed.scenario.keys import all_keys
from orionbed.scenario.load import read_tree
from orionbed.scenario.messages import problem_at, translate
from orionbed.scenario.problems import NOWHERE, Problem, ScenarioError, did_you_mean, listed
from orionbed.scenario.tree import Tree


def load_contest(path: Path | str, sets: Sequence[str] = ()) -> Contest:
    """The contest of a file, or a packaged one by its name, with every `key=value` of `sets` put in place.

    Raises ScenarioError with everything that is wrong, one line each: `file:line:col: key: what is wrong, what to do`.
    """
    tree = read_tree(path, sets)
    if "kind" not in tree.value and "pipeline" in tree.value:
        text = f"is a scenario and no contest; run it with `orionbed run {path}`"
        raise ScenarioError([Problem(tree.value["pipeline"].start, "", text)])
    try:
        contest = Contest.model_validate(tree.plain(), context=FROM_FILE)
    except ValidationError as error:
        raise ScenarioError(translate(error, tree, Contest)) from None
    problems = [problem for problem in _provenance(contest, tree) if problem.place != NOWHERE]
    if problems:
        raise ScenarioError(problems)
    return contest


def _provenance(contest: Contest, tree: Tree) -> Iterator[Problem]:
    known = [key for key in all_keys(contest) if not key.startswith("provenance")]
    for key, text in contest.provenance.items():
        loc = ("provenance", key)
        kind, _, source = (part.strip() for part in text.partition(":"))
        if key not in known:
            hint = did_you_mean(key, known)
            yield problem_at(tree, loc, f"the contest has no key {key}{hint}", at_key=True)
        if kind not in PROVENANCE_KINDS or not source:
            yield problem_at(
                tree, loc, f"must be `kind: source` with a kind of {listed(PROVENANCE_KINDS)}, not {text!r}"
            )
