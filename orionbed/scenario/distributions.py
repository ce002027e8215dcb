"""Distributions of a quantity: `856 Mbps`, or `{dist: lognormal, median: 856 Mbps, sigma: 0.35}`.

All values are in SI. Every distribution has `kind`, `median`, `sample(rng, size)` and `scaled(factor)`; printed as JSON
or YAML it reads as it would be written in a scenario.
"""

from math import exp, log
from statistics import median
from typing import TYPE_CHECKING, Annotated, Any, Generic, Literal, Self, TypeVar, Union

from pydantic import (
    Discriminator,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    SerializerFunctionWrapHandler,
    Tag,
    model_serializer,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from orionbed.scenario.fields import Block, DataRate, Duration, Listed, NotNegative, Positive, conflicts, quantity_name

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

T = TypeVar("T", bound=float)
# Standard normal quantile of 0.9.
_Z90 = 1.2815515655446004
_HALVINGS = 60


class Distribution(Block):
    """What all kinds of distribution share."""

    dist: str

    @classmethod
    def model_parametrized_name(cls, params: tuple[Any, ...]) -> str:
        """Name the distribution of a quantity after it: LognormalDataRate."""
        return cls.__name__ + "".join(quantity_name(param) for param in params)

    @property
    def kind(self) -> str:
        """Its name: constant, uniform, normal, lognormal, exponential, weibull, bathtub or choice."""
        return self.dist

    if TYPE_CHECKING:  # a property in most kinds, a field in the lognormal

        @property
        def median(self) -> float:
            """Half of the draws are below this value."""

    @property
    def positive(self) -> bool:
        """Whether no draw is ever 0."""
        return True

    def sample(self, rng: "np.random.Generator", size: int) -> "NDArray[np.float64]":
        """`size` independent draws."""
        raise NotImplementedError

    def scaled(self, factor: float) -> Self:
        """The distribution of `factor` (> 0) times a draw."""
        raise NotImplementedError

    def _times(self, factor: float, *names: str) -> Self:
        return self.model_copy(update={name: getattr(self, name) * factor for name in names})


class Constant(Distribution, Generic[T]):
    """Always the same value; written as the bare value."""

    dist: Literal["constant"] = Field(default="constant", description="constant: always the same value.")
    value: T = Field(description="The value.")

    @model_validator(mode="before")
    @classmethod
    def _accept_bare_value(cls, data: Any) -> Any:
        return data if isinstance(data, dict | Distribution) else {"dist": "constant", "value": data}

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """The bare value, or the block."""
        block = handler(schema)
        return {"title": cls.__name__, "anyOf": [handler.resolve_ref_schema(block)["properties"]["value"], block]}

    @model_serializer(mode="wrap")
    def _print_bare_value(self, handler: SerializerFunctionWrapHandler) -> Any:
        return handler(self)["value"]

    @property
    def median(self) -> float:
        return float(self.value)

    @property
    def positive(self) -> bool:
        return self.value > 0

    def sample(self, rng: "np.random.Generator", size: int) -> "NDArray[np.float64]":  # noqa: ARG002 -- draws nothing
        import numpy as np

        return np.full(size, float(self.value))

    def scaled(self, factor: float) -> Self:
        return self._times(factor, "value")


class Uniform(Distribution, Generic[T]):
    """Equally likely between two values."""

    dist: Literal["uniform"] = Field(description="uniform: equally likely between two values.")
    low: T = Field(description="The lowest value.")
    high: T = Field(description="The highest value.")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.low > self.high:
            raise conflicts([(("low",), "is above `high`; exchange the two")])
        return self

    @property
    def median(self) -> float:
        return (self.low + self.high) / 2

    @property
    def positive(self) -> bool:
        return self.low > 0

    def sample(self, rng: "np.random.Generator", size: int) -> "NDArray[np.float64]":
        return rng.uniform(self.low, self.high, size)

    def scaled(self, factor: float) -> Self:
        return self._times(factor, "low", "high")


class Normal(Distribution, Generic[T]):
    """Normal around a mean; draws at or below zero are drawn again."""

    dist: Literal["normal"] = Field(description="normal: draws at or below zero are drawn again.")
    mean: Annotated[T, Field(gt=0)] = Field(description="The mean (also the median).")
    sd: T = Field(description="The standard deviation, in the unit of the mean.")

    @property
    def median(self) -> float:
        return float(self.mean)

    def sample(self, rng: "np.random.Generator", size: int) -> "NDArray[np.float64]":
        draws = rng.normal(self.mean, self.sd, size)
        while (wrong := draws <= 0).any():
            draws[wrong] = rng.normal(self.mean, self.sd, int(wrong.sum()))
        return draws

    def scaled(self, factor: float) -> Self:
        return self._times(factor, "mean", "sd")


class Lognormal(Distribution, Generic[T]):
    """The logarithm is normal; given by the median and `sigma`, or by the median and the 90th percentile."""

    dist: Literal["lognormal"] = Field(description="lognormal: the logarithm is normal.")
    median: Annotated[T, Field(gt=0)] = Field(description="The median.")
    sigma: NotNegative = Field(default=0.0, description="Standard deviation of the natural logarithm (or give `p90`).")
    p90: T | None = Field(
        default=None, description="The 90th percentile, instead of `sigma`; kept as the sigma it means."
    )

    @model_validator(mode="after")
    def _sigma_from_p90(self) -> Self:
        given = self.model_fields_set & {"sigma", "p90"}
        if len(given) != 1:
            raise conflicts([((), "needs exactly one of `sigma` and `p90`; give the one you know")])
        if self.p90 is not None:
            if self.p90 < self.median:
                raise conflicts([(("p90",), "is below the median; the 90th percentile must be above it")])
            object.__setattr__(self, "sigma", log(self.p90 / self.median) / _Z90)
            object.__setattr__(self, "p90", None)
        return self

    @model_serializer(mode="wrap")
    def _print_sigma(self, handler: SerializerFunctionWrapHandler) -> Any:
        return {name: value for name, value in handler(self).items() if name != "p90"}

    def sample(self, rng: "np.random.Generator", size: int) -> "NDArray[np.float64]":
        return rng.lognormal(log(self.median), self.sigma, size)

    def scaled(self, factor: float) -> Self:
        return self._times(factor, "median")


class Exponential(Distribution, Generic[T]):
    """Memoryless waiting time."""

    dist: Literal["exponential"] = Field(description="exponential: memoryless.")
    mean: Annotated[T, Field(gt=0)] = Field(description="The mean.")

    @property
    def median(self) -> float:
        return self.mean * log(2)

    def sample(self, rng: "np.random.Generator", size: int) -> "NDArray[np.float64]":
        return rng.exponential(self.mean, size)

    def scaled(self, factor: float) -> Self:
        return self._times(factor, "mean")


class Weibull(Distribution, Generic[T]):
    """Lifetimes; a shape below 1 means that what has lived long will live longer."""

    dist: Literal["weibull"] = Field(description="weibull: lifetimes.")
    shape: Positive = Field(description="Shape; 1 is exponential, below 1 the hazard falls with age.")
    scale: Annotated[T, Field(gt=0)] = Field(description="Scale: 63.2 % of the draws are below it.")

    @property
    def median(self) -> float:
        return float(self.scale * log(2) ** (1 / self.shape))

    def sample(self, rng: "np.random.Generator", size: int) -> "NDArray[np.float64]":
        return self.scale * rng.weibull(self.shape, size)

    def scaled(self, factor: float) -> Self:
        return self._times(factor, "scale")


class Bathtub(Distribution, Generic[T]):
    """Lifetimes with a limit: many end early, few in the middle, the rest towards the limit (arXiv 1911.05160).

    The share that has ended by t is share (1 - exp(-t/early) + (exp(t/late) - 1) / (exp(limit/late) - 1)); what is left
    ends at the limit.
    """

    dist: Literal["bathtub"] = Field(description="bathtub: lifetimes with a limit.")
    share: Annotated[float, Field(gt=0, le=0.5)] = Field(
        default=0.5,
        description="Share that ends early; as many again end near the limit, the rest at it (default 0.5).",
    )
    early: Annotated[T, Field(gt=0)] = Field(description="Time constant of the early ends.")
    late: Annotated[T, Field(gt=0)] = Field(description="Time constant of the late ones, back from the limit.")
    limit: Annotated[T, Field(gt=0)] = Field(description="No draw is above it.")

    @property
    def median(self) -> float:
        import numpy as np

        return float(self._quantiles(np.array([0.5]))[0])

    def sample(self, rng: "np.random.Generator", size: int) -> "NDArray[np.float64]":
        return self._quantiles(rng.random(size))

    def _quantiles(self, shares: "NDArray[np.float64]") -> "NDArray[np.float64]":
        """Halve the range of each until a double can tell no more; one at or beyond the limit stays there."""
        import numpy as np

        early, late = self.limit / self.early, self.limit / self.late
        low, high = np.zeros(len(shares)), np.ones(len(shares))
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            near_limit = (np.exp(late * (middle - 1.0)) - exp(-late)) / (1.0 - exp(-late))
            ended = self.share * (1.0 - np.exp(-early * middle) + near_limit)
            low, high = np.where(ended < shares, middle, low), np.where(ended < shares, high, middle)
        return self.limit * high

    def scaled(self, factor: float) -> Self:
        return self._times(factor, "early", "late", "limit")


class Choice(Distribution, Generic[T]):
    """One of a few values, equally likely."""

    dist: Literal["choice"] = Field(description="choice: one of a few values, equally likely.")
    values: Annotated[tuple[T, ...], Listed] = Field(min_length=1, description="The values.")

    @model_validator(mode="before")
    @classmethod
    def _accept_short_form(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.keys() == {"choice"}:
            return {"dist": "choice", "values": data["choice"]}
        return data

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """The short form {choice: [...]}, or the block."""
        block = handler(schema)
        values = handler.resolve_ref_schema(block)["properties"]["values"]
        short = {"type": "object", "properties": {"choice": values}, "required": ["choice"]}
        return {"title": cls.__name__, "anyOf": [{**short, "additionalProperties": False}, block]}

    @property
    def median(self) -> float:
        return float(median(self.values))

    @property
    def positive(self) -> bool:
        return min(self.values) > 0

    def sample(self, rng: "np.random.Generator", size: int) -> "NDArray[np.float64]":
        return rng.choice([float(value) for value in self.values], size)

    def scaled(self, factor: float) -> Self:
        return self.model_copy(update={"values": tuple(value * factor for value in self.values)})


MODELS: dict[str, Any] = {
    "constant": Constant,
    "uniform": Uniform,
    "normal": Normal,
    "lognormal": Lognormal,
    "exponential": Exponential,
    "weibull": Weibull,
    "bathtub": Bathtub,
    "choice": Choice,
}


def _tag(data: Any) -> str:
    """Which kind `data` is written as. Tags start with "=" so that they are never taken for keys of a file."""
    if isinstance(data, Distribution):
        return "=" + data.kind
    if not isinstance(data, dict):
        return "=constant"
    return "=choice" if "choice" in data and "dist" not in data else f"={data.get('dist')}"


class Of:
    """Annotation of a Distribution field: which quantity it is a distribution of."""

    def __init__(self, quantity_type: Any) -> None:
        self.quantity_type = quantity_type

    @staticmethod
    def annotation(quantity_type: Any) -> Any:
        """The type of a distribution of a quantity that is known at run time only."""
        return Annotated[Distribution, Of(quantity_type)]

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Choose the kind first, so that errors speak of that kind alone."""
        kinds: tuple[Any, ...] = tuple(
            Annotated[model[self.quantity_type], Tag("=" + kind)] for kind, model in MODELS.items()
        )
        return handler.generate_schema(Annotated[Union[kinds], Discriminator(_tag)])  # noqa: UP007 -- built at run time


DurationDist = Annotated[Distribution, Of(Duration)]
RateDist = Annotated[Distribution, Of(DataRate)]
NumberDist = Annotated[Distribution, Of(NotNegative)]
