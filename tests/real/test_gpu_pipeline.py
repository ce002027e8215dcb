"""The unattended comparison for a GPU, tried on a CPU with a tiny model."""

import multiprocessing
import time

import pytest

from orionbed.backends import BackendError
from real import gpu_pipeline
from real.calibration.table import Table
from real.gpu_pipeline import CASES, Case, Found

torch = pytest.importorskip("torch")
pytestmark = [pytest.mark.xdist_group("real"), pytest.mark.timeout(120)]


def test_pipelines_of_two_processes_agree_with_the_plain_model(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gpu_pipeline, "CASES", (Case("zb-v", "float32", "full"), Case("1f1b", "bfloat16", "none")))
    status = gpu_pipeline.main(["--device", "cpu", "--tiny", "--stages", "2"])
    printed = capsys.readouterr().out
    assert status == 0, printed
    table = printed.rstrip().rpartition("\n\n")[2].splitlines()
    assert [line.split()[0] for line in table] == ["device", "zb-v", "1f1b", "took"]
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize(
    ("found", "failed"),
    [
        (Found(1e-6, 1e-6, 0.3, 0.1), False),
        (Found(1e-2, 1e-6, 0.3, 0.1), True),
        (Found(1e-6, 1e-2, 0.3, 0.1), True),
        (Found(1e-6, 1e-6, 1e-6, 0.1), True),
    ],
)
def test_verdicts(found: Found, failed: bool, capsys: pytest.CaptureFixture[str]) -> None:
    table = Table()
    gpu_pipeline._judge(CASES[0], [Found(0.0, 0.0, 1.0, 0.0), found], table)
    assert ("FAILED" in capsys.readouterr().out) == failed


def test_what_a_process_tells_of_its_end_is_the_reason() -> None:
    (ours, theirs), (other, _) = multiprocessing.Pipe(duplex=False), multiprocessing.Pipe(duplex=False)
    theirs.send("stage 0: RuntimeError: out of memory")
    with pytest.raises(BackendError, match="stage 0: RuntimeError: out of memory"):
        gpu_pipeline._next_of_each([ours, other], time.monotonic() + 5.0)
    theirs.close()
    with pytest.raises(BackendError, match="a process ended before it was done"):
        gpu_pipeline._next_of_each([ours, other], time.monotonic() + 5.0)
    with pytest.raises(BackendError, match="nothing came of 1 processes"):
        gpu_pipeline._next_of_each([other], time.monotonic())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_on_a_gpu() -> None:
    assert gpu_pipeline.main(["--tiny", "--stages", "2"]) == 0
