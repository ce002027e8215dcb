"""What the file of a routing contest can say. It is no scenario: it has miners and epochs, and no model."""

from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, model_validator

from orionbed.scenario.distributions import DurationDist, RateDist
from orionbed.scenario.fields import (
    NAME_PATTERN,
    Block,
    Count,
    DataSize,
    Duration,
    Fraction,
    NotNegative,
    Positive,
    conflicts,
)

KIND: Final = "routing-contest"
_Some = Annotated[Duration, Field(gt=0)]
_SHARES_ADD_UP: Final = 1e-9


class Layers(Block):
    """How many layers the model is cut into, drawn once per seed."""

    least: Count = Field(default=3, description="Fewest layers (default 3).")
    most: Count = Field(default=8, description="Most layers (default 8); each number between is equally likely.")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.least > self.most:
            raise conflicts([(("least",), "is above `most`; exchange the two")])
        return self


class MinerClass(Block):
    """Miners that drop out and come back alike; classes differ in nothing else."""

    share: Fraction = Field(description="Share of all miners; the shares of all classes add up to 1.")
    drop: Fraction = Field(description="Probability that a miner that is there drops, each `check_every`.")
    join: Annotated[Fraction, Field(gt=0)] = Field(
        description="Probability that a miner that is away comes back, each `check_every`."
    )


class Several(Block):
    """Miners that serve more than one layer, with one GPU."""

    share: Fraction = Field(default=0.0, description="Share of all miners that serve several layers (default 0).")
    layers: Count = Field(
        default=2, description="How many neighbouring layers each of them serves (default 2), at most all there are."
    )


class Miners(Block):
    """The machines."""

    count: Count = Field(description="How many there are.")
    layers: Layers = Field(default=Layers(), description="How many layers they serve.")
    several: Several = Field(default=Several(), description="Miners that serve several layers.")
    classes: dict[str, MinerClass] = Field(min_length=1, description="Classes of miners by name.")
    check_every: _Some = Field(default=10.0, description="How often each miner may drop or come back (default 10 s).")
    forward: DurationDist = Field(description="Time of one forward, drawn once per miner.")
    backward: Positive = Field(default=3.0, description="A backward takes this many times a forward (default 3).")
    cache: Count = Field(
        default=5, description="Activations that a miner can hold per layer between forward and backward (default 5)."
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        found = []
        total = sum(kind.share for kind in self.classes.values())
        if abs(total - 1.0) > _SHARES_ADD_UP:
            found.append((("classes",), f"the shares add up to {total:g}, not to 1; change them"))
        if self.count < self.layers.most:
            text = f"{self.count} miners cannot serve {self.layers.most} layers; give at least as many miners as layers"
            found.append((("count",), text))
        if not self.forward.positive:
            found.append((("forward",), "may be 0; a forward takes some time"))
        if found:
            raise conflicts(found)
        return self


class Links(Block):
    """What a message from miner to miner takes: overhead, both latencies, the global one, and its bytes."""

    activation: DataSize = Field(description="Size of one activation, and of one gradient, like 2304000 B.")
    bandwidth: RateDist = Field(description="Rate of a miner's link in each direction, drawn once per miner.")
    latency: DurationDist = Field(description="One-way latency that a miner adds to each of its messages, drawn.")
    global_latency: Duration = Field(default=0.0, description="One-way latency of every message (default 0 s).")
    overhead: Duration = Field(default=0.0, description="Time that handling a message adds to it (default 0 s).")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.bandwidth.positive:
            raise conflicts([(("bandwidth",), "may be 0; nothing would ever arrive")])
        return self


class Epochs(Block):
    """How long the contest is."""

    count: Count = Field(default=5, description="How many epochs (default 5).")
    activations: Count = Field(
        default=500, description="An epoch ends with this many completed activations (default 500)."
    )
    in_flight: Count = Field(
        description="Activations on their way at any time: one that completes or is lost is replaced at once."
    )
    staleness: _Some = Field(
        default=60.0,
        description="The router is told the state of each layer this often, so it is up to that old (default 60 s).",
    )
    notice: Annotated[Duration, Field(ge=1.0)] = Field(
        default=10.0,
        description="Time until a lost activation is noticed and given up by all who hold it (default 10 s, not below "
        "1 s).",
    )
    merge: Duration = Field(
        default=30.0, description="Time between two epochs; what is in flight is flushed (default 30 s)."
    )
    drift: NotNegative = Field(
        default=0.0,
        description="Standard deviation of the logarithm by which each miner's speed, bandwidth and latency change "
        "from epoch to epoch (default 0).",
    )


class Limits(Block):
    """What a router may take. These are seconds on the wall: simulated time stands still while a router thinks."""

    route_timeout: _Some = Field(default=0.5, description="Longest wait for one answer (default 500 ms).")
    run_timeout: _Some = Field(default=600.0, description="Longest wait for all answers of one seed (default 10 min).")
    faults: Fraction = Field(
        default=0.05, description="Share of calls that may be late or wrong and be routed at random (default 5 %)."
    )


class Contest(Block):
    """A complete, validated contest; all quantities in SI, data rates in bit/s."""

    kind: Literal["routing-contest"] = Field(description="Says that this file is a contest and no scenario.")
    name: str = Field(pattern=NAME_PATTERN, description="Short name of letters, digits and dashes.")
    title: str = Field(default="", description="One line (default empty).")
    miners: Miners = Field(description="The machines.")
    network: Links = Field(description="Everything between them.")
    epochs: Epochs = Field(description="How long the contest is.")
    router: Limits = Field(default=Limits(), description="What a router may take.")
    provenance: dict[str, str] = Field(
        default={}, description="Dotted key -> `kind: source`, as in a scenario; a key covers everything below it."
    )

    def __reduce__(self) -> Any:
        """Travel to other processes as JSON: the classes of distributions are made on the fly."""
        return Contest.model_validate_json, (self.model_dump_json(),)
