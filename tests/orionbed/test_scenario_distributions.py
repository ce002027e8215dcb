"""Distributions of quantities."""

import math
from typing import Annotated

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from orionbed.quantity import DATA_RATE, DURATION
from orionbed.scenario.distributions import Distribution, Lognormal, NumberDist, Of, RateDist
from orionbed.scenario.fields import FROM_FILE, DataRate, Quantity

RATE = TypeAdapter(RateDist)
NUMBER = TypeAdapter(NumberDist)
WRITTEN = [
    "856 Mbps",
    {"dist": "uniform", "low": "1 Mbps", "high": "3 Mbps"},
    {"dist": "normal", "mean": "2 Mbps", "sd": "200 kbps"},
    {"dist": "lognormal", "median": "856 Mbps", "sigma": 0.35},
    {"dist": "exponential", "mean": "2 Mbps"},
    {"dist": "weibull", "shape": 0.67, "scale": "2 Mbps"},
    {"dist": "choice", "values": ["1 Mbps", "2 Mbps", "4 Mbps"]},
]


def read(written, adapter=RATE) -> Distribution:
    return adapter.validate_python(written, context=FROM_FILE)


@pytest.mark.parametrize("written", WRITTEN)
def test_what_is_read_prints_itself_back(written):
    found = read(written)
    assert RATE.dump_python(found, mode="json") == written
    assert read(RATE.dump_python(found, mode="json")) == found
    assert found.kind == (written["dist"] if isinstance(written, dict) else "constant")


@pytest.mark.parametrize("written", WRITTEN)
def test_half_of_the_draws_are_below_the_median(written):
    found = read(written)
    draws = found.sample(np.random.default_rng(1), 40_000)
    assert draws.shape == (40_000,)
    assert draws.dtype == np.float64
    assert (draws > 0).all()
    if found.kind in {"constant", "choice"}:
        assert np.median(draws) == found.median
    else:
        assert (draws < found.median).mean() == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("written", WRITTEN)
def test_scaling_scales_every_draw(written):
    found = read(written)
    twice = found.scaled(2.5)
    a, b = (one.sample(np.random.default_rng(3), 1000) for one in (found, twice))
    assert b == pytest.approx(2.5 * a, rel=1e-12)
    assert twice.median == pytest.approx(2.5 * found.median)
    assert twice.kind == found.kind


@pytest.mark.parametrize("written", WRITTEN)
def test_the_same_generator_draws_the_same(written):
    a, b = (read(written).sample(np.random.default_rng(7), 100) for _ in range(2))
    assert (a == b).all()


@pytest.mark.parametrize(
    ("written", "mean", "sd"),
    [
        (WRITTEN[1], 2e6, 2e6 / math.sqrt(12)),
        (WRITTEN[2], 2e6, 2e5),
        (WRITTEN[3], 856e6 * math.exp(0.35**2 / 2), 856e6 * math.exp(0.35**2 / 2) * math.sqrt(math.expm1(0.35**2))),
        (WRITTEN[4], 2e6, 2e6),
        (
            WRITTEN[5],
            2e6 * math.gamma(1 + 1 / 0.67),
            2e6 * math.sqrt(math.gamma(1 + 2 / 0.67) - math.gamma(1 + 1 / 0.67) ** 2),
        ),
    ],
)
def test_moments(written, mean, sd):
    draws = read(written).sample(np.random.default_rng(5), 200_000)
    assert draws.mean() == pytest.approx(mean, rel=0.02)
    assert draws.std() == pytest.approx(sd, rel=0.03)


def test_the_90th_percentile_gives_sigma():
    found = read({"dist": "lognormal", "median": "856 Mbps", "p90": "1.2 Gbps"})
    assert isinstance(found, Lognormal)
    draws = found.sample(np.random.default_rng(0), 200_000)
    assert (draws < 1.2e9).mean() == pytest.approx(0.9, abs=0.005)
    assert RATE.dump_python(found, mode="json") == {"dist": "lognormal", "median": "856 Mbps", "sigma": found.sigma}
    assert read(RATE.dump_python(found, mode="json")) == found


def test_normal_draws_are_never_negative():
    draws = read({"dist": "normal", "mean": "1 Mbps", "sd": "2 Mbps"}).sample(np.random.default_rng(0), 10_000)
    assert (draws > 0).all()


def test_the_short_form_of_a_choice():
    found = read({"choice": ["1 Mbps", "2 Mbps"]})
    assert found.kind == "choice"
    assert set(found.sample(np.random.default_rng(0), 100)) == {1e6, 2e6}


def test_numbers_have_no_unit():
    assert read({"dist": "lognormal", "median": 1, "sigma": 0.03}, NUMBER).median == 1.0
    assert read(1, NUMBER).median == 1.0
    with pytest.raises(ValidationError):
        read("1 s", NUMBER)


def test_code_may_give_si_numbers():
    assert RATE.validate_python(5e6).median == 5e6
    assert RATE.validate_python({"dist": "exponential", "mean": 2e6}).median == pytest.approx(2e6 * math.log(2))
    made = Lognormal[DataRate](dist="lognormal", median=3e6, sigma=0.1)
    assert RATE.validate_python(made) is made
    with pytest.raises(ValidationError, match="has no unit"):
        read(5e6)


@pytest.mark.parametrize(
    ("written", "positive"),
    [
        (0, False),
        (1, True),
        ({"dist": "uniform", "low": 0, "high": 1}, False),
        ({"dist": "uniform", "low": 1, "high": 1}, True),
        ({"choice": [0, 1]}, False),
        ({"dist": "exponential", "mean": 1}, True),
    ],
)
def test_positive(written, positive):
    assert read(written, NUMBER).positive is positive


def test_frozen():
    with pytest.raises(ValidationError, match="frozen"):
        read("1 Mbps").value = 3


@settings(deadline=None)
@given(st.sampled_from([DATA_RATE, DURATION]), st.floats(1e-6, 1e15), st.floats(0, 5))
def test_any_lognormal_survives_printing(dimension, median, sigma):
    adapter = TypeAdapter(Of.annotation(Annotated[float, Quantity(dimension)]))
    found = adapter.validate_python({"dist": "lognormal", "median": median, "sigma": sigma})
    assert adapter.validate_python(adapter.dump_python(found, mode="json"), context=FROM_FILE) == found
