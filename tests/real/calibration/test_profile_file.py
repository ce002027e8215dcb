"""The file that a calibration writes: it reads back, every number has its source, and other shapes stay."""

from dataclasses import replace
from pathlib import Path

import pytest

from orionbed.scenario import assumptions, gpu_profile, load
from real.calibration import api, profile_file
from real.calibration.devices import FoundDevice, typed_profile
from real.calibration.profile_file import Findings, build, kept_entries, to_text

H100 = FoundDevice("cuda", "NVIDIA H100 80GB HBM3", 85 * 10**9, 1)


def write(path: Path, findings: Findings) -> Path:
    path.write_text(to_text(build(findings), findings))
    return path


def test_what_is_written_reads_back(findings: Findings, tmp_path: Path) -> None:
    findings.notes.append("A remark.")
    made = build(findings)
    text = to_text(made, findings)
    (tmp_path / "here.yaml").write_text(text)
    assert gpu_profile(str(tmp_path / "here.yaml")) == made
    assert text.startswith("# A CPU, measured on 2026-06-01 with\n#     orionbed calibrate\n# A remark.\nname: ")


def test_every_number_has_a_source(findings: Findings, tmp_path: Path) -> None:
    path = write(tmp_path / "here.yaml", findings)
    rows = [row for row in assumptions(load("minimal", profile=path)) if row["key"].startswith("gpus/")]
    assert len(rows) > 60
    unsourced = {row["key"] for row in rows if row["kind"] == "assumed"}
    # Between GPUs nothing is measured.
    unknown = ("peak_fp32", "link", "link_efficiency", "link_delay")
    assert unsourced == {f"gpus/{findings.device.name}.{key}" for key in unknown}
    measured = [row for row in rows if row["key"].endswith("layer.forward.median")]
    assert [(row["kind"], row["source"].partition(":")[0]) for row in measured] == [
        ("derived", "measured on 2026-06-01 on A CPU with orionbed calibrate")
    ]


def test_on_a_cpu_the_peak_is_the_measured_one(findings: Findings) -> None:
    made = build(findings)
    assert (made.name, made.device, made.peak) == ("measured-a-cpu-1-thread", "cpu", 2e9)
    assert "the best rate of any multiply that was timed, squares of 64" in made.provenance["peak"]
    assert [(point.smallest_dimension, point.forward) for point in made.matmul] == [(16, 0.25), (64, 0.5)]
    assert (made.attention.forward, made.attention.backward) == (0.25, 0.2)
    assert (made.memory_bandwidth, made.memory_efficiency, made.launch) == (1e10, 1.0, 1e-6)


def test_on_a_known_gpu_the_peak_is_the_datasheets(findings: Findings) -> None:
    shape = replace(findings.shape, dtype="bfloat16")
    rates = replace(findings.rates, square_flops={8192: 700e12}, streamed_bytes_per_s=3015e9)
    made = build(replace(findings, device=H100, shape=shape, rates=rates))
    assert (made.name, made.peak, made.peak_fp32) == ("measured-nvidia-h100-80gb-hbm3", 989.4e12, 67e12)
    assert made.provenance["peak"].startswith("published: NVIDIA H100 datasheet")
    assert (made.memory_bandwidth, made.memory_efficiency) == (3350e9, 0.9)
    text = to_text(made, replace(findings, device=H100, shape=shape, rates=rates))
    assert "peak: 989.4 TFLOP/s  # the datasheet's; the best multiply that was timed reached 700 TFLOP/s" in text


def test_on_an_unknown_gpu_the_peak_is_measured(findings: Findings) -> None:
    made = build(replace(findings, device=FoundDevice("cuda", "NVIDIA X1", 85 * 10**9, 1)))
    assert made.peak == 2e9
    assert made.provenance["peak"].startswith("derived: measured on 2026-06-01 on NVIDIA X1")


def test_other_shapes_of_the_same_device_stay(findings: Findings, tmp_path: Path) -> None:
    path = write(tmp_path / "here.yaml", findings)
    other = replace(findings.shape, vocab=128)
    assert kept_entries(path, findings.device, findings.shape) == ()
    assert kept_entries(path, FoundDevice("cpu", "Another", 1, 1), other) == ()
    assert kept_entries(tmp_path / "nowhere.yaml", findings.device, other) == ()
    kept = kept_entries(path, findings.device, other)
    assert [entry.shape.vocab for entry in kept] == [64]
    write(path, replace(findings, shape=other, kept=kept))
    assert [entry.shape.vocab for entry in gpu_profile(str(path)).measured] == [64, 128]


def test_a_file_that_is_no_profile_keeps_nothing(findings: Findings, tmp_path: Path) -> None:
    (tmp_path / "here.yaml").write_text("name: x\n")
    assert kept_entries(tmp_path / "here.yaml", findings.device, findings.shape) == ()


def test_names_may_have_quotes(findings: Findings, tmp_path: Path) -> None:
    odd = replace(findings, device=FoundDevice("cpu", 'A "quick" C\\PU (R) @ 2.0GHz', 16 * 10**9, 2))
    found = gpu_profile(str(write(tmp_path / "odd.yaml", odd)))
    assert found.title == 'A "quick" C\\PU (R) @ 2.0GHz, measured'
    assert found.name == "measured-a-quick-c-pu-2.0ghz-2-threads"


def test_the_summary_names_what_was_found(findings: Findings, target: api.Target) -> None:
    lines = profile_file.summary_lines(build(findings), findings)
    assert lines[0] == "device     A CPU, 1000 MHz"
    assert lines[1] == "peak       2 GFLOP/s, the best multiply"
    assert any(line.startswith("loopback   10 Gbps, 10 us one way") for line in lines)


@pytest.mark.parametrize(
    ("title", "memory", "name"),
    [
        ("NVIDIA A100-SXM4-80GB", 85.1e9, "a100-80gb"),
        ("NVIDIA A100-SXM4-40GB", 42.3e9, "a100-40gb"),
        ("NVIDIA H100 80GB HBM3", 85.0e9, "h100-80gb"),
        ("NVIDIA H200", 150.1e9, "h200-141gb"),
        ("NVIDIA L4", 23.8e9, "l4-24gb"),
        ("NVIDIA GeForce RTX 4090", 25.4e9, "rtx-4090-24gb"),
        ("Tesla T4", 15.6e9, "t4-16gb"),
        ("Tesla V100-SXM2-16GB", 16.9e9, "v100-16gb"),
        ("NVIDIA H100 PCIe", 85.0e9, None),
        ("NVIDIA A10", 24e9, None),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", 16.9e9, None),
    ],
)
def test_typed_profiles_are_found_by_name_and_memory(title: str, memory: float, name: str | None) -> None:
    found = typed_profile(FoundDevice("cuda", title, int(memory), 1))
    assert (found.name if found else None) == name


def test_a_cpu_has_no_typed_profile() -> None:
    assert typed_profile(FoundDevice("cpu", "NVIDIA H100 80GB HBM3", 85 * 10**9, 1)) is None
