"""What a sweep's file can say."""

from typing import Annotated, Any

from pydantic import Field

from orionbed.scenario.fields import KEY_PATTERN, Block, Count, Listed

_Values = Annotated[tuple[Any, ...], Listed, Field(min_length=1)]
_Measure = Annotated[str, Field(pattern=KEY_PATTERN)]


class Sweep(Block):
    """A sweep as it stands in its file; values of scenario keys are written as in a scenario."""

    scenario: str = Field(min_length=1, description="The scenario: a path relative to the sweep's file, or a name.")
    title: str = Field(default="", description="One line for the figure's head (default empty).")
    fixed: dict[str, Any] = Field(
        default={}, alias="set", description="Dotted key -> value, changed in every run (default none)."
    )
    vary: dict[str, _Values] = Field(
        default={},
        description="Dotted key -> the values it takes; with two keys, or one beside `cases`, every combination.",
    )
    cases: dict[str, dict[str, Any]] = Field(
        default={}, description="Name -> {dotted key: value, ...}: variants that change several keys at once."
    )
    axis: str = Field(default="", description="What the names of `cases` are, for table and figure (default `case`).")
    seeds: Count = Field(default=3, description="How many seeds every case is run with, the same ones (default 3).")
    draw: bool = Field(
        default=False,
        description="Whether every seed also draws what the scenario has under `uncertain` anew (default false). All "
        "cases draw the same with the same seed, but for keys that they change themselves.",
    )
    train: bool = Field(
        default=False,
        description="Whether every run is trained on real tensors, as `orionbed train` does it (default false: it is "
        "simulated alone). Measures may then be those of the training too, and the figure has loss curves.",
    )
    measure: Annotated[tuple[_Measure, ...], Listed, Field(min_length=1)] = Field(
        description="Dotted keys of summary.json to report; all differences are to the first case."
    )
