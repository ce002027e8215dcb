"""What a measured profile says of a run on this GPU, and of one on an A100."""

from pathlib import Path

import pytest

from orionbed.compute import CostModel
from orionbed.scenario import GpuProfile, Scenario, gpu_profile
from orionbed.scenario.measurements import PassTimes, Spread
from real.calibration import prospects
from real.calibration.profile_file import Findings, build, to_text


@pytest.fixture
def measured(findings: Findings) -> GpuProfile:
    return build(findings)


def same(seconds: float) -> Spread:
    return Spread(median=seconds, p5=seconds, p95=seconds)


def test_the_share_of_peak_is_that_of_a_layer(measured: GpuProfile, scenario: Scenario) -> None:
    # 10 ms forward and 15 ms backward, on a device whose peak is 2 GFLOP/s.
    flops = 3 * CostModel(measured).layer(scenario.model, 16, 8).forward_flops
    assert prospects.share_of_peak(measured, scenario) == pytest.approx(flops / 25e-3 / 2e9)


def test_kernels_are_as_much_faster_as_a_layer_is(findings: Findings, scenario: Scenario) -> None:
    typed = gpu_profile("h100-80gb")
    work = CostModel(typed).layer(scenario.model, 16, 8)
    half = [each / 2 for each in (work.forward_s, work.input_gradient_s, work.weight_gradient_s)]
    findings.pieces["layer"] = PassTimes(
        forward=same(half[0]), input_gradient=same(half[1]), weight_gradient=same(half[2])
    )
    assert prospects.kernel_scale_of(build(findings), typed, scenario) == pytest.approx(2.0)


def test_runs_are_simulated_with_either_gpu(
    findings: Findings, scenario: Scenario, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prospects, "HORIZON_S", 120.0)
    measured = build(findings)
    path = tmp_path / "here.yaml"
    path.write_text(to_text(measured, findings))
    here = prospects.on_this(scenario, str(path))
    assert here.gpu == measured.name
    assert 0.0 < here.wall_clock <= here.in_phase < 1.0
    flat = prospects.on_reference(measured, None, scenario)
    assert flat.gpu == "a100-80gb"
    assert "at the share of peak measured here" in flat.how
    scaled = prospects.on_reference(measured, gpu_profile("h100-80gb"), scenario)
    assert "times as fast as its profile, as measured here against h100-80gb" in scaled.how
