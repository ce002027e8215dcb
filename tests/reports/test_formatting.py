import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reports import formatting as fmt


@pytest.mark.parametrize(
    ("printer", "value", "text"),
    [
        (fmt.percent, 0.308, "30.8 %"),
        (fmt.percent, 1.0, "100.0 %"),
        (fmt.percent, 0.0, "0 %"),
        (fmt.percent, 0.0004, "<0.1 %"),
        (fmt.percent, -0.0004, ">−0.1 %"),
        (fmt.percent, -0.123, "−12.3 %"),
        (fmt.signed_percent, 0.0188, "+1.9 %"),
        (fmt.signed_percent, -0.012, "−1.2 %"),
        (fmt.signed_percent, 0.0, "±0 %"),
        (fmt.points, -0.042, "−4.2 points"),
        (fmt.points, 0.0, "±0.0 points"),
        (fmt.number, 7717.0, "7,717"),
        (fmt.number, 23.0144, "23.01"),
        (fmt.number, 0.05, "0.05"),
        (fmt.number, -3, "−3"),
        (fmt.data, 2_304_000, "2.30 MB"),
        (fmt.data, 147_456_000, "147 MB"),
        (fmt.data, 9.5e12, "9.50 TB"),
        (fmt.data, 999_999, "1.00 MB"),
        (fmt.data, 0, "0 B"),
        (fmt.rate, 856e6, "856 Mbit/s"),
        (fmt.rate, 1.322e9, "1.32 Gbit/s"),
        (fmt.rate, 2e13, "20,000 Gbit/s"),
        (fmt.flops, 312e12, "312 TFLOP/s"),
        (fmt.count, 99_615_863_808, "99.6 B"),
        (fmt.count, 1_100_000_000, "1.10 B"),
        (fmt.count, 137_500, "137,500"),
        (fmt.money, 1.85, "$1.85"),
        (fmt.money, 2376.4, "$2,376"),
        (fmt.money, 0.0, "$0"),
        (fmt.money, 0.00412, "$0.0041"),
        (fmt.money, -2.5, "−$2.50"),
        (fmt.duration, 142_560.0, "39.6 h"),
        (fmt.duration, 21_600.0, "6 h"),
        (fmt.duration, 3600.0, "60 min"),
        (fmt.duration, 0.02, "20 ms"),
        (fmt.duration, 5e-6, "5 µs"),
        (fmt.duration, 0.0, "0 s"),
        (fmt.duration, 864_000.0, "10 days"),
    ],
)
def test_numbers_read_as_people_write_them(printer: Callable[[float], str], value: float, text: str) -> None:
    assert printer(value).replace("\u00a0", " ") == text


@pytest.mark.parametrize(
    "printer",
    [
        *[fmt.percent, fmt.signed_percent, fmt.points, fmt.number, fmt.data, fmt.rate, fmt.flops, fmt.count, fmt.money],
        fmt.duration,
    ],
)
def test_what_is_not_a_number_is_a_dash(printer: Callable[[float | None], str]) -> None:
    for absent in (None, math.nan, math.inf):
        assert printer(absent) == fmt.ABSENT
    assert printer(np.float64(1.5)) == printer(1.5)


@given(st.floats(-1e15, 1e15))
def test_every_number_prints_with_at_least_two_right_digits(value: float) -> None:
    text = fmt.number(value).replace("−", "-").replace(",", "")
    assert math.isclose(float(text), value, rel_tol=1e-2, abs_tol=1e-300)


def test_a_rate_of_something_counted_has_its_unit() -> None:
    assert fmt.per_second(7717.3, "tok") == "7,717\u00a0tok/s"
    assert fmt.per_second(971.8, "tok") == "972\u00a0tok/s"
    assert fmt.per_second(None, "tok") == fmt.ABSENT
