"""The process group, in processes of its own: as gloo, and torch's pipelining runtime over it."""

import importlib.util
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.xdist_group("real"),
    pytest.mark.timeout(110),
    pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is not installed"),
]
SCRIPT = Path(__file__).with_name("ranks.py")
ROOT = Path(__file__).parents[3]


def run(what: str, size: int, folder: Path) -> None:
    """Run a part of the script with so many ranks; all must end well."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    ranks = [
        subprocess.Popen(
            [sys.executable, str(SCRIPT), what, str(rank), str(size), str(folder / "store"), str(folder)],
            env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for rank in range(size)
    ]  # fmt: skip
    try:
        deadline = time.monotonic() + 90.0
        for number, rank in enumerate(ranks):
            said, _ = rank.communicate(timeout=max(0.1, deadline - time.monotonic()))
            assert rank.returncode == 0, f"rank {number}:\n{said}"
    finally:
        for rank in ranks:
            rank.kill()
            rank.communicate()


@pytest.mark.parametrize("size", [2, 3])
def test_messages_and_collectives_are_as_gloos(tmp_path: Path, size: int) -> None:
    run("all", size, tmp_path)


def test_torchs_pipelining_runtime_gets_the_same_gradients_as_over_gloo(tmp_path: Path) -> None:
    run("pipeline", 2, tmp_path)


def test_when_a_rank_dies_the_others_name_it_within_seconds(tmp_path: Path) -> None:
    run("loss", 3, tmp_path)


def test_tensors_on_a_gpu_pass_through_pinned_memory() -> None:
    import torch

    if not torch.cuda.is_available():
        pytest.skip("no GPU here: the copies between a GPU and pinned memory were not tested")
    from orionbed.transport.messages import as_bytes
    from orionbed.transport.staging import from_wire, to_wire

    for dtype in (torch.float32, torch.bfloat16, torch.int64):
        tensor = torch.arange(100_000, device="cuda").to(dtype)
        body, settle = to_wire(tensor)
        settle()
        expected = tensor.clone()
        tensor.zero_()
        back = torch.empty_like(tensor)
        from_wire(memoryview(bytearray(as_bytes(body()))), back)
        torch.cuda.synchronize()
        assert torch.equal(back, expected)
