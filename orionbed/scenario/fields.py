"""The types that the scenario's fields are made of: blocks, quantities and plain numbers.

In a file every quantity is text with a unit; in Python it is a float in SI (data rates in bit/s). A validation that
carries `FROM_FILE` as its context refuses bare numbers; without it they are taken as SI, so code can build blocks.
"""

import re
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Final, get_args

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler, GetJsonSchemaHandler, Strict
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from orionbed import quantity
from orionbed.quantity import Dimension, QuantityError

FROM_FILE: Final = "unit mandatory"
Loc = tuple[str | int, ...]


class Block(BaseModel):
    """A mapping of the scenario: frozen, and unknown keys are refused."""

    model_config: ClassVar[ConfigDict] = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, defer_build=True
    )


def conflicts(problems: Sequence[tuple[Loc, str]]) -> PydanticCustomError:
    """One validation error that stands for several problems, each at a key relative to the validated block."""
    return PydanticCustomError("conflicts", "{text}", {"text": "; ".join(m for _, m in problems), "problems": problems})


def unsuitable(message: str) -> PydanticCustomError:
    """A validation error whose message is shown as it is."""
    return PydanticCustomError("unsuitable", "{text}", {"text": message})


class Quantity:
    """Annotation of a float field: text with a unit in, SI float in Python, canonical text out."""

    def __init__(self, dimension: Dimension) -> None:
        self.dimension = dimension

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Parse text, then hand the float to the ordinary checks."""
        return core_schema.with_info_before_validator_function(
            self._to_float,
            core_schema.float_schema(allow_inf_nan=False, ge=0),
            serialization=core_schema.plain_serializer_function_ser_schema(self._to_text, when_used="json"),
        )

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Text: a number and one of the units."""
        units = "|".join(re.escape(unit) for unit in self.dimension.units)
        number = quantity.NUMBER.removeprefix("[+-]?")
        pattern = rf"^{number} *({units})$"
        if self.dimension.money:
            pattern = rf"^(\${number}({re.escape(self.dimension.base[1:])})?|{number} *({units}))$"
        return {"type": "string", "pattern": pattern, "x-dimension": self.dimension.name}

    def _to_float(self, value: Any, info: core_schema.ValidationInfo) -> Any:
        if isinstance(value, str):
            try:
                return quantity.parse(value, self.dimension)
            except QuantityError as error:
                raise unsuitable(str(error)) from None
        if info.context == FROM_FILE or isinstance(value, bool) or not isinstance(value, int | float):
            name, example = self.dimension.name, self.dimension.example
            if isinstance(value, int | float) and not isinstance(value, bool):
                raise unsuitable(quantity.without_unit(str(value), self.dimension))
            raise unsuitable(f"must be {name} with its unit, like {example}, not {describe(value)}")
        return float(value)

    def _to_text(self, value: float) -> str:
        return quantity.show(value, self.dimension)


def quantity_name(quantity_type: Any) -> str:
    """What a type of this module is called: Duration, DataRate, ... or Number."""
    for carried in get_args(quantity_type)[1:]:
        if isinstance(carried, Quantity):
            return carried.dimension.name.partition(" ")[2].title().replace(" ", "")
    return "Number"


class Measures:
    """Annotation of a field that may be something else, but whose numbers are a quantity: what `uncertain` draws."""

    def __init__(self, quantity_type: Any) -> None:
        self.quantity_type = quantity_type


def describe(value: Any) -> str:
    """A value of a file in words, for messages."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list"
    return repr(value) if isinstance(value, str) else str(value)


def none_or(value: Any) -> str:
    """The tag of a block that may also be the word none. Tags start with "=" so that they never look like keys."""
    return "=none" if value is None or isinstance(value, str) else "=block"


class Percent:
    """Annotation of a float field between 0 and 1 that may also be written as a percentage (`30.8 %`)."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Divide percentages, then hand the float to the ordinary checks."""
        return core_schema.no_info_before_validator_function(
            self._to_float, core_schema.float_schema(allow_inf_nan=False, ge=0, le=1)
        )

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """A number from 0 to 1, or a percentage."""
        return {
            "anyOf": [{"type": "number", "minimum": 0, "maximum": 1}, {"type": "string", "pattern": r"^[\d.]+ ?%$"}]
        }

    def _to_float(self, value: Any) -> Any:
        match = re.fullmatch(r"(\d+(?:\.\d*)?|\.\d+)\s*%", value.strip()) if isinstance(value, str) else None
        return float(f"{match[1]}e-2") if match else value


Duration = Annotated[float, Quantity(quantity.DURATION)]
DataSize = Annotated[float, Quantity(quantity.DATA_SIZE)]
DataRate = Annotated[float, Quantity(quantity.DATA_RATE)]
ByteRate = Annotated[float, Quantity(quantity.BYTE_RATE)]
FlopRate = Annotated[float, Quantity(quantity.FLOP_RATE)]
MoneyPerHour = Annotated[float, Quantity(quantity.MONEY_PER_HOUR)]
MoneyPerGB = Annotated[float, Quantity(quantity.MONEY_PER_GB)]
Fraction = Annotated[float, Percent()]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(gt=0)]
NAME_PATTERN: Final = r"^[a-z0-9][a-z0-9._-]*$"
DATE_PATTERN: Final = r"^(\d{4}-\d{2}(-\d{2})?)?$"
KEY_PATTERN: Final = r"^[a-z0-9_]+(\.[a-z0-9_]+)*$"
# What each pattern asks for, for messages.
PATTERNS: Final = {
    NAME_PATTERN: "made of small letters, digits, dots, dashes and underscores, like orion-100b",
    DATE_PATTERN: "a month or a day, like 2026-06 or 2026-06-30",
    KEY_PATTERN: "a dotted key of summary.json, like mfu.in_phase",
}
Listed = Strict(False)  # noqa: FBT003 -- a list of the file becomes a tuple
