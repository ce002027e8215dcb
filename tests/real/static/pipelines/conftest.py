"""Processes that run pipelines, started once for all cases."""

import base64
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[3]


class Ranks:
    """Four processes that run a case together, children of one."""

    NUM = 4
    PATIENCE_S = 90.0

    def __init__(self, folder: Path) -> None:
        self._errors = folder / "errors.txt"
        theirs = []
        self._cases, self._answers = [], []
        for _ in range(self.NUM):
            read, write = os.pipe()
            answers, tell = os.pipe()
            self._cases.append(os.fdopen(write, "w"))
            self._answers.append(os.fdopen(answers))
            theirs.append((read, tell))
        given = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        with self._errors.open("wb") as errors:
            self._process = subprocess.Popen(
                [sys.executable, str(Path(__file__).with_name("rank.py")), str(folder / "store")]
                + [f"{read},{write}" for read, write in theirs],
                pass_fds=[descriptor for pair in theirs for descriptor in pair],
                stderr=errors,
                env=os.environ | given,
                start_new_session=True,
            )
        for pair in theirs:
            for descriptor in pair:
                os.close(descriptor)

    def run(self, **case: Any) -> list[dict[str, Any]]:
        """Return what became of a case at each rank that had a part in it."""
        for cases in self._cases:
            cases.write(json.dumps(case) + "\n")
            cases.flush()
        deadline_s = time.monotonic() + self.PATIENCE_S
        found = [self._answer(rank, deadline_s) for rank in range(self.NUM)]
        for rank, told in enumerate(found):
            assert "error" not in told, f"rank {rank}: {told['error']}\n{self._errors.read_text()[-3000:]}"
        return [told for told in found if told]

    def _answer(self, rank: int, deadline_s: float) -> dict[str, Any]:
        answers = self._answers[rank]
        there, _, _ = select.select([answers], [], [], max(0.0, deadline_s - time.monotonic()))
        line = answers.readline() if there else ""
        told: dict[str, Any] = json.loads(line) if line else {"error": "no answer"}
        return told

    def end(self) -> None:
        """End all processes."""
        for cases in self._cases:
            cases.close()
        try:
            self._process.wait(timeout=20.0)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        for answers in self._answers:
            answers.close()


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> Iterator[None]:
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(name="ranks", scope="session")
def _ranks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ranks]:
    pytest.importorskip("torch")
    ranks = Ranks(tmp_path_factory.mktemp("ranks"))
    try:
        yield ranks
    finally:
        ranks.end()


@pytest.fixture(name="numbers", scope="session")
def _numbers() -> Any:
    """Return what makes a tensor of the text that a rank has told."""

    def numbers(text: str) -> Any:
        import torch

        return torch.frombuffer(bytearray(base64.b64decode(text)), dtype=torch.float64)

    return numbers
