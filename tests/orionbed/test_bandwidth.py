from math import exp, inf
from pathlib import Path

import numpy as np
import pytest

from orionbed.bandwidth import PRESETS, STEP_S, Excursions, Variability, VaryingRate, draw_links, varying_links
from orionbed.bandwidth_trace import read_trace, record, replay, write_trace
from orionbed.streams import Streams

DAY_S = 86400.0
CALM = {name: Variability(v.sigma, v.tau_s, 0.0, 0.0) for name, v in PRESETS.items() if v is not None}


class Lognormal:
    def __init__(self, median, sigma):
        self.median = median
        self.sigma = sigma

    def sample(self, rng, size):
        return self.median * np.exp(self.sigma * rng.standard_normal(size))


class Choice:
    def __init__(self, *values):
        self.values = values

    def sample(self, rng, size):
        return rng.choice(self.values, size)


def rates(profile, duration_s):
    return np.array([rate for _, rate in record(profile, duration_s)])


def link(variability, seed=0, base=100.0):
    return varying_links(variability, [base], [base], Streams(seed))(0, "up")


def test_drawn_links_have_the_given_median_spread_and_correlation():
    up, down = draw_links(20_000, Lognormal(856e6, 0.35), Lognormal(1322e6, 0.30), 0.5, np.random.default_rng(1))
    assert np.median(up) == pytest.approx(856e6, rel=0.03)
    assert np.median(down) == pytest.approx(1322e6, rel=0.03)
    assert np.std(np.log(up)) == pytest.approx(0.35, rel=0.05)
    assert np.std(np.log(down)) == pytest.approx(0.30, rel=0.05)
    assert np.corrcoef(np.log(up), np.log(down))[0, 1] == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize("correlation", [-1.0, 0.0, 1.0])
def test_links_of_any_distribution_are_paired(correlation):
    up, down = draw_links(2000, Choice(1.0, 2.0), Lognormal(5.0, 1.0), correlation, np.random.default_rng(1))
    assert set(up) == {1.0, 2.0}
    difference = np.median(down[up == 2.0]) - np.median(down[up == 1.0])
    assert np.sign(difference) == correlation or abs(difference) < 1.0


def test_no_peers_no_links():
    up, down = draw_links(0, Choice(1.0), Choice(1.0), 0.5, np.random.default_rng(1))
    assert up.shape == down.shape == (0,)


@pytest.mark.parametrize("name", CALM)
def test_a_rate_varies_as_its_preset_says(name):
    variability = CALM[name]
    logs = np.log(np.concatenate([rates(link(variability, seed), 20 * DAY_S) for seed in range(3)]) / 100.0)
    assert exp(np.median(logs)) == pytest.approx(exp(-(variability.sigma**2) / 2), rel=0.03)
    assert np.std(logs) == pytest.approx(variability.sigma, rel=0.05)
    one = np.log(rates(link(variability), 20 * DAY_S))
    assert np.corrcoef(one[1:], one[:-1])[0, 1] == pytest.approx(exp(-STEP_S / variability.tau_s), abs=0.03)


def test_the_mean_rate_is_the_drawn_one():
    assert np.mean(rates(link(CALM["bad"]), 40 * DAY_S)) == pytest.approx(100.0, rel=0.02)


def test_rates_follow_the_day():
    by_hour = rates(link(Variability(0.0, 60.0, 0.3, 0.0)), DAY_S)
    assert by_hour[0] == pytest.approx(85.0)
    assert by_hour[len(by_hour) // 4] == pytest.approx(70.0)
    assert by_hour[3 * len(by_hour) // 4] == pytest.approx(100.0)


def test_excursions_come_once_a_day_and_take_both_directions():
    profile = varying_links(Variability(0.0, 60.0, 0.0), [100.0], [200.0], Streams(2))
    up, down = rates(profile(0, "up"), 100 * DAY_S), rates(profile(0, "down"), 100 * DAY_S)
    assert np.allclose(down, 2 * up)
    hit = up < 99.999
    starts = np.count_nonzero(hit[1:] & ~hit[:-1])
    assert starts == pytest.approx(100, abs=30)
    # Lognormal with a median of 60 s lasts 99 s on average, and a quarter of the rate is left on average.
    assert np.sum(100.0 - up) * STEP_S / 100 == pytest.approx(75.0 * 60.0 * exp(0.5), rel=0.3)
    assert up.min() < 50.0


def test_an_excursion_counts_by_its_share_of_a_step():
    excursions = Excursions(Variability(0.0, 60.0, 0.0), np.random.default_rng(0))
    excursions._drawn_to_s = inf
    excursions._all = [(15.0, 32.5, 0.2)]
    assert excursions.shares(0.0, 5).tolist() == pytest.approx([1.0, 0.6, 0.2, 0.8, 1.0])
    assert excursions.shares(20.0, 2).tolist() == pytest.approx([0.2, 0.8])


def test_the_same_seed_gives_the_same_trace_however_it_is_asked():
    cloud = PRESETS["cloud"]
    assert np.array_equal(rates(link(cloud, 5), DAY_S), rates(link(cloud, 5), DAY_S))
    assert not np.array_equal(rates(link(cloud, 5), DAY_S), rates(link(cloud, 6), DAY_S))
    dense, sparse = link(cloud, 5), link(cloud, 5)
    known = rates(dense, DAY_S)
    for step in (0, 3, 1023, 1024, 5000, 8639):
        rate, until_s = sparse(step * STEP_S + 9.99)
        assert rate == known[step]
        assert until_s == (step + 1) * STEP_S


def test_one_link_does_not_move_another():
    streams = Streams(1)
    alone = rates(varying_links(PRESETS["shared"], [1.0] * 2, [1.0] * 2, Streams(1))(1, "down"), DAY_S)
    profile = varying_links(PRESETS["shared"], [1.0] * 2, [1.0] * 2, streams)
    rates(profile(0, "up"), DAY_S)
    rates(profile(1, "up"), DAY_S)
    assert np.array_equal(rates(profile(1, "down"), DAY_S), alone)


def test_time_does_not_run_backwards():
    profile = link(PRESETS["cloud"])
    profile(50_000.0)
    with pytest.raises(ValueError, match="in order"):
        profile(10.0)


def test_a_constant_rate_needs_no_process():
    assert PRESETS["constant"] is None
    assert set(PRESETS) == {"constant", "shaped", "cloud", "shared", "bad"}


def test_a_trace_survives_its_file(tmp_path):
    profile = varying_links(PRESETS["bad"], [1e8 / 3], [2e8], Streams(4))
    trace = {("p0", way): record(profile(0, way), 3600.0, 8.0) for way in ("up", "down")}
    path = tmp_path / "trace.csv"
    write_trace(path, trace)
    again = read_trace(path)
    assert again == trace
    write_trace(tmp_path / "again.csv", again)
    assert (tmp_path / "again.csv").read_bytes() == path.read_bytes()
    replayed = replay(again, "p0", "up", 1 / 8)
    fresh = varying_links(PRESETS["bad"], [1e8 / 3], [2e8], Streams(4))(0, "up")
    for time_s in np.arange(0.0, 3590.0, 3.0):
        assert replayed(time_s) == fresh(time_s)
    assert replayed(3595.0)[1] == inf
    assert replay(again, "p1", "up") is None


def test_a_trace_holds_before_its_first_and_after_its_last_row(tmp_path):
    path = tmp_path / "trace.csv"
    path.write_text("t,peer,dir,bps\n5,a,up,80\n9,a,up,70\n9,a,up,40\n")
    profile = replay(read_trace(path), "a", "up", 1 / 8)
    assert profile(0.0) == (10.0, 9.0)
    assert profile(8.9) == (10.0, 9.0)
    assert profile(9.0) == (5.0, inf)


@pytest.mark.parametrize(
    ("text", "line", "hint"),
    [
        ("", 1, "first line"),
        ("t,peer,bps\n", 1, "t,peer,dir,bps"),
        ("t,peer,dir,bps\n0,a,up\n", 2, "3 columns"),
        ("t,peer,dir,bps\n0,a,up,1\nx,a,up,1\n", 3, "t must be a number"),
        ("t,peer,dir,bps\n0,a,up,-1\n", 2, "bps must be"),
        ("t,peer,dir,bps\n0,a,up,nan\n", 2, "bps must be"),
        ("t,peer,dir,bps\n0,a,sideways,1\n", 2, "up or down"),
        ("t,peer,dir,bps\n5,a,up,1\n4,a,up,1\n", 3, "back in time"),
    ],
)
def test_a_wrong_trace_is_refused_with_its_line(tmp_path, text, line, hint):
    path = Path(tmp_path / "trace.csv")
    path.write_text(text)
    with pytest.raises(ValueError, match=f"trace.csv:{line}: .*{hint}"):
        read_trace(path)


def test_a_rate_is_drawn_block_by_block():
    rng = np.random.default_rng(0)
    rate = VaryingRate(1.0, CALM["cloud"], rng, Excursions(CALM["cloud"], rng))
    before = rng.bit_generator.state["state"]
    rate(0.0)
    after = rng.bit_generator.state["state"]
    rate(5000.0)
    assert before != after == rng.bit_generator.state["state"]
