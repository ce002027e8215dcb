"""Numbers as a reader wants them: `30.8 %`, `7,717 tok/s`, `$1.85`, `2.30 MB`, `856 Mbit/s`, `39.6 h`.

Every function takes SI (fractions, seconds, bytes, bit/s, USD) and answers an en dash for a number that is not there.
"""

from __future__ import annotations

import math
from typing import Final, TypeGuard

ABSENT: Final = "–"
_SPACE: Final = "\u00a0"
_MINUS: Final = "\u2212"
_SI: Final = ("", "k", "M", "G", "T", "P", "E")


def percent(fraction: float | None, digits: int = 1) -> str:
    """Return a fraction as per cent; what is not nought but would print as nought reads `<0.1 %`."""
    if not _is_number(fraction):
        return ABSENT
    value = fraction * 100
    if value == 0:
        return f"0{_SPACE}%"
    least = 10.0**-digits
    if 0 < abs(value) < least / 2:
        return f"{'<' if value > 0 else '>' + _MINUS}{least:.{digits}f}{_SPACE}%"
    return f"{_signless(value, digits)}{_SPACE}%"


def signed_percent(fraction: float | None, digits: int = 1) -> str:
    """Return a relative difference with its sign."""
    if not _is_number(fraction):
        return ABSENT
    return _sign(fraction * 100, digits) + percent(abs(fraction), digits)


def points(fraction: float | None, digits: int = 1) -> str:
    """Return a difference of two fractions in percentage points, with its sign."""
    if not _is_number(fraction):
        return ABSENT
    value = abs(fraction * 100)
    return f"{_sign(fraction * 100, digits)}{value:.{digits}f}{_SPACE}points"


def number(value: float | None, digits: int | None = None) -> str:
    """Return a plain number with thousands separators, to `digits` decimals or about four significant digits."""
    if not _is_number(value):
        return ABSENT
    if digits is not None:
        return _signless(value, digits)
    digits = 0 if float(value).is_integer() or abs(value) >= 1000 else _decimals(value, 4)
    return _trimmed(_signless(value, digits))


def per_second(value: float | None, unit: str) -> str:
    """Return a rate of something counted: `7,717 tok/s`."""
    if not _is_number(value):
        return ABSENT
    return f"{number(value, 0 if abs(value) >= 100 else None)}{_SPACE}{unit}/s"


def data(num_bytes: float | None) -> str:
    """Return an amount of data in SI units."""
    return _scaled(num_bytes, "B")


def rate(bits_per_second: float | None) -> str:
    """Return a data rate in bits per second."""
    return _scaled(bits_per_second, "bit/s", largest="G")


def flops(value: float | None, unit: str = "FLOP/s") -> str:
    """Return a number or a rate of floating-point operations."""
    return _scaled(value, unit)


def count(value: float | None) -> str:
    """Return a large count in words of thousands: `99.6 B` parameters, `1.10 B` tokens, `139 k`, `512`."""
    if not _is_number(value):
        return ABSENT
    for size, name in ((1e12, "T"), (1e9, "B"), (1e6, "M")):
        if abs(value) >= size:
            return f"{_significant(value / size)}{_SPACE}{name}"
    return number(value, 0)


def money(usd: float | None) -> str:
    """Return dollars: cents up to a hundred, whole dollars above, two significant digits under a cent."""
    if not _is_number(usd):
        return ABSENT
    size = abs(usd)
    digits = 0 if size >= 100 or size == 0 else 2 if size >= 0.01 else _decimals(size, 2)
    return f"{_MINUS if usd < 0 else ''}${size:,.{digits}f}"


def duration(seconds: float | None) -> str:
    """Return a length of time in its own natural unit; hours up to four days, days from there."""
    if not _is_number(seconds):
        return ABSENT
    size = abs(seconds)
    for limit, unit, name in ((1e-3, 1e-6, "µs"), (1.0, 1e-3, "ms"), (120.0, 1.0, "s"), (7200.0, 60.0, "min")):
        if size < limit:
            return f"{_trimmed(_significant(seconds / unit))}{_SPACE}{name}" if size else f"0{_SPACE}s"
    if size < 96 * 3600:
        return f"{_trimmed(_significant(seconds / 3600))}{_SPACE}h"
    return f"{_trimmed(_significant(seconds / 86400))}{_SPACE}days"


def milliseconds(seconds: float | None) -> str:
    """Return a time in ms whatever its size, so that a column of them can be read down."""
    if not _is_number(seconds):
        return ABSENT
    value = seconds * 1e3
    return f"{number(value, 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2)}{_SPACE}ms"


def _scaled(value: float | None, unit: str, largest: str = "E") -> str:
    if not _is_number(value):
        return ABSENT
    top = _SI.index(largest)
    power = 0 if value == 0 else min(max(math.floor(math.log10(abs(value)) / 3), 0), top)
    if power < top and float(f"{abs(value) / 1000**power:.3g}") >= 1000:
        power += 1
    return f"{_significant(value / 1000**power)}{_SPACE}{_SI[power]}{unit}"


def _significant(value: float) -> str:
    return _signless(value, _decimals(value, 3))


def _decimals(value: float, significant: int) -> int:
    if value == 0:
        return 0
    return max(0, significant - 1 - math.floor(math.log10(abs(float(f"{value:.{significant - 1}e}")))))


def _trimmed(text: str) -> str:
    return text.rstrip("0").rstrip(".") if "." in text else text


def _signless(value: float, digits: int) -> str:
    """Print without a sign on what rounds to nought, and with a real minus sign elsewhere."""
    text = f"{abs(value):,.{digits}f}"
    return _MINUS + text if value < 0 and float(text.replace(",", "")) else text


def _sign(value: float, digits: int) -> str:
    return "±" if round(value, digits) == 0 else "+" if value > 0 else _MINUS


def _is_number(value: float | None) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
