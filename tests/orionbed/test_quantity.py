"""Quantities: parsing, refusing, printing."""

import math
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orionbed.quantity import (
    BYTE_RATE,
    DATA_RATE,
    DATA_SIZE,
    DIMENSIONS,
    DURATION,
    FLOP_RATE,
    MONEY_PER_GB,
    MONEY_PER_HOUR,
    QuantityError,
    parse,
    show,
)


@pytest.mark.parametrize(
    ("text", "dimension", "value"),
    [
        ("856 Mbps", DATA_RATE, 856e6),
        ("856Mbps", DATA_RATE, 856e6),
        ("  856   Mbit/s ", DATA_RATE, 856e6),
        ("1.322 Gbps", DATA_RATE, 1322e6),
        ("107 MB/s", DATA_RATE, 856e6),
        ("1 MiB/s", DATA_RATE, 8 * 1024**2),
        ("25 GB/s", DATA_RATE, 200e9),
        ("2039 GB/s", BYTE_RATE, 2039e9),
        ("140.625 MiB", DATA_SIZE, 147_456_000),
        ("4 MiB", DATA_SIZE, 4 * 1024**2),
        ("80 GB", DATA_SIZE, 80e9),
        ("8 kbit", DATA_SIZE, 1000),
        ("1 bit", DATA_SIZE, 0.125),
        ("20 ms", DURATION, 0.020),
        ("0.25 ms", DURATION, 0.00025),
        ("1e-3 s", DURATION, 0.001),
        ("57 min", DURATION, 3420),
        ("1.5 h", DURATION, 5400),
        ("2 d", DURATION, 172800),
        ("0 s", DURATION, 0),
        ("312 TFLOP/s", FLOP_RATE, 312e12),
        ("0.312 PFLOP/s", FLOP_RATE, 312e12),
        ("$1.25/h", MONEY_PER_HOUR, 1.25),
        ("$1.25", MONEY_PER_HOUR, 1.25),
        ("$ 1.25 / h", MONEY_PER_HOUR, 1.25),
        ("1.25 $/h", MONEY_PER_HOUR, 1.25),
        ("$0.09/GB", MONEY_PER_GB, 0.09),
        ("$0.09", MONEY_PER_GB, 0.09),
    ],
)
def test_parse(text, dimension, value):
    assert parse(text, dimension) == value


@pytest.mark.parametrize(
    ("text", "dimension", "said"),
    [
        ("856", DATA_RATE, "no unit; write one of bps, kbps, Mbps"),
        ("0", DURATION, "no unit; write one of ns, us, ms, s, min, h, d"),
        ("1.25", MONEY_PER_HOUR, "no currency; write a price per hour like $1.25/h"),
        ("856 mbps", DATA_RATE, "did you mean Mbps?"),
        ("856 gbit/s", DATA_RATE, "did you mean Gbit/s?"),
        ("10 Mb/s", DATA_RATE, "bits or bytes: write Mbit/s for bits, MB/s for bytes"),
        ("10 MBps", DATA_RATE, "bits or bytes"),
        ("10 Gbs", DATA_RATE, "bits or bytes"),
        ("4 Mb", DATA_SIZE, "bits or bytes: write Mbit for bits, MB for bytes"),
        ("4 gb", DATA_SIZE, "bits or bytes"),
        ("4 mib", DATA_SIZE, "write Mbit for bits, MiB for bytes"),
        ("4 KB", DATA_SIZE, "did you mean kB?"),
        ("4 bytes", DATA_SIZE, "did you mean B?"),
        ("4 MB", DATA_RATE, "did you mean MB/s?"),
        ("20 msec", DURATION, "did you mean ms?"),
        ("20 µs", DURATION, "did you mean us?"),
        ("5 hours", DURATION, "did you mean h?"),
        ("5 m", DURATION, "write min for minutes or ms for milliseconds"),
        ("20 parsec", DURATION, "write a duration in ns, us, ms, s, min, h, d"),
        ("20 ms", DATA_RATE, "is a duration, not a data rate; write something like 856 Mbps"),
        ("5 Gbps", BYTE_RATE, "is a data rate, not a memory bandwidth"),
        ("312 TFLOPS", FLOP_RATE, "did you mean TFLOP/s?"),
        ("312 tflop", FLOP_RATE, "did you mean TFLOP/s?"),
        ("$30/d", MONEY_PER_HOUR, "write a price per hour in $/h"),
        ("$0.09/GB", MONEY_PER_HOUR, "is a price per GB, not a price per hour"),
        ("$5", DATA_RATE, "unknown unit '$'"),
        ("1,322 Mbps", DATA_RATE, "without separators"),
        ("fast", DURATION, "is not a duration; write a number and a unit, like 20 ms"),
        ("", DURATION, "is not a duration"),
        ("nan s", DURATION, "is not a duration"),
        ("1e999 s", DURATION, "too large"),
        ("1e999999999 s", DURATION, "too large"),
        ("1e308 d", DURATION, "too large"),
        ("1" * 60 + " s", DURATION, "too many digits"),
    ],
)
def test_refuse(text, dimension, said):
    with pytest.raises(QuantityError) as error:
        parse(text, dimension)
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("value", "dimension", "text"),
    [
        (856e6, DATA_RATE, "856 Mbps"),
        (1322e6, DATA_RATE, "1322 Mbps"),
        (2039e9, BYTE_RATE, "2039 GB/s"),
        (80e9, DATA_SIZE, "80 GB"),
        (80 * 1024**3, DATA_SIZE, "80 GiB"),
        (4 * 1024**2, DATA_SIZE, "4 MiB"),
        (0.00025, DURATION, "250 us"),
        (3420, DURATION, "57 min"),
        (5400, DURATION, "90 min"),
        (7200, DURATION, "2 h"),
        (86400, DURATION, "1 d"),
        (200 * 3600, DURATION, "200 h"),
        (0, DURATION, "0 s"),
        (312e12, FLOP_RATE, "312 TFLOP/s"),
        (1.25, MONEY_PER_HOUR, "$1.25/h"),
        (0, MONEY_PER_GB, "$0/GB"),
        (0.09, MONEY_PER_GB, "$0.09/GB"),
    ],
)
def test_show(value, dimension, text):
    assert show(value, dimension) == text


@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_show_refuses_what_is_no_number(value):
    with pytest.raises(QuantityError, match="not a finite number"):
        show(value, DURATION)


@settings(deadline=None)
@given(st.sampled_from(DIMENSIONS), st.floats(allow_nan=False, allow_infinity=False))
def test_printing_parses_back_to_the_same_float(dimension, value):
    text = show(value, dimension)
    if text.startswith("-$"):  # no price is negative; the text is for messages only
        return
    assert parse(text, dimension) == value


@settings(deadline=None)
@given(st.data(), st.sampled_from(DIMENSIONS), st.decimals(0, 10**9, allow_nan=False, places=6))
def test_parsing_is_exact_to_the_last_bit(data, dimension, number):
    unit = data.draw(st.sampled_from(list(dimension.units)))
    assert parse(f"{number} {unit}", dimension) == float(Decimal(number) * dimension.units[unit])


@settings(deadline=None)
@given(st.sampled_from(DIMENSIONS), st.text(max_size=20))
def test_any_text_is_parsed_or_refused(dimension, text):
    try:
        value = parse(text, dimension)
    except QuantityError as error:
        assert str(error)  # noqa: PT017 -- either outcome is fine, silence is not
    else:
        assert math.isfinite(value)


def test_no_unit_means_two_things():
    seen = {}
    for dimension in DIMENSIONS:
        if dimension is BYTE_RATE:  # the only one that shares its units, with data rates of the same meaning
            continue
        for unit in dimension.units:
            assert unit not in seen, f"{unit} is in {dimension.name} and {seen[unit]}"
            seen[unit] = dimension.name
