import csv
from math import inf
from pathlib import Path

import pytest

from orionbed import tcp

MBPS = 1e6 / 8.0
with (Path(__file__).parent.parent / "data" / "network" / "tcp_cases.csv").open() as file:
    CASES = {row["case"]: row for row in csv.DictReader(file)}


def of_kind(*kinds):
    return [name for name, row in CASES.items() if row["kind"] in kinds]


def test_all_cases_are_there():
    assert len(CASES) == 15
    assert len(of_kind("window", "mathis", "cubic", "slow_start")) == 15


@pytest.mark.parametrize("name", of_kind("window"))
def test_window_ceiling(name):
    row = CASES[name]
    rate = tcp.window_ceiling(float(row["window_B"]), float(row["rtt_s"]))
    assert rate / MBPS == pytest.approx(float(row["rate_Mbps"]), rel=1e-9)


@pytest.mark.parametrize("name", of_kind("mathis", "cubic"))
def test_loss_ceiling(name):
    row = CASES[name]
    congestion = {"mathis": "reno", "cubic": "cubic"}[row["kind"]]
    rate = tcp.loss_ceiling(congestion, float(row["loss"]), float(row["rtt_s"]), float(row["mss_B"]))
    assert rate / MBPS == pytest.approx(float(row["rate_Mbps"]), rel=1e-9)


@pytest.mark.parametrize("name", of_kind("slow_start"))
def test_slow_start(name):
    row = CASES[name]
    size, rate, rtt_s, window = (
        float(row["size_B"]), float(row["cap_Mbps"]) * MBPS, float(row["rtt_s"]), float(row["iw_B"])
    )  # fmt: skip
    assert tcp.slow_start_s(size, rate, rtt_s, window) == pytest.approx(float(row["drain_s"]), rel=1e-9)
    assert size / rate == pytest.approx(float(row["warm_s"]), rel=1e-9)


def test_no_loss_no_ceiling():
    for congestion in ("cubic", "reno", "bbr"):
        assert tcp.loss_ceiling(congestion, 0.0, 0.068) == inf
    assert tcp.loss_ceiling("bbr", 0.01, 0.068) == inf
    assert tcp.loss_ceiling("bbr", 0.05, 0.068) == tcp.loss_ceiling("cubic", 0.05, 0.068)


def test_without_delay_nothing_holds_tcp_back():
    assert tcp.window_ceiling(4096.0, 0.0) == inf
    assert tcp.loss_ceiling("cubic", 0.5, 0.0) == inf
    assert tcp.slow_start_s(100.0, 50.0, 0.0) == 2.0


def test_progress_in_slow_start_fits_its_duration():
    rate, rtt_s = 107e6, 0.068
    for size in (1e4, 5e5, 2.3e6, 1e8):
        lasts_s = tcp.slow_start_s(size, rate, rtt_s)
        assert tcp.slow_start_progress(lasts_s, rate, rtt_s)[0] == pytest.approx(size, rel=1e-12)
        assert tcp.slow_start_progress(0.0, rate, rtt_s) == (0.0, 0)
    sent, doublings = tcp.slow_start_progress(2.5 * rtt_s, rate, rtt_s)
    assert doublings == 2
    assert sent == pytest.approx((1 + 2 + 0.5 * 4) * tcp.INITIAL_WINDOW_BYTES)


def test_handshakes_and_timeouts():
    assert tcp.handshake_s(0.068, tls=False) == 0.068
    assert tcp.handshake_s(0.068, tls=True) == 0.136
    assert tcp.retransmission_timeout_s(0.068) == pytest.approx(0.268)
