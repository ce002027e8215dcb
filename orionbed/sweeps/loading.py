"""Reading a sweep: its file, the scenario it varies, and every case of it, tried before anything runs."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from orionbed.estimate import fullest, gpus_in_words
from orionbed.plan import Plan, make_plan
from orionbed.scenario import Distribution, Place, Problem, Scenario, ScenarioError, apply, load, packaged
from orionbed.scenario.fields import FROM_FILE
from orionbed.scenario.keys import look_up
from orionbed.scenario.messages import translate
from orionbed.scenario.problems import did_you_mean, nearest
from orionbed.scenario.tree import Tree
from orionbed.scenario.yaml_file import read_file, read_text, resolve
from orionbed.schedule.order import ScheduleError
from orionbed.sweeps import measures
from orionbed.sweeps.blocks import Sweep
from orionbed.sweeps.choices import Choice, Choices, axes_of, fixed_of, placed, problems_of

FOLDER: Final = "sweeps"


@dataclass(frozen=True, slots=True)
class Axis:
    """One thing that is varied: a dotted key, or what the cases are called, and its values as written.

    `numbers` has them in SI where each of them is one number.
    """

    name: str
    values: tuple[str, ...]
    numbers: tuple[float, ...] | None


@dataclass(frozen=True, slots=True)
class Case:
    """One variant: its value on each axis, as written, its scenario, and why it does not fit; empty when it does."""

    labels: tuple[str, ...]
    scenario: Scenario
    misfit: str


@dataclass(frozen=True, slots=True)
class Loaded:
    """A sweep that can be run: every case is a valid scenario, and every measure one that its runs have.

    `given` is the file as it was. With `draws` every seed also draws the uncertain inputs; with `trains` every run is
    trained on real tensors.
    """

    name: str
    title: str
    given: bytes
    scenario: str
    axes: tuple[Axis, ...]
    cases: tuple[Case, ...]
    seeds: tuple[int, ...]
    draws: bool
    trains: bool
    measures: tuple[str, ...]

    @property
    def baseline(self) -> bool:
        """Whether the datacenter is simulated beside every run."""
        return measures.needs_baseline(self.measures)

    @property
    def num_runs(self) -> int:
        """Cases times seeds."""
        return len(self.cases) * len(self.seeds)


def load_sweep(name: str, sets: Sequence[str] = (), seeds: int | None = None) -> Loaded:
    """Return the sweep of a file, or a packaged one by its name; `sets` are `key=value` for every run.

    Raises:
        ScenarioError: everything that is wrong with it or with one of its cases, one line each.

    """
    path, shown = _file(name)
    tree = _with_sets(read_file(path, shown), sets)
    try:
        block = Sweep.model_validate(tree.plain(), context=FROM_FILE)
    except ValidationError as error:
        raise ScenarioError(translate(error, tree, Sweep)) from None
    _raise(list(problems_of(block, tree)))
    scenario = load(_scenario_file(block.scenario, tree, path.parent))
    axes = axes_of(block, tree)
    plans = _plans(scenario, fixed_of(block, tree), axes)
    _raise(_unknown_measures(block, tree, [plan.scenario for _, plan in plans]))
    first = scenario.run.seed
    return Loaded(
        name=path.stem,
        title=block.title,
        given=path.read_bytes(),
        scenario=scenario.name,
        axes=tuple(_axis(position, axis, plans) for position, axis in enumerate(axes)),
        cases=tuple(Case(labels, plan.scenario, _misfit(plan)) for labels, plan in plans),
        seeds=tuple(range(first, first + (seeds or block.seeds))),
        draws=block.draw,
        trains=block.train,
        measures=block.measure,
    )


def names() -> list[str]:
    """Return the names of the packaged sweeps."""
    return packaged.names(FOLDER)


def _raise(problems: list[Problem]) -> None:
    if problems:
        raise ScenarioError(problems)


def _file(name: str) -> tuple[Path, str]:
    """The file of a sweep and how to call it: a path, with or without its ending, or a packaged sweep."""
    for candidate in (Path(name), Path(f"{name}.yaml")):
        if candidate.is_file():
            return candidate, str(candidate)
    inside = name.removeprefix("scenarios/").removeprefix(f"{FOLDER}/").removesuffix(".yaml")
    if inside in names():
        return packaged.FOLDER / FOLDER / f"{inside}.yaml", f"scenarios/{FOLDER}/{inside}.yaml"
    near = nearest(inside, names())
    hint = f"; did you mean {near}?" if near else f"; packaged are {', '.join(names())}"
    raise ScenarioError([Problem(Place(name), "", f"no such file, nor a packaged sweep{hint}")])


def _scenario_file(name: str, tree: Tree, folder: Path) -> str:
    found = packaged.scenario_file(name, folder)
    if found is None:
        place = tree.value["scenario"].place
        raise ScenarioError([Problem(place, "scenario", f"{name}: {packaged.missing(name)}")])
    return str(found[0])


def _with_sets(tree: Tree, sets: Sequence[str]) -> Tree:
    """The sweep with what the command line sets for every run, over what its file sets."""
    given: dict[str, Tree] = {}
    for text in sets:
        key, equals, value = text.partition("=")
        place = Place(f"--set {text}")
        if not (equals and key.strip()):
            raise ScenarioError([Problem(place, "", "write --set key=value, like --set 'run.duration=1 h'")])
        given[key.strip()] = Tree(read_text(value, place.source, positions=False).value, place, place)
    if not given:
        return tree
    own = tree.at("set")
    inside = own.value if own is not None and isinstance(own.value, dict) else {}
    place = next(iter(given.values())).place if own is None else own.start
    return Tree({**tree.value, "set": Tree({**inside, **given}, place, place)}, tree.place)


def _plans(scenario: Scenario, fixed: Choice, axes: list[Choices]) -> list[tuple[tuple[str, ...], Plan]]:
    """The plan of every case and its labels. Raises ScenarioError with what is wrong in any of them."""
    problems: list[Problem] = []
    found = []
    for chosen in product(*(axis.choices for axis in axes)):
        parts = (fixed, *chosen)
        changes = {key: value for part in parts for key, value in part.changes.items()}
        try:
            changed = apply(scenario, {**changes, "run.trace": "summary"}, from_file=True)
            found.append((tuple(choice.label for choice in chosen), make_plan(changed)))
        except ScenarioError as error:
            problems += [placed(problem, parts) for problem in error.problems]
        except ScheduleError as error:
            problems.append(Problem(chosen[-1].place, chosen[-1].key, f"makes a schedule that cannot be run: {error}"))
    _raise(problems)
    return found


def _unknown_measures(block: Sweep, tree: Tree, scenarios: list[Scenario]) -> list[Problem]:
    """Measures that no case has; what one has may depend on what is varied, so further cases are asked if need be."""
    known: list[str] = []
    for scenario in scenarios:
        known = sorted({*known, *measures.known(scenario, trains=block.train)})
        if set(block.measure) <= set(known):
            break
    problems = []
    for index, key in enumerate(block.measure):
        place, where = tree.value["measure"].value[index].place, f"measure.{index}"
        if key not in known:
            otherwise = "; docs/reference.md lists the keys of summary.json"
            text = f"no number of a run is called {key}{did_you_mean(key, known, otherwise)}"
            problems.append(Problem(place, where, text))
        elif key in block.measure[:index]:
            problems.append(Problem(place, where, f"{key} is there twice; remove one"))
    return problems


def _axis(position: int, axis: Choices, plans: list[tuple[tuple[str, ...], Plan]]) -> Axis:
    """An axis, with its values as numbers where the varied key holds a different number in every case."""
    labels = tuple(choice.label for choice in axis.choices)
    found: list[float] = []
    for choice in axis.choices:
        plan = next(plan for chosen, plan in plans if chosen[position] == choice.label)
        value = _held(plan.scenario, axis.name) if axis.name in choice.changes else resolve(choice.label)
        if isinstance(value, bool) or not isinstance(value, int | float) or value in found:
            return Axis(axis.name, labels, None)
        found.append(float(value))
    return Axis(axis.name, labels, tuple(found))


def _held(scenario: Scenario, key: str) -> Any:
    """What a scenario holds at a dotted key, the value of what is always the same, None where there is no such key."""
    try:
        value = look_up(scenario, key)[0]
    except KeyError:
        return None
    return value.median if isinstance(value, Distribution) and value.kind == "constant" else value


def _misfit(plan: Plan) -> str:
    """Why a case does not fit the memory of its GPUs; empty when it does."""
    if plan.fits:
        return ""
    worst, room = fullest(plan)
    needed = worst.memory.total_bytes / 1e9
    return f"stage {worst.index} needs {needed:.1f} GB of the {room / 1e9:.0f} GB of {gpus_in_words(plan)}"
