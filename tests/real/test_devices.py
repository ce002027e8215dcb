"""The device of a process: which it is, what it says of itself."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orionbed.backends import BackendError
from real.devices import Device

torch = pytest.importorskip("torch")
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_a_cpu() -> None:
    device = Device.choose("cpu", 3, threads=1)
    assert (device.name, device.as_torch, torch.get_num_threads()) == ("cpu", torch.device("cpu"), 1)
    device.synchronise()
    told = json.loads(json.dumps(device.describe()))
    assert told["name"]
    assert told["memory_bytes"] > 2**28
    assert told["torch"] == torch.__version__


def test_peak_memory_is_that_of_the_process_and_not_of_who_started_it() -> None:
    """This process has torch loaded, the one that it starts has not."""
    here = Device("cpu", 0, 1).peak_memory_bytes()
    code = "from real.devices import Device; held = bytes(2**25); print(Device('cpu', 0, 1).peak_memory_bytes())"
    root = Path(__file__).resolve().parents[2]
    told = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60, cwd=root
    )
    assert 2**25 < int(told.stdout) < here


def test_processes_share_gpus_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[int] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    names = [Device.choose("cuda", rank, threads=1).name for rank in range(4)]
    assert names == ["cuda:0", "cuda:1", "cuda:0", "cuda:1"]
    assert chosen == [0, 1, 0, 1]


def test_a_gpu_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(BackendError, match=r"use real\.device cpu"):
        Device.choose("cuda", 0, threads=1)


@needs_gpu
def test_a_gpu() -> None:
    device = Device.choose("cuda", 0, threads=1)
    matrix: Any = torch.ones(1000, 1000, device=device.name)
    device.synchronise()
    assert device.peak_memory_bytes() >= matrix.nbytes
    assert device.describe()["cuda"] == torch.version.cuda
