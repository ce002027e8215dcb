"""One rank of the tests of the process group, run as a script: what, rank, size, a file for the store, a folder."""

import os
import sys
import threading
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from orionbed.transport.group import BACKEND, Group, register
from orionbed.transport.inbox import LostPeerError

WITHIN = timedelta(seconds=40)
DTYPES = (torch.float32, torch.bfloat16, torch.float64, torch.int64)


def made(rank: int, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Return whole numbers that sum up exactly in any order."""
    generator = torch.Generator().manual_seed(rank)
    return torch.randint(-8, 8, shape, generator=generator).to(dtype)


def collectives(group: Any, rank: int, size: int) -> None:
    """All that gloo gives, this group gives as well, to the bit."""
    for dtype in DTYPES:
        for shape in ((), (1,), (7,), (3, 5), (100_003,)):
            mine = made(rank, shape, dtype)
            for operation in (dist.ReduceOp.SUM, dist.ReduceOp.MAX):
                ours, gloos = mine.clone(), mine.clone()
                dist.all_reduce(ours, operation, group=group)
                dist.all_reduce(gloos, operation)
                assert torch.equal(ours, gloos), (dtype, shape, operation)
            for root in range(size):
                ours, gloos = mine.clone(), mine.clone()
                dist.broadcast(ours, root, group=group)
                dist.broadcast(gloos, root)
                assert torch.equal(ours, gloos), (dtype, shape, root)
            ours_of, gloos_of = ([torch.empty_like(mine) for _ in range(size)] for _ in range(2))
            dist.all_gather(ours_of, mine, group=group)
            dist.all_gather(gloos_of, mine)
            assert all(torch.equal(a, b) for a, b in zip(ours_of, gloos_of, strict=True))
    average = made(rank, (10,), torch.float64)
    total = average.clone()
    dist.all_reduce(average, dist.ReduceOp.AVG, group=group)
    dist.all_reduce(total)
    assert torch.equal(average, total / size)
    works = [dist.all_reduce(torch.full((5,), float(k)), group=group, async_op=True) for k in range(5)]
    assert all(work.wait() for work in works)
    found: list[Any] = [None] * size
    dist.all_gather_object(found, {"rank": rank}, group=group)
    assert found == [{"rank": k} for k in range(size)]


def barriers(group: Any, rank: int, size: int, folder: Path) -> None:
    """Nobody leaves a barrier before all are there."""
    for k in range(3):
        if rank == k % size:
            time.sleep(0.2)
        (folder / f"{k}-{rank}").touch()
        dist.barrier(group=group)
        assert all((folder / f"{k}-{other}").exists() for other in range(size))


def messages(group: Any, rank: int, size: int) -> None:
    """The k-th receive gets the k-th message, whenever it is posted; all directions at once."""
    others = [other for other in range(size) if other != rank]
    sizes = [0, 1, 1000, 300_000]
    for dtype in DTYPES:
        for k, count in enumerate(sizes):
            for other in others:
                tensor = made(100 * rank + 10 * other + k, (count,), dtype)
                work = dist.isend(tensor, other, group=group)
                work.wait()
                tensor.zero_()  # it may be written again
        late = {(other, k): torch.empty(count, dtype=dtype) for other in others for k, count in enumerate(sizes)}
        works = [dist.irecv(late[other, k], other, group=group) for other in others for k in range(len(sizes))]
        for work in reversed(works):
            work.wait()
        for (other, k), tensor in late.items():
            assert torch.equal(tensor, made(100 * other + 10 * rank + k, (sizes[k],), dtype))
    for other in others:
        dist.send(torch.tensor([1.0]), other, group=group, tag=1)
        dist.send(torch.tensor([2.0]), other, group=group, tag=2)
        found = torch.empty(2, 1)
        dist.recv(found[1], other, group=group, tag=2)
        dist.recv(found[0], other, group=group, tag=1)
        assert found.flatten().tolist() == [1.0, 2.0]
        columns = torch.zeros(2, 3)
        dist.send(torch.arange(2.0), other, group=group)
        dist.recv(columns[:, 1], other, group=group)
        assert columns[:, 1].tolist() == [0.0, 1.0]
        assert columns.sum() == 1.0


def refusals(group: Any, rank: int) -> None:
    """What does not fit is said."""
    other = 1 - rank
    dist.send(torch.zeros(3), other, group=group)
    with pytest.raises(RuntimeError, match="12 bytes came for a tensor of 16"):
        dist.recv(torch.zeros(4), other, group=group)
    started = time.monotonic()
    work = dist.irecv(torch.zeros(4), other, group=group)
    assert not work.is_completed()
    with pytest.raises(TimeoutError, match=f"nothing came from peer {other} within 0.3 s"):
        work.wait(timedelta(seconds=0.3))
    assert time.monotonic() - started < 3.0


def loss(group: Any, rank: int, size: int) -> None:
    """The last rank dies; all others say who it was, within seconds."""
    dist.barrier(group=group)
    if rank == size - 1:
        assert group.endpoint.flush(10.0)
        os._exit(0)
    started = time.monotonic()
    tensor = torch.zeros(4)
    with pytest.raises(LostPeerError, match=f"peer {size - 1} is lost"):
        dist.all_reduce(tensor, group=group)
    with pytest.raises(LostPeerError, match=f"peer {size - 1} is lost"):
        dist.recv(tensor, size - 1, group=group)
    assert time.monotonic() - started < 15.0


CSV = {
    "1f1b": ["0F0,0F1,0B0,0F2,0B1,0F3,0B2,0B3", "1F0,1B0,1F1,1B1,1F2,1B2,1F3,1B3"],
    "v": [
        ",".join(f"{stage}{what}{k}" for stage, what in ((0, "F"), (3, "F"), (3, "B"), (0, "B")) for k in range(4)),
        ",".join(f"{stage}{what}{k}" for stage, what in ((1, "F"), (2, "F"), (2, "B"), (1, "B")) for k in range(4)),
    ],
}


def gradients(group: Any, rank: int, schedule: str, file: Path) -> list[Tensor]:
    """Return this rank's gradients after one step of a model of four layers."""
    from torch.distributed.pipelining import PipelineStage
    from torch.distributed.pipelining.schedules import _PipelineScheduleRuntime

    torch.manual_seed(0)
    layers = [nn.Sequential(nn.Linear(32, 32), nn.Tanh()) for _ in range(4)]
    held = {"1f1b": ([0], [1]), "v": ([0, 3], [1, 2])}[schedule][rank]
    num_stages = 2 if schedule == "1f1b" else 4
    per_stage = 4 // num_stages
    parts = [nn.Sequential(*layers[per_stage * stage : per_stage * (stage + 1)]) for stage in held]
    device = torch.device("cpu")
    stages = [
        PipelineStage(part, stage, num_stages, device, group=group) for part, stage in zip(parts, held, strict=True)
    ]
    runtime = _PipelineScheduleRuntime(stages, n_microbatches=4, loss_fn=nn.functional.mse_loss, scale_grads=True)
    file.write_text("\n".join(CSV[schedule]) + "\n")
    runtime._load_csv(str(file), format="compute_only")
    inputs, target = torch.randn(8, 32), torch.randn(8, 32)
    arguments = [inputs] if 0 in held else []
    keywords = {"target": target, "losses": []} if num_stages - 1 in held else {}
    runtime.step(*arguments, **keywords)
    return [parameter.grad for part in parts for parameter in part.parameters()]


def pipeline(group: Any, rank: int, folder: Path) -> None:
    """Torch's own pipelining runtime gets the same gradients over this group as over gloo."""
    for schedule in CSV:
        ours = gradients(group, rank, schedule, folder / f"{schedule}-ours-{rank}.csv")
        gloos = gradients(None, rank, schedule, folder / f"{schedule}-gloos-{rank}.csv")
        assert ours
        assert all(torch.equal(a, b) for a, b in zip(ours, gloos, strict=True)), schedule
        assert any(one.abs().sum() > 0.0 for one in ours)


def main() -> None:
    what, rank, size, store, folder = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4], Path(sys.argv[5])
    torch.set_num_threads(1)
    dist.init_process_group("gloo", store=dist.FileStore(store, size), rank=rank, world_size=size, timeout=WITHIN)
    register(b"a secret")
    group = dist.new_group(list(range(size)), timeout=WITHIN, backend=BACKEND)
    assert isinstance(group, Group)
    assert group.name() == BACKEND
    if what == "all":
        messages(group, rank, size)
        collectives(group, rank, size)
        barriers(group, rank, size, folder)
    elif what == "pipeline":
        pipeline(group, rank, folder)
        refusals(group, rank)
    else:
        loss(group, rank, size)
        group.abort()
        return
    dist.barrier(group=group)
    started = time.monotonic()
    dist.destroy_process_group(group)
    assert time.monotonic() - started < 20.0, "nobody waits for a patience to run out"
    assert not [each for each in threading.enumerate() if each.name.startswith("transport")]
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
