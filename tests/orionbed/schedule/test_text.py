"""Schedules as CSV, the form of PyTorch's pipelining runtime; and PyTorch's own lists, action by action."""

from pathlib import Path
from typing import Any

import pytest

from orionbed.schedule.catalogue import ENTRIES, Wanted
from orionbed.schedule.classic import gpipe, interleaved, one_forward_one_backward
from orionbed.schedule.order import ScheduleError
from orionbed.schedule.text import read_csv, to_csv
from orionbed.schedule.timing import equal_times
from orionbed.schedule.v_shaped import dualpipe_v, zb_v


@pytest.mark.parametrize("name", sorted(ENTRIES))
def test_what_is_written_is_read_as_the_same_order(name: str, tmp_path: Path) -> None:
    chunks = ENTRIES[name].chunks or 3
    order = ENTRIES[name].make(Wanted(4, 9, equal_times(4 * chunks, 1.0, 1.0, 1.0), chunks=chunks))
    file = tmp_path / "order.csv"
    file.write_text(to_csv(order))
    assert read_csv(file) == order


def torch_action(text: str) -> Any:
    from torch.distributed.pipelining.schedules import _Action

    return _Action.from_str(text)


@pytest.mark.parametrize("name", sorted(ENTRIES))
def test_pytorch_reads_every_cell_as_what_it_is(name: str) -> None:
    chunks = ENTRIES[name].chunks or 2
    order = ENTRIES[name].make(Wanted(4, 8, equal_times(4 * chunks, 1.0, 1.0, 1.0)))
    for line, actions in zip(to_csv(order).splitlines(), order.lists, strict=True):
        read = []
        for cell in line.split(","):
            action = torch_action(cell)
            read += [str(one) for one in action.sub_actions or (action,)]
        assert read == [str(action) for action in actions]


def torch_lists(cls: str, num_stages: int, num_microbatches: int, chunks: int) -> list[list[str]]:
    """PyTorch's own lists, without process groups: what its constructor needs to know is set by hand."""
    from torch.distributed.pipelining import schedules

    schedule = object.__new__(getattr(schedules, cls))
    schedule.pp_group_size = num_stages
    schedule._n_microbatches = num_microbatches
    schedule._num_stages = schedule.num_stages = num_stages * chunks
    schedule.n_local_stages = chunks
    schedule.number_of_rounds = max(1, num_microbatches // num_stages)
    schedule.microbatches_per_round = num_microbatches // schedule.number_of_rounds
    lists = []
    for rank in range(num_stages):
        actions = [action for action in schedule._calculate_single_rank_operations(rank) if action is not None]
        lists.append([str(one) for action in actions for one in action.sub_actions or (action,)])
    return lists


@pytest.mark.parametrize("num_stages", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("rounds", [2, 3, 5])
def test_pytorch_makes_the_same_lists(num_stages: int, rounds: int) -> None:
    num_microbatches = rounds * num_stages
    for order, cls, chunks in (
        (interleaved(num_stages, num_microbatches, 2), "ScheduleInterleaved1F1B", 2),
        (interleaved(num_stages, num_microbatches, 3), "ScheduleInterleaved1F1B", 3),
        (zb_v(num_stages, num_microbatches), "ScheduleZBVZeroBubble", 2),
        (dualpipe_v(num_stages, num_microbatches), "ScheduleDualPipeV", 2),
    ):
        expected = torch_lists(cls, num_stages, num_microbatches, chunks)
        assert [[str(action) for action in actions] for actions in order.lists] == expected


@pytest.mark.parametrize("num_microbatches", [1, 2, 5, 7])
def test_pytorch_makes_the_same_v_for_short_steps(num_microbatches: int) -> None:
    expected = torch_lists("ScheduleZBVZeroBubble", 4, num_microbatches, 2)
    assert [[str(action) for action in actions] for actions in zb_v(4, num_microbatches).lists] == expected


def test_the_files_of_gpipe_and_1f1b() -> None:
    assert to_csv(gpipe(2, 2)) == "0F0,0F1,0B0,0B1\n1F0,1F1,1B0,1B1\n"
    assert to_csv(one_forward_one_backward(2, 2)) == "0F0,0F1,0B0,0B1\n1F0,1B0,1F1,1B1\n"


def test_what_pytorch_adds_and_empty_cells_are_skipped(tmp_path: Path) -> None:
    file = tmp_path / "lowered.csv"
    file.write_text("0UNSHARD,0F0,0SEND_F0,,0RECV_B0,0B0,0REDUCE_GRAD\n\n,1RECV_F0,1F0,1B0,1SEND_B0,1RESHARD\n")
    assert [[str(a) for a in actions] for actions in read_csv(file).lists] == [["0F0", "0B0"], ["1F0", "1B0"]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0F0,0X0\n", "mine.csv:1: cell 2: '0X0' is no action"),
        ("0F0,0B0\n1F0,1B0,(1F1;1I1)OVERLAP_F_B\n", "mine.csv:2: cell 3: .* a pair is a forward and a whole backward"),
        ("0F0,0B0\n0F1,0B1\n", "chunk 0 is worked on by stages 0 and 1"),
        ("0F0,0B0\n2F0,2B0\n", "nobody works on chunk 1"),
        ("0F0,0B0\n1F0,1B0,2F0,2B0\n", "different numbers of chunks"),
        ("\n", "has no actions"),
        ("0B0,0F0\n", "lists 0B0 before 0F0"),
    ],
)
def test_bad_files_are_refused_with_the_place(text: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.csv"
    file.write_text(text)
    with pytest.raises(ScheduleError, match=message):
        read_csv(file)


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    file = tmp_path / "mine.csv"
    file.write_bytes(b"\xff\xfe0F0")
    with pytest.raises(ScheduleError, match="not UTF-8"):
        read_csv(file)
