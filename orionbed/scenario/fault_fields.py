"""The types that the fields of a fault are made of: whom it hits, how many of them, what it changes, until when.

A fault's figures are changes of other figures: `0.1x` multiplies, `+20 ms` adds, a bare quantity replaces.
"""

import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Any, Final, Literal

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from orionbed import quantity
from orionbed.quantity import Dimension, QuantityError
from orionbed.scenario.fields import FROM_FILE, Quantity, describe, unsuitable
from orionbed.scenario.problems import did_you_mean

EVERYBODY: Final = "*"
SELECTOR_KINDS: Final = ("peer", "stage", "replica", "site", "group")
_SELECTORS: Final = "peer:s03r1, stage:5, replica:0, site:ohio, group:homes or *"
_END: Final = re.compile(r"end(?:\s*-\s*(.*))?", re.DOTALL)


def parts_of(selector: str) -> tuple[str, str]:
    """Kind and name of a selector; `*` is of the kind `*`."""
    kind, _, name = selector.partition(":")
    return kind, name


def peer_name(stage: int, replica: int) -> str:
    """What a peer is called, in selectors and everywhere else; both are counted from 0."""
    return f"s{stage:02d}r{replica}"


class SelectorText:
    """Annotation of a text field: a set of peers, in one of the forms that there are."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Check the form; whether there are such peers is checked against the other sections."""
        return core_schema.no_info_plain_validator_function(self._checked)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Text of one of the forms."""
        return {"type": "string", "pattern": rf"^(\*|({'|'.join(SELECTOR_KINDS)}):.+)$"}

    @staticmethod
    def _checked(value: Any) -> str:
        if not isinstance(value, str):
            raise unsuitable(f"must select peers, like {_SELECTORS}, not {describe(value)}")
        kind, name = parts_of(value)
        if kind == "tag" and name:
            raise unsuitable(f"scenarios have no tags to select by; write {_SELECTORS}")
        if value != EVERYBODY and (kind not in SELECTOR_KINDS or not name):
            raise unsuitable(f"must select peers, like {_SELECTORS}, not {value!r}{did_you_mean(kind, SELECTOR_KINDS)}")
        return value


class HowMany:
    """Annotation of a field: `one`, `all`, a number of peers, or a percentage (a float between 0 and 1 in Python)."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Read one of the forms; percentages are printed as such."""
        printed = core_schema.plain_serializer_function_ser_schema(self._to_text, when_used="json")
        return core_schema.no_info_plain_validator_function(self._checked, serialization=printed)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """One of two words, a whole number or a percentage."""
        number, share = {"type": "integer", "exclusiveMinimum": 0}, {"type": "string", "pattern": r"^[\d.]+ ?%$"}
        return {"anyOf": [{"enum": ["one", "all"]}, number, share]}

    @staticmethod
    def _checked(value: Any) -> str | int | float:
        if value in ("one", "all"):
            return str(value)
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value
        if isinstance(value, float) and 0 < value <= 1:  # as code writes it; files are read as the text below
            return value
        match = re.fullmatch(r"(\d+(?:\.\d*)?|\.\d+)\s*%", value.strip()) if isinstance(value, str) else None
        if match and 0 < float(match[1]) <= 100:
            return float(f"{match[1]}e-2")
        raise unsuitable(f"must be one, all, a number of peers or a percentage like 20 %, not {describe(value)}")

    @staticmethod
    def _to_text(value: str | float) -> str | int:
        return f"{(Decimal(repr(value)) * 100).normalize():f} %" if isinstance(value, float) else value


class SignedQuantity(Quantity):
    """Annotation of a float field: a quantity that may be negative, like the offset of a clock."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """As its parent, without the lower bound."""
        printed = core_schema.plain_serializer_function_ser_schema(self._to_text, when_used="json")
        number = core_schema.float_schema(allow_inf_nan=False)
        return core_schema.with_info_before_validator_function(self._to_float, number, serialization=printed)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Text: a number with or without sign, and one of the units."""
        units = "|".join(re.escape(unit) for unit in self.dimension.units)
        pattern = rf"^{quantity.NUMBER} *({units})$"
        return {"type": "string", "pattern": pattern, "x-dimension": self.dimension.name}


@dataclass(frozen=True, slots=True)
class Change:
    """What a fault does to a figure: it multiplies it, adds to it, or replaces it."""

    how: Literal["times", "plus", "set"]
    value: float


class ChangeOf:
    """Annotation of a Change: of which dimension, and whether it may multiply (`0.1x`) or add (`+20 ms`)."""

    def __init__(self, dimension: Dimension, relative: Literal["times", "plus"]) -> None:
        self.dimension = dimension
        self.relative = relative

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Read text in one of the two forms that are allowed."""
        printed = core_schema.plain_serializer_function_ser_schema(self._to_text, when_used="json")
        return core_schema.with_info_plain_validator_function(self._checked, serialization=printed)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Text: a quantity, or a factor, or a quantity with a plus."""
        units, number = "|".join(map(re.escape, self.dimension.units)), quantity.NUMBER.removeprefix("[+-]?")
        relative = rf"^{number}x$" if self.relative == "times" else rf"^\+{number} *({units})$"
        bare = {"type": "string", "pattern": rf"^{number} *({units})$", "x-dimension": self.dimension.name}
        return {"anyOf": [bare, {"type": "string", "pattern": relative}]}

    def _checked(self, value: Any, info: core_schema.ValidationInfo) -> Change:
        if isinstance(value, Change):
            return value
        relative = "a factor like 0.1x" if self.relative == "times" else f"+{self.dimension.example} to add"
        said = f"must be {self.dimension.name} like {self.dimension.example}, or {relative}"
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if is_number and info.context != FROM_FILE:
            return self._positive(Change("set", float(value)), value)
        if not isinstance(value, str):
            raise unsuitable(f"{said}, not {describe(value)}")
        text = value.strip()
        if self.relative == "times" and re.fullmatch(rf"{quantity.NUMBER}\s*x", text):
            return self._positive(Change("times", float(text[:-1])), value)
        try:
            number = quantity.parse(text, self.dimension)
        except QuantityError as error:
            raise unsuitable(f"{error}; it {said}") from None
        adds = self.relative == "plus" and text.startswith("+")
        return self._positive(Change("plus" if adds else "set", number), value)

    def _positive(self, change: Change, value: Any) -> Change:
        """A capacity of nothing would be a partition under another name, and a delay cannot be negative."""
        if change.value < 0 or (change.value == 0 and self.relative == "times"):
            hint = "; use kind partition to cut a link" if self.relative == "times" else ""
            bound = "greater than 0" if self.relative == "times" else "at least 0"
            raise unsuitable(f"must be {bound}, not {describe(value)}{hint}")
        return change

    def _to_text(self, change: Change) -> str:
        if change.how == "times":
            return f"{change.value!r}x"
        return ("+" if change.how == "plus" else "") + quantity.show(change.value, self.dimension)


@dataclass(frozen=True, slots=True)
class Instant:
    """A time of the run: so many seconds after its start, or before its end."""

    offset_s: float
    before_end: bool = False


class InstantText:
    """Annotation of an Instant: `2 h`, `end`, or `end-60s`."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Read text; code may give the Instant, or seconds."""
        printed = core_schema.plain_serializer_function_ser_schema(self._to_text, when_used="json")
        return core_schema.with_info_plain_validator_function(self._checked, serialization=printed)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Text: a duration, or `end` with or without a duration taken off."""
        units, number = "|".join(quantity.DURATION.units), quantity.NUMBER.removeprefix("[+-]?")
        return {"type": "string", "pattern": rf"^(end|(end *- *)?{number} *({units}))$"}

    @staticmethod
    def _checked(value: Any, info: core_schema.ValidationInfo) -> Instant:
        if isinstance(value, Instant):
            return value
        if isinstance(value, int | float) and not isinstance(value, bool) and info.context != FROM_FILE and value >= 0:
            return Instant(float(value))
        if not isinstance(value, str):
            raise unsuitable(f"must be a time of the run like 2 h, or end-60s, not {describe(value)}")
        match = _END.fullmatch(value.strip())
        text = value if match is None else match[1]
        try:
            offset = 0.0 if text is None else quantity.parse(text, quantity.DURATION)
        except QuantityError as error:
            raise unsuitable(f"{error}; it must be a time of the run like 2 h, or end-60s") from None
        if offset < 0:
            raise unsuitable(f"must be at least 0, not {value!r}")
        return Instant(offset, match is not None)

    @staticmethod
    def _to_text(instant: Instant) -> str:
        text = quantity.show(instant.offset_s, quantity.DURATION)
        if not instant.before_end:
            return text
        return f"end-{text}" if instant.offset_s else "end"


Selector = Annotated[str, SelectorText()]
PickNumber = Annotated[str | int | float, HowMany()]
SignedDuration = Annotated[float, SignedQuantity(quantity.DURATION)]
RateChange = Annotated[Change, ChangeOf(quantity.DATA_RATE, "times")]
DelayChange = Annotated[Change, ChangeOf(quantity.DURATION, "plus")]
RunInstant = Annotated[Instant, InstantText()]
