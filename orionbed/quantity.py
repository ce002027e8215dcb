"""Numbers with units: `856 Mbps`, `140.6 MiB`, `20 ms`, `312 TFLOP/s`, `$1.25/h`.

The tables are closed and case-sensitive, a unit is mandatory, and bits and bytes or SI and binary prefixes are never
guessed. Parsing is exact decimal arithmetic with one rounding at the end; printing gives text that parses back to the
same float. In Python a quantity is a plain float: seconds, bytes, bits per second, FLOP/s, USD per hour, USD per GB.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Context, Decimal
from difflib import get_close_matches


class QuantityError(ValueError):
    """A text is not a quantity of the dimension asked for; the message says what to write instead."""


@dataclass(frozen=True, slots=True)
class Dimension:
    """A closed table of units: what one of each is in the base unit, and which ones are used for printing."""

    name: str
    base: str
    units: Mapping[str, Decimal]
    shown: tuple[str, ...]
    example: str
    money: bool = False


def _scaled(prefixes: str, ending: str, one: str | int, step: int = 1000) -> dict[str, Decimal]:
    """Units of rising prefixes (separated by commas) and an ending; `one` is the first of them in base units."""
    return {prefix + ending: Decimal(one) * step**power for power, prefix in enumerate(prefixes.split(","))}


DURATION = Dimension(
    "a duration",
    "s",
    {
        "ns": Decimal("1e-9"),
        "us": Decimal("1e-6"),
        "ms": Decimal("1e-3"),
        "s": Decimal(1),
        "min": Decimal(60),
        "h": Decimal(3600),
        "d": Decimal(86400),
    },
    ("d", "h", "min", "s", "ms", "us", "ns"),
    "20 ms",
)
DATA_SIZE = Dimension(
    "an amount of data",
    "B",
    _scaled(",k,M,G,T,P", "B", 1) | _scaled("Ki,Mi,Gi,Ti,Pi", "B", 1024, 1024) | _scaled(",k,M,G,T", "bit", "0.125"),
    ("PB", "TB", "GB", "MB", "kB", "B", "TiB", "GiB", "MiB", "KiB"),
    "4 MiB",
)
DATA_RATE = Dimension(
    "a data rate",
    "bps",
    _scaled(",k,M,G,T", "bps", 1)
    | _scaled(",k,M,G,T", "bit/s", 1)
    | _scaled(",k,M,G,T", "B/s", 8)
    | _scaled("Ki,Mi,Gi,Ti", "B/s", 8 * 1024, 1024),
    ("Tbps", "Gbps", "Mbps", "kbps", "bps"),
    "856 Mbps",
)
# Memory is measured in bytes, and its rate is kept in them.
BYTE_RATE = Dimension(
    "a memory bandwidth",
    "B/s",
    _scaled(",k,M,G,T", "B/s", 1) | _scaled("Ki,Mi,Gi,Ti", "B/s", 1024, 1024),
    ("TB/s", "GB/s", "MB/s", "kB/s", "B/s"),
    "2039 GB/s",
)
FLOP_RATE = Dimension(
    "a FLOP rate",
    "FLOP/s",
    _scaled(",k,M,G,T,P,E", "FLOP/s", 1),
    ("EFLOP/s", "PFLOP/s", "TFLOP/s", "GFLOP/s", "MFLOP/s", "kFLOP/s", "FLOP/s"),
    "312 TFLOP/s",
)
MONEY_PER_HOUR = Dimension("a price per hour", "$/h", {"$/h": Decimal(1)}, ("$/h",), "$1.25/h", money=True)
MONEY_PER_GB = Dimension("a price per GB", "$/GB", {"$/GB": Decimal(1)}, ("$/GB",), "$0.09/GB", money=True)
DIMENSIONS = (DURATION, DATA_SIZE, DATA_RATE, BYTE_RATE, FLOP_RATE, MONEY_PER_HOUR, MONEY_PER_GB)

NUMBER = r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?"
_QUANTITY = re.compile(rf"(?P<money>\$\s*)?(?P<number>{NUMBER})\s*(?P<unit>.*)", re.DOTALL)
# The result of a product of two decimals of at most 40 digits each is exact in this context.
_EXACT = Context(prec=100)
_SAID_AS = {
    "ns": "nsec nanosecond nanoseconds",
    "us": "µs μs usec microsecond microseconds",
    "ms": "msec msecs millisecond milliseconds",
    "s": "sec secs second seconds",
    "min": "mins minute minutes",
    "h": "hr hrs hour hours",
    "d": "day days",
    "B": "byte bytes",
    "bit": "bits",
}
# Units in which nobody can tell bits from bytes.
_AMBIGUOUS = {
    DATA_SIZE.base: re.compile(r"([kKmMgGtTpP]?)(i?)b"),
    DATA_RATE.base: re.compile(r"([kKmMgGtTpP]?)(i?)(?:b/?s|B[pP][sS])"),
}
_ALIASES = {alias: unit for unit, aliases in _SAID_AS.items() for alias in aliases.split()}


def parse(text: str, dimension: Dimension) -> float:
    """The value of `text` in the base unit of `dimension`.

    Raises QuantityError when there is no number, no unit, an unknown unit or one of another dimension. A dollar amount
    without "per" (`$1.25`) is taken as per hour or per GB, whichever `dimension` is.
    """
    match = _QUANTITY.fullmatch(text.strip())
    if match is None:
        raise QuantityError(f"{text!r} is not {dimension.name}; write a number and a unit, like {dimension.example}")
    number, unit = match["number"], match["unit"].strip()
    if match["money"]:
        unit = "$" + unit.replace(" ", "") if unit else (dimension.base if dimension.money else "$")
    if math.isinf(float(number)):
        raise QuantityError(f"{text!r} is too large")
    if len(number) > 40:
        raise QuantityError(f"{number[:20]}... has too many digits; 17 are all that a number can hold")
    if unit not in dimension.units:
        raise QuantityError(_explain(number, unit, dimension))
    value = float(_EXACT.multiply(Decimal(number), dimension.units[unit]))
    if not math.isfinite(value):
        raise QuantityError(f"{text!r} is too large")
    return value


def show(value: float, dimension: Dimension) -> str:
    """The shortest text, in a unit a reader would choose, that `parse` turns back into exactly `value`."""
    if not math.isfinite(value):
        raise QuantityError(f"{value} is not a finite number")
    if dimension.money:
        sign, text = ("-" if value < 0 else ""), _plain(Decimal(repr(abs(value))))
        return f"${sign}{text}/{dimension.base[2:]}"
    if value == 0:
        return f"0 {dimension.base}"
    texts = [(_digits(value, dimension.units[unit]), unit) for unit in dimension.shown]
    fitting = [(_length(text), index, f"{text} {unit}") for index, (text, unit) in enumerate(texts) if text]
    return min(fitting)[2] if fitting else f"{value!r} {dimension.base}"


def without_unit(number: str, dimension: Dimension) -> str:
    """What to say about a number that has no unit."""
    if dimension.money:
        return f"{number} has no currency; write {dimension.name} like {dimension.example}"
    return f"{number} has no unit; write one of {', '.join(dimension.units)} after it, like {dimension.example}"


def _digits(value: float, unit: Decimal) -> str | None:
    """The fewest significant digits of value/unit that still give back `value`, or None when 17 are not enough."""
    ratio = Context(prec=40).divide(Decimal(repr(value)), unit)
    for precision in range(1, 18):
        rounded = Context(prec=precision).plus(ratio)
        if float(_EXACT.multiply(rounded, unit)) == value:
            return _plain(rounded)
    return None


def _plain(number: Decimal) -> str:
    """Without exponent where that stays readable."""
    exponent = number.adjusted()
    if number and not -7 <= exponent <= 15:
        return f"{number.normalize():e}"
    text = f"{number:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _length(text: str) -> int:
    """How heavy a number is to read: its characters, and a fine for more than four digits before the point."""
    whole = text.lstrip("-").partition(".")[0]
    return len(text) + 2 * max(0, len(whole) - 4) + (1 if whole == "0" else 0)


def _explain(number: str, unit: str, dimension: Dimension) -> str:
    """What is wrong with `unit`, and what to write."""
    if not unit:
        return without_unit(number, dimension)
    if unit.startswith(","):
        return f"'{number}{unit}' has a comma; write the number without separators, like {dimension.example}"
    guess = _guess(unit, dimension)
    if guess:
        return f"unknown unit {unit!r}; {guess}"
    for other in DIMENSIONS:
        if unit in other.units:
            return f"{number} {unit} is {other.name}, not {dimension.name}; write something like {dimension.example}"
    return f"unknown unit {unit!r}; write {dimension.name} in {', '.join(dimension.units)}, like {dimension.example}"


def _guess(unit: str, dimension: Dimension) -> str:
    """What was probably meant by an unknown `unit`; empty when that is anybody's guess."""
    if _ALIASES.get(unit.lower()) in dimension.units:
        return f"did you mean {_ALIASES[unit.lower()]}?"
    if unit == "m" and "min" in dimension.units:
        return "write min for minutes or ms for milliseconds"
    if dimension.money:
        return ""
    letters = _AMBIGUOUS[dimension.base].fullmatch(unit) if dimension.base in _AMBIGUOUS else None
    if letters:
        prefix, per = {"k": "k"}.get(letters[1].lower(), letters[1].upper()), "/s" if dimension is DATA_RATE else ""
        return f"it could be bits or bytes: write {prefix}bit{per} for bits, {prefix}{letters[2]}B{per} for bytes"
    folded = {known.lower(): known for known in dimension.units}
    flops = f"{unit.lower().removesuffix('/s').rstrip('s')}/s"
    near = folded.get(unit.lower()) or folded.get(flops)
    if near is None and not any(unit in other.units for other in DIMENSIONS):
        near = next(iter(get_close_matches(unit, list(dimension.units), n=1, cutoff=0.7)), None)
    return f"did you mean {near}?" if near else ""
