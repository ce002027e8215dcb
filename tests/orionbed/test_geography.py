import numpy as np
import pytest

from orionbed import geography

FIVE = ["virginia", "ohio", "iowa", "oregon", "california"]


def test_delays_between_the_five_sites():
    delays = geography.one_way_delays("us-metros", FIVE)
    rtt_ms = 2e3 * delays
    assert np.allclose(np.diag(rtt_ms), 0.5)
    assert np.allclose(
        rtt_ms - np.diag(np.diag(rtt_ms)),
        [[0, 12, 27, 66, 66], [12, 0, 25, 63, 58], [27, 25, 0, 35, 51], [66, 63, 35, 0, 22], [66, 58, 51, 22, 0]],
    )


def test_the_table_is_complete_and_plausible():
    assert geography.tables() == ["countries-22", "two-datacentres", "us-metros", "worldwide-8"]
    sites = [*FIVE, "nevada", "south-carolina", "illinois"]
    delays = geography.one_way_delays("us-metros", sites)
    assert np.array_equal(delays, delays.T)
    assert np.all(delays[~np.eye(8, dtype=bool)] > 0.005)
    assert delays.max() < 0.04
    # A detour through a third place is rarely much quicker, so no number is out of line.
    for i in range(8):
        assert np.all(delays <= 1.6 * (delays[:, i, None] + delays[None, i, :]))


def test_sites_may_repeat_and_be_few():
    assert geography.one_way_delays("us-metros", ["iowa"]).tolist() == [[0.00025]]
    assert geography.one_way_delays("us-metros", ["iowa", "iowa"]).shape == (2, 2)


def test_what_is_not_there_is_named():
    with pytest.raises(ValueError, match="no delay table 'mars'; tables are countries-22, two-datacentres, us-metros"):
        geography.one_way_delays("mars", FIVE)
    with pytest.raises(ValueError, match="no site 'texas' in delay table us-metros; it has california, illinois"):
        geography.one_way_delays("us-metros", ["texas"])


def test_a_missing_pair_is_named(tmp_path, monkeypatch):
    (tmp_path / "two.csv").write_text("site,other,one_way_ms,kind\na,a,1,measured\nb,b,1,measured\n")
    monkeypatch.setattr(geography, "FOLDER", tmp_path)
    with pytest.raises(ValueError, match="no delay between a and b"):
        geography.one_way_delays("two", ["a", "b"])


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("a,b,1\n", r"t.csv:1: the first line"),
        ("# source\nsite,other,one_way_ms,kind\na,b,x,measured\n", r"t.csv:3: expected"),
        ("site,other,one_way_ms,kind\na,b\n", r"t.csv:2: expected"),
        ("site,other,one_way_ms,kind\na,b,1,m\nb,a,2,m\n", r"t.csv:3: b to a is given twice"),
    ],
)
def test_a_wrong_table_is_refused_with_its_line(tmp_path, text, hint):
    path = tmp_path / "t.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=hint):
        geography.read(path)


def test_a_table_may_bound_what_a_connection_carries(tmp_path, monkeypatch):
    (tmp_path / "two.csv").write_text(
        "site,other,one_way_ms,kind,mbps\na,a,1,measured,2000\nb,b,1,measured,\na,b,40,measured,500\n"
    )
    monkeypatch.setattr(geography, "FOLDER", tmp_path)
    assert geography.connection_rates("two", ["a", "b"]).tolist() == [[2e9, 5e8], [5e8, np.inf]]
    assert geography.one_way_delays("two", ["a", "b"]).tolist() == [[0.001, 0.04], [0.04, 0.001]]


def test_most_tables_say_nothing_of_rates():
    assert np.all(np.isinf(geography.connection_rates("us-metros", FIVE)))
